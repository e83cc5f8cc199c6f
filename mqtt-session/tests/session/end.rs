//! One end whose peer is the test: packets go in as values, what it writes comes out as text.

use std::num::NonZeroU16;

use mqtt_codec::{
    Ack, ConnAck, Connect, Packet, PacketId, PacketType, ProtocolVersion, Publish, QoS, ReasonCode,
    TopicName,
};
use mqtt_session::{
    ClientConfig, Completed, Connection, Durability, Error, Outgoing, Persistence, ServerLimits,
    Session, Time, Token, Verdict,
};

use crate::message::{Message, key_of};

pub(crate) const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
pub(crate) const V5: ProtocolVersion = ProtocolVersion::V5;
pub(crate) const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V3_1, V3, V5];
pub(crate) const NOW: Time = Time::from_secs(1_000);

pub(crate) fn id(n: u16) -> PacketId {
    PacketId::new(n).unwrap()
}

pub(crate) fn connect(version: ProtocolVersion) -> Connect<'static> {
    let mut connect = Connect::new(version, "client");
    connect.clean_start = false;
    if version.has_properties() {
        connect.properties.session_expiry_interval = Some(u32::MAX);
    }
    connect
}

/// A server's end of a new session that outlives the connection.
pub(crate) fn server(version: ProtocolVersion, persistence: Persistence) -> End {
    End::server(
        Session::new(persistence),
        &ServerLimits::default(),
        &connect(version),
    )
}

/// A client's end of a new session that outlives the connection.
pub(crate) fn client(version: ProtocolVersion, persistence: Persistence) -> End {
    let mut config = ClientConfig::new(version);
    config.clean_start = false;
    config.session_expiry_interval = u32::MAX;
    End::client(
        Session::new(persistence),
        config,
        &ConnAck::new(ReasonCode::SUCCESS),
    )
}

/// Both ends, in every version.
pub(crate) fn every_end(persistence: Persistence) -> impl Iterator<Item = End> {
    VERSIONS
        .into_iter()
        .flat_map(move |version| [client(version, persistence), server(version, persistence)])
}

pub(crate) struct End {
    pub(crate) connection: Connection<Message>,
    pub(crate) version: ProtocolVersion,
    pub(crate) now: Time,
}

impl End {
    pub(crate) fn server(
        session: Session<Message>,
        limits: &ServerLimits,
        connect: &Connect<'_>,
    ) -> Self {
        let connection = Connection::server(session, limits, connect, NOW);
        Self {
            connection,
            version: connect.version,
            now: NOW,
        }
    }

    pub(crate) fn client(
        session: Session<Message>,
        config: ClientConfig,
        connack: &ConnAck<'_>,
    ) -> Self {
        let version = config.version;
        let mut connection = Connection::client(session, config, NOW);
        connection.handle_connack(NOW, connack).unwrap();
        Self {
            connection,
            version,
            now: NOW,
        }
    }

    pub(crate) fn has_reason_codes(&self) -> bool {
        self.version.has_reason_codes()
    }

    /// The next connection of the same session, the peer having it too.
    pub(crate) fn reconnect(self) -> Self {
        self.reconnect_with(u16::MAX)
    }

    /// The same; the peer's Receive Maximum in v5.
    pub(crate) fn reconnect_with(self, receive_maximum: u16) -> Self {
        let version = self.version;
        let receive_maximum = NonZeroU16::new(receive_maximum).filter(|_| version.has_properties());
        let role = self.connection.negotiated().role;
        let session = self.connection.into_session();
        if role == mqtt_session::Role::Server {
            let mut connect = connect(version);
            connect.properties.receive_maximum = receive_maximum;
            Self::server(session, &ServerLimits::default(), &connect)
        } else {
            let mut config = ClientConfig::new(version);
            config.clean_start = false;
            config.session_expiry_interval = u32::MAX;
            let mut connack = ConnAck::new(ReasonCode::SUCCESS);
            connack.session_present = true;
            connack.properties.receive_maximum = receive_maximum;
            Self::client(session, config, &connack)
        }
    }

