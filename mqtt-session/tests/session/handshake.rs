//! CONNECT and CONNACK.

use std::num::{NonZeroU16, NonZeroU32};

use mqtt_codec::{ConnAck, ConnAckProperties, PacketType, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{
    Blame, ClientConfig, Connection, Error, Limits, Negotiated, Persistence, Role, ServerLimits,
    Session,
};

use crate::{
    end::{End, NOW, V3, V5, VERSIONS, client, connect, server},
    message::Message,
};

fn new_client(config: ClientConfig) -> Connection<Message> {
    Connection::client(Session::new(Persistence::Ephemeral), config, NOW)
}

/// [MQTT-3.2.2-4]
#[test]
fn a_client_without_session_does_not_accept_one() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.session_present = true;
    let mut config = ClientConfig::new(V5);
    for clean_start in [true, false] {
        config.clean_start = clean_start;
        let error = new_client(config.clone())
            .handle_connack(NOW, &connack)
            .unwrap_err();
        assert_eq!(
            (error, error.clause(), error.blame()),
            (Error::SessionPresent, "MQTT-3.2.2-4", Blame::Peer)
        );
    }
    config.adopt_session = true;
    assert!(
        new_client(config)
            .handle_connack(NOW, &connack)
            .unwrap()
            .session_present
    );
}

/// [MQTT-3.1.2-4], [MQTT3-3.1.2-6]
#[test]
fn a_clean_start_discards_the_clients_session() {
    for version in VERSIONS {
        let mut end = client(version, Persistence::Ephemeral);
        end.push(1, QoS::AtLeastOnce);
        end.written();
        let config = ClientConfig::new(version);
        let end = End::client(
            end.connection.into_session(),
            config,
            &ConnAck::new(ReasonCode::SUCCESS),
        );
        assert_eq!(end.connection.session().in_flight_len(), 0);
    }
}

/// MQTT 3.1 has no Session Present: the client goes on with what it has.
#[test]
fn in_v3_1_the_client_decides() {
    let mut end = client(ProtocolVersion::V3_1, Persistence::Ephemeral);
    end.push(1, QoS::AtLeastOnce);
    end.written();
    let mut config = ClientConfig::new(ProtocolVersion::V3_1);
    config.clean_start = false;
    let mut end = End::client(
        end.connection.into_session(),
        config,
        &ConnAck::new(ReasonCode::SUCCESS),
    );
    assert!(end.connection.negotiated().session_present);
    assert_eq!(end.written(), ["PUBLISH 1 q1 #1 dup"]);
}

/// [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.2.2-3]
#[test]
fn a_server_knows_whether_the_session_goes_on() {
    for version in VERSIONS {
        let end = server(version, Persistence::Ephemeral);
        assert!(!end.connection.negotiated().session_present);
        assert!(end.reconnect().connection.negotiated().session_present);
        let mut restored = Session::<Message>::new(Persistence::Durable);
        restored.set_established();
        let end = End::server(restored, &ServerLimits::default(), &connect(version));
        assert!(end.connection.negotiated().session_present);
    }
}

/// [MQTT-3.2.2-7]
#[test]
fn a_refusal_ends_the_client() {
    let mut connection = new_client(ClientConfig::new(V5));
    let error = connection
        .handle_connack(NOW, &ConnAck::new(ReasonCode::NOT_AUTHORIZED))
        .unwrap_err();
    assert_eq!(
        error,
        Error::Refused {
            reason: ReasonCode::NOT_AUTHORIZED
        }
    );
    assert_eq!(error.reason_code(), ReasonCode::NOT_AUTHORIZED);
}

/// [MQTT-3.2.0-1] [MQTT-3.2.0-2]
#[test]
fn connack_comes_first_and_once() {
    let mut connection = new_client(ClientConfig::new(V5));
    connection.push(Message::new(1, QoS::AtMostOnce));
    let mut out = Vec::new();
    assert!(!connection.poll_transmit(NOW, &mut out, 100));
    assert!(out.is_empty());
    assert_eq!(connection.poll_timeout(), None);
    let publish = mqtt_codec::Publish::new(mqtt_codec::TopicName::new("t").unwrap(), b"");
    let error = connection.handle_publish(NOW, &publish).unwrap_err();
    assert_eq!(
        error,
        Error::NotConnected {
            packet_type: PacketType::Publish
        }
    );
    let connack = ConnAck::new(ReasonCode::SUCCESS);
    connection.handle_connack(NOW, &connack).unwrap();
    assert_eq!(
        connection.handle_connack(NOW, &connack).unwrap_err(),
        Error::SecondConnAck
    );
}

