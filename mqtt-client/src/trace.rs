//! What goes over a connection, packet by packet, for who traces it: in the words of mosquitto's programs, which people
//! and scripts know.

use mqtt_codec::{Ack, Packet, ProtocolVersion, Publish, decode};
use tracing::Level;

/// The target of these events, each a line at the level of debugging.
const TARGET: &str = "mqtt_client::packets";

/// Whether anybody reads it.
pub(crate) fn is_on() -> bool {
    tracing::enabled!(target: TARGET, Level::DEBUG)
}

/// A packet came.
pub(crate) fn received(client_id: &str, packet: &Packet<'_>, version: ProtocolVersion) {
    if !is_on() {
        return;
    }
    let line = match packet {
        Packet::ConnAck(connack) => {
            format!("CONNACK ({})", connack.reason_code.connect_code(version))
        }
        Packet::Publish(publish) => message(publish),
        Packet::PubAck(ack) => with_reason("PUBACK", ack),
        Packet::PubRec(ack) => format!("PUBREC (Mid: {})", ack.packet_id),
        Packet::PubRel(ack) => format!("PUBREL (Mid: {})", ack.packet_id),
        Packet::PubComp(ack) => with_reason("PUBCOMP", ack),
        Packet::Disconnect(disconnect) => {
            tracing::debug!(target: TARGET, "Received DISCONNECT ({})", disconnect.reason_code.0);
            return;
        }
        packet => packet.packet_type().name().to_owned(),
    };
    tracing::debug!(target: TARGET, "Client {} received {line}", shown(client_id));
}

/// A packet is to leave.
pub(crate) fn sending(client_id: &str, packet: &Packet<'_>) {
    if !is_on() {
        return;
    }
    let line = match packet {
        Packet::Publish(publish) => message(publish),
        Packet::PubAck(ack) => with_code("PUBACK", ack),
        Packet::PubRec(ack) => with_code("PUBREC", ack),
        Packet::PubRel(ack) => format!("PUBREL (m{})", ack.packet_id),
        Packet::PubComp(ack) => format!("PUBCOMP (m{})", ack.packet_id),
        Packet::Subscribe(subscribe) => {
            for filter in &subscribe.filters {
                let how = filter.options;
                let handling = (how.retain_handling as u8) << 4;
                let options =
                    u8::from(how.no_local) << 2 | u8::from(how.retain_as_published) << 3 | handling;
                tracing::debug!(
                    target: TARGET,
                    "Client {} sending SUBSCRIBE (Mid: {}, Topic: {}, QoS: {}, Options: 0x{options:02x})",
                    shown(client_id),
                    subscribe.packet_id,
                    filter.filter.as_str(),
                    how.qos as u8,
                );
            }
            return;
        }
        Packet::Unsubscribe(unsubscribe) => {
            for filter in &unsubscribe.filters {
                tracing::debug!(
                    target: TARGET,
                    "Client {} sending UNSUBSCRIBE (Mid: {}, Topic: {})",
                    shown(client_id),
                    unsubscribe.packet_id,
                    filter.as_str(),
                );
            }
            return;
        }
        packet => packet.packet_type().name().to_owned(),
    };
    tracing::debug!(target: TARGET, "Client {} sending {line}", shown(client_id));
}

/// These packets are to leave.
pub(crate) fn sending_bytes(client_id: &str, mut bytes: &[u8], version: ProtocolVersion) {
    if !is_on() {
        return;
    }
    while let Ok(Some((packet, length))) = decode(bytes, version, u32::MAX) {
        sending(client_id, &packet);
        bytes = bytes.get(length..).unwrap_or_default();
    }
}

fn shown(client_id: &str) -> &str {
    match client_id {
        "" => "(null)",
        id => id,
    }
}

fn with_reason(name: &str, ack: &Ack<'_>) -> String {
    format!("{name} (Mid: {}, RC:{})", ack.packet_id, ack.reason_code.0)
}

fn with_code(name: &str, ack: &Ack<'_>) -> String {
    format!("{name} (m{}, rc{})", ack.packet_id, ack.reason_code.0)
}

fn message(publish: &Publish<'_>) -> String {
    let topic = match (publish.topic, publish.properties.topic_alias) {
        (Some(topic), _) => format!("'{}'", topic.as_str()),
        (None, Some(alias)) => format!("topic alias {alias}"),
        (None, None) => "''".to_owned(),
    };
    format!(
        "PUBLISH (d{}, q{}, r{}, m{}, {topic}, ... ({} bytes))",
        u8::from(publish.dup),
        publish.qos as u8,
        u8::from(publish.retain),
        publish.packet_id.map_or(0, |id| id.get()),
        publish.payload.len(),
    )
}