    pub(crate) fn push(&mut self, key: u64, qos: QoS) {
        self.connection.push(Message::new(key, qos));
    }

    /// All that it writes now, a line a packet.
    pub(crate) fn written(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let had_output = self.connection.has_output();
        let mut more = true;
        while more {
            let mut out = Vec::new();
            more = self.connection.poll_transmit(self.now, &mut out, 20);
            lines.extend(describe(&out, self.version));
        }
        assert!(had_output || lines.is_empty(), "{lines:?}");
        lines
    }

    /// The peer sends a PUBLISH.
    pub(crate) fn publish(&mut self, packet_id: u16, qos: QoS) -> Result<Option<Token>, Error> {
        let mut publish = Publish::new(TopicName::new("a/topic").unwrap(), &[0; 8]);
        publish.qos = qos;
        publish.packet_id = PacketId::new(packet_id);
        self.publish_packet(&publish)
    }

    pub(crate) fn publish_packet(&mut self, publish: &Publish<'_>) -> Result<Option<Token>, Error> {
        match self.connection.handle_publish(self.now, publish)? {
            Verdict::Deliver(message) => Ok(Some(message.token)),
            Verdict::Duplicate => Ok(None),
        }
    }

    /// The peer sends a PUBLISH that is new and gets accepted at once.
    pub(crate) fn take(&mut self, packet_id: u16, qos: QoS) {
        let token = self
            .publish(packet_id, qos)
            .unwrap()
            .expect("a new message");
        self.connection.accept(token, Durability::Now);
    }

    /// The peer sends an acknowledgement.
    pub(crate) fn ack(
        &mut self,
        packet_type: PacketType,
        packet_id: u16,
    ) -> Result<Option<Completed<Message>>, Error> {
        self.ack_with(packet_type, packet_id, ReasonCode::SUCCESS)
    }

    pub(crate) fn ack_with(
        &mut self,
        packet_type: PacketType,
        packet_id: u16,
        reason: ReasonCode,
    ) -> Result<Option<Completed<Message>>, Error> {
        self.connection
            .handle_ack(self.now, packet_type, &Ack::new(id(packet_id), reason))
    }

    /// The peer acknowledges; the key of the message that this completes.
    pub(crate) fn completes(&mut self, packet_type: PacketType, packet_id: u16) -> Option<u64> {
        self.ack(packet_type, packet_id)
            .unwrap()
            .map(|completed| completed.handle.unwrap().key())
    }

    /// All changes so far become durable; how they read.
    pub(crate) fn changes(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some((_, change)) = self.connection.poll_change() {
            all.push(format!("{change:?}"));
        }
        all
    }

    /// The store has written everything.
    pub(crate) fn sync(&mut self) {
        while let Some((number, _)) = self.connection.poll_change() {
            self.connection.durable(number);
        }
    }
}

/// Packets as text: name, identifier, then what matters.
pub(crate) fn describe(mut bytes: &[u8], version: ProtocolVersion) -> Vec<String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let (packet, len) = mqtt_codec::decode(bytes, version, u32::MAX)
            .unwrap()
            .expect("whole packets");
        bytes = &bytes[len..];
        let name = packet.packet_type().name();
        lines.push(match packet {
            Packet::Publish(publish) => {
                let dup = if publish.dup { " dup" } else { "" };
                let qos = publish.qos as u8;
                let key = key_of(publish.payload);
                match publish.packet_id {
                    Some(id) => format!("{name} {} q{qos} #{key}{dup}", id.get()),
                    None => format!("{name} q{qos} #{key}{dup}"),
                }
            }
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => match ack.reason_code {
                ReasonCode::SUCCESS => format!("{name} {}", ack.packet_id.get()),
                reason => format!("{name} {} {:#04x}", ack.packet_id.get(), reason.0),
            },
            _ => name.to_owned(),
        });
    }
    lines
}