/// [MQTT-3.1.2-23]; Clean Session of v3 in the words of v5.
#[test]
fn session_expiry_in_every_version() {
    let mut limits = ServerLimits::default();
    for (version, clean_start, asked, maximum, expected) in [
        (V3, true, None, u32::MAX, 0),
        (V3, false, None, u32::MAX, u32::MAX),
        (V3, false, None, 3_600, 3_600),
        (V5, true, Some(60), u32::MAX, 60),
        (V5, false, None, u32::MAX, 0),
        (V5, false, Some(u32::MAX), 3_600, 3_600),
    ] {
        limits.session_expiry_maximum = maximum;
        let mut connect = connect(version);
        connect.clean_start = clean_start;
        connect.properties.session_expiry_interval = asked;
        let negotiated = Negotiated::server(&limits, &connect);
        assert_eq!(negotiated.session_expiry_interval, expected);
        let mut properties = ConnAckProperties::default();
        negotiated.fill_connack(&connect, &mut properties);
        let told = (version == V5 && asked.unwrap_or(0) != expected).then_some(expected);
        assert_eq!(properties.session_expiry_interval, told);
    }
}

/// [MQTT-3.2.2-9]: what a server limits it says, and the client hears the same.
#[test]
fn both_ends_agree_on_every_limit() {
    let mut limits = ServerLimits::default();
    limits.receive_maximum = NonZeroU16::new(7).unwrap();
    limits.maximum_packet_size = NonZeroU32::new(1_000);
    limits.topic_alias_maximum = 3;
    limits.maximum_qos = QoS::AtLeastOnce;
    limits.retain_available = false;
    limits.wildcard_subscription_available = false;
    limits.subscription_identifiers_available = false;
    limits.shared_subscription_available = false;
    limits.session_expiry_maximum = 100;
    let mut config = ClientConfig::new(V5);
    config.receive_maximum = NonZeroU16::new(9).unwrap();
    config.maximum_packet_size = NonZeroU32::new(2_000);
    config.topic_alias_maximum = 4;
    config.session_expiry_interval = 1_000;
    config.problem_information = false;
    config.response_information = true;

    let mut connect = connect(V5);
    connect.clean_start = true;
    connect.keep_alive = config.keep_alive;
    connect.properties = config.connect_properties();
    let of_server = Negotiated::server(&limits, &connect);
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    of_server.fill_connack(&connect, &mut connack.properties);
    let mut connection = new_client(config);
    let of_client = connection.handle_connack(NOW, &connack).unwrap();

    let mut mirrored = *of_client;
    mirrored.role = Role::Server;
    std::mem::swap(&mut mirrored.inbound, &mut mirrored.outbound);
    assert_eq!(mirrored, of_server);
    assert_eq!(of_server.session_expiry_interval, 100);
    let expected = Limits {
        receive_maximum: NonZeroU16::new(9).unwrap(),
        maximum_packet_size: NonZeroU32::new(2_000),
        topic_alias_maximum: 4,
    };
    assert_eq!(of_server.outbound, expected);
}

/// Defaults of the standard are not repeated on the wire.
#[test]
fn what_is_standard_is_not_said() {
    let mut limits = ServerLimits::default();
    limits.receive_maximum = NonZeroU16::MAX;
    limits.maximum_packet_size = None;
    limits.topic_alias_maximum = 0;
    let connect = connect(V5);
    let mut properties = ConnAckProperties::default();
    Negotiated::server(&limits, &connect).fill_connack(&connect, &mut properties);
    assert_eq!(properties, ConnAckProperties::default());
}

/// Section 2.1.2, table 2-1.
#[test]
fn directions_of_packets() {
    use PacketType::{ConnAck, Connect, Disconnect, PingReq, PingResp, Publish, SubAck, Subscribe};
    for (packet_type, client, server) in [
        (Connect, true, false),
        (ConnAck, false, true),
        (Publish, true, true),
        (Subscribe, true, false),
        (SubAck, false, true),
        (PingReq, true, false),
        (PingResp, false, true),
        (Disconnect, true, true),
    ] {
        assert_eq!(Role::Client.may_send(packet_type), client);
        assert_eq!(Role::Client.peer().may_send(packet_type), server);
    }
}
