//! Two ends over a link in memory that carries real bytes, cuts at any byte, and loses what was under
//! way; each end with a store that may lag, and may lose its tail in a crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use mqtt_codec::{
    Ack, ConnAck, Connect, Packet, PacketType, PlainAck, ProtocolVersion, QoS, ReasonCode,
};
use mqtt_session::{
    Change, ChangeNumber, ClientConfig, Connection, Durability, Event, Persistence, ServerLimits,
    Session, Time, Token, Verdict,
};

use crate::message::{Message, key_of};

/// What the store of one end keeps.
#[derive(Debug, Clone)]
enum Record {
    Pushed(Message),
    /// A message of the peer, taken.
    Taken(u64),
    /// A number of the session, with its change if it has one.
    Numbered(ChangeNumber, Option<Change>),
}

/// One end: its connection, its store, and what the test knows of it.
pub(crate) struct Peer {
    connection: Option<Connection<Message>>,
    persistence: Persistence,
    /// Units, each written whole or not at all.
    log: Vec<Vec<Record>>,
    durable_units: usize,
    /// Units of this process; the numbers in older ones mean nothing any more.
    first_unit: usize,
    /// Bytes under way to this end.
    incoming: Vec<u8>,
    open: Vec<(Token, u64)>,
    /// Messages as they came, over all connections.
    pub(crate) seen: Vec<(QoS, u64)>,
    /// Those of this connection.
    seen_here: BTreeSet<u64>,
    pub(crate) rejected: BTreeSet<u64>,
    /// Identifiers in flight from this end and the messages they stand for.
    in_flight: BTreeMap<u16, u64>,
    /// Those whose PUBLISH went over this connection.
    unacknowledged: BTreeSet<u16>,
    /// What the peer of this connection allows.
    send_maximum: usize,
    next_key: u64,
}

impl Peer {
    fn new(persistence: Persistence) -> Self {
        Self {
            connection: None,
            persistence,
            log: Vec::new(),
            durable_units: 0,
            first_unit: 0,
            incoming: Vec::new(),
            open: Vec::new(),
            seen: Vec::new(),
            seen_here: BTreeSet::new(),
            rejected: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
            send_maximum: 0,
            next_key: 0,
        }
    }

    fn connection(&mut self) -> &mut Connection<Message> {
        self.connection.as_mut().expect("a connection")
    }

    /// Writes a unit: what is given, and all changes there are.
    fn write_unit(&mut self, mut unit: Vec<Record>) {
        while let Some((number, change)) = self.connection().poll_change() {
            // The number that `accept` returned may be that of a change.
            unit.retain(|record| !matches!(record, Record::Numbered(n, None) if *n == number));
            unit.push(Record::Numbered(number, Some(change)));
        }
        if !unit.is_empty() {
            self.log.push(unit);
        }
    }

    pub(crate) fn push(&mut self, qos: QoS) {
        let message = Message::new(self.next_key, qos);
        self.next_key += 1;
        self.connection().push(message.clone());
        self.write_unit(vec![Record::Pushed(message)]);
    }

    /// The store gets on by some units.
    pub(crate) fn write_out(&mut self, units: usize) {
        self.durable_units = self.log.len().min(self.durable_units + units);
        let units = self.log[..self.durable_units].iter().skip(self.first_unit);
        let last = units.flatten().filter_map(|record| match record {
            Record::Numbered(number, _) => Some(*number),
            _ => None,
        });
        if let Some(last) = last.max() {
            self.connection().durable(last);
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.connection().shrink();
    }

    /// Ends an open message.
    pub(crate) fn decide(&mut self, which: usize, accept: bool, durability: Durability) {
        if self.open.is_empty() {
            return;
        }
        let (token, key) = self.open.remove(which % self.open.len());
        if accept {
            // What it wrote is not durable yet: a store that can lose it has to say so.
            let durability = match self.persistence {
                Persistence::Ephemeral => durability,
                Persistence::Durable => Durability::Pending,
            };
            let number = self.connection().accept(token, durability);
            let mut unit = vec![Record::Taken(key)];
            unit.extend(number.map(|number| Record::Numbered(number, None)));
            self.write_unit(unit);
        } else {
            self.connection().reject(token, ReasonCode::QUOTA_EXCEEDED);
            self.rejected.insert(key);
            self.write_unit(Vec::new());
        }
    }

    /// What it writes, checked against what it may write.
    pub(crate) fn transmit(
        &mut self,
        now: Time,
        limit: usize,
        version: ProtocolVersion,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let _ = self.connection().poll_transmit(now, &mut out, limit);
        self.write_unit(Vec::new());
        let mut rest = out.as_slice();
        while let Some((packet, len)) = mqtt_codec::decode(rest, version, u32::MAX).unwrap() {
            rest = &rest[len..];
            let Packet::Publish(publish) = packet else {
                continue;
            };
            let Some(id) = publish.packet_id else {
                continue;
            };
            let key = key_of(publish.payload);
            let known = self.in_flight.insert(id.get(), key);
            assert!(
                known.is_none_or(|known| known == key),
                "identifier {} is in flight",
                id.get()
            );
            assert!(known.is_none() || publish.dup, "sent again without DUP");
            assert!(
                self.unacknowledged.insert(id.get()),
                "sent twice on one connection"
            );
            assert!(
                self.unacknowledged.len() <= self.send_maximum,
                "beyond the Receive Maximum"
            );
        }
        assert!(rest.is_empty());
        out
    }

    /// Handles the whole packets among the first bytes that are under way.
    pub(crate) fn receive(&mut self, now: Time, bytes: usize, version: ProtocolVersion) {
        let bytes = bytes.min(self.incoming.len());
        let incoming = std::mem::take(&mut self.incoming);
        let mut taken = 0;
        while let Some((packet, len)) =
            mqtt_codec::decode(&incoming[taken..bytes], version, u32::MAX).unwrap()
        {
            taken += len;
            self.handle(now, &packet);
        }
        self.incoming = incoming[taken..].to_vec();
        self.write_unit(Vec::new());
    }

    fn handle(&mut self, now: Time, packet: &Packet<'_>) {
        let connection = self.connection.as_mut().expect("a connection");
        connection.received(now);
        match packet {
            Packet::Publish(publish) => {
                let key = key_of(publish.payload);
                let Verdict::Deliver(message) = connection.handle_publish(now, publish).unwrap()
                else {
                    return;
                };
                let token = message.token;
                let here = self.seen_here.insert(key);
                assert!(
                    here || self.rejected.contains(&key),
                    "came twice on one connection"
                );
                self.seen.push((publish.qos, key));
                if publish.qos == QoS::AtMostOnce {
                    self.log.push(vec![Record::Taken(key)]);
                } else {
                    self.open.push((token, key));
                }
            }
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => {
                let packet_type = packet.packet_type();
                // Both ways in do the same; one in its shortest form may take either.
                let plain = (*ack == Ack::new(ack.packet_id, ReasonCode::SUCCESS))
                    .then(|| PlainAck::new(packet_type, ack.packet_id))
                    .flatten();
                let completed = match plain {
                    Some(plain) if ack.packet_id.get() % 2 == 1 => {
                        connection.handle_plain_ack(now, plain).unwrap()
                    }
                    _ => connection.handle_ack(now, packet_type, ack).unwrap(),
                };
                let is_last = matches!(packet_type, PacketType::PubAck | PacketType::PubComp)
                    || (packet_type == PacketType::PubRec && ack.reason_code.is_error());
                if is_last {
                    let id = ack.packet_id.get();
                    self.unacknowledged.remove(&id);
                    let key = self.in_flight.remove(&id);
                    if let Some(message) = completed.and_then(|completed| completed.handle) {
                        assert!(key.is_none_or(|key| key == message.key));
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// The process ends; what is left is what its store has on disk.
    fn crash(&mut self) -> Session<Message> {
        self.log.truncate(self.durable_units);
        self.first_unit = self.log.len();
        self.in_flight.clear();
        self.connection = None;
        let session = restore(&self.log);
        self.in_flight.extend(session.in_flight().map(|message| {
            (
                message.packet_id.get(),
                message.handle.map_or(u64::MAX, |message| message.key),
            )
        }));
        session
    }

    /// The messages of the peer that it took, and did not lose.
    pub(crate) fn taken(&self) -> Vec<u64> {
        let records = self.log.iter().flatten();
        records
            .filter_map(|record| {
                if let Record::Taken(key) = record {
                    Some(*key)
                } else {
                    None
                }
            })
            .collect()
    }

    /// The messages that it took upon itself to send, and did not lose.
    pub(crate) fn promised(&self) -> Vec<Message> {
        let records = self.log.iter().flatten();
        records
            .filter_map(|record| {
                if let Record::Pushed(message) = record {
                    Some(message.clone())
                } else {
                    None
                }
            })
            .collect()
    }
}

/// The session that a log gives back.
fn restore(log: &[Vec<Record>]) -> Session<Message> {
    let mut session = Session::new(Persistence::Durable);
    session.set_established();
    for record in log.iter().flatten() {
        match record {
            // A store keeps no QoS 0 message: it may be lost.
            Record::Pushed(message) if message.qos == QoS::AtMostOnce => {}
            Record::Pushed(message) => session.push(message.clone()),
            Record::Numbered(_, Some(change)) => session.apply(change),
            Record::Taken(_) | Record::Numbered(_, None) => {}
        }
    }
    session
}

/// Both ends and the link between them.
pub(crate) struct Pair {
    /// The client, then the server.
    pub(crate) peers: [Peer; 2],
    pub(crate) version: ProtocolVersion,
    now: Time,
}

impl Pair {
    pub(crate) fn new(
        version: ProtocolVersion,
        persistence: [Persistence; 2],
        maximum: [u16; 2],
    ) -> Self {
        let peers = persistence.map(Peer::new);
        let mut pair = Self {
            peers,
            version,
            now: Time::from_secs(1),
        };
        let sessions = persistence.map(|persistence| {
            let mut session = Session::new(persistence);
            session.set_established();
            session
        });
        pair.connect(sessions, maximum);
        pair
    }

    /// A new connection. The Receive Maximum is what each end allows the other.
    fn connect(&mut self, [client, server]: [Session<Message>; 2], maximum: [u16; 2]) {
        let maximum = maximum.map(|n| NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN));
        let mut config = ClientConfig::new(self.version);
        config.clean_start = false;
        config.session_expiry_interval = u32::MAX;
        config.receive_maximum = maximum[0];
        config.send_maximum = NonZeroU16::MAX;
        let mut limits = ServerLimits::default();
        limits.receive_maximum = maximum[1];

        let mut connect = Connect::new(self.version, "client");
        connect.clean_start = false;
        connect.properties = config.connect_properties();
        let mut bytes = Vec::new();
        connect.encode(self.version, &mut bytes).unwrap();
        let (packet, _) = mqtt_codec::decode(&bytes, self.version, u32::MAX)
            .unwrap()
            .unwrap();
        let Packet::Connect(connect) = packet else {
            panic!("{packet:?}")
        };
        let mut client = Connection::client(client, config, self.now);
        let server = Connection::server(server, &limits, &connect, self.now);

        let mut connack = ConnAck::new(ReasonCode::SUCCESS);
        connack.session_present =
            server.negotiated().session_present && self.version.has_session_present();
        server
            .negotiated()
            .fill_connack(&connect, &mut connack.properties);
        let mut bytes = Vec::new();
        connack.encode(self.version, &mut bytes).unwrap();
        let (packet, _) = mqtt_codec::decode(&bytes, self.version, u32::MAX)
            .unwrap()
            .unwrap();
        let Packet::ConnAck(connack) = packet else {
            panic!("{packet:?}")
        };
        client.handle_connack(self.now, &connack).unwrap();

        for (peer, connection) in self.peers.iter_mut().zip([client, server]) {
            peer.send_maximum = usize::from(connection.negotiated().outbound.receive_maximum.get());
            peer.connection = Some(connection);
            peer.incoming.clear();
            peer.open.clear();
            peer.seen_here.clear();
            peer.unacknowledged.clear();
        }
    }

    /// The link breaks: each end still handles what reaches it, then both meet again.
    pub(crate) fn cut(&mut self, arrives: [usize; 2], maximum: [u16; 2], crashes: [bool; 2]) {
        for (peer, arrives) in self.peers.iter_mut().zip(arrives) {
            let arrives = if peer.incoming.is_empty() {
                0
            } else {
                arrives % (peer.incoming.len() + 1)
            };
            peer.receive(self.now, arrives, self.version);
        }
        let sessions = [0, 1].map(|n| {
            let peer = &mut self.peers[n];
            if crashes[n] && peer.persistence == Persistence::Durable {
                peer.crash()
            } else {
                peer.connection.take().expect("a connection").into_session()
            }
        });
        self.connect(sessions, maximum);
    }

    pub(crate) fn transmit(&mut self, from: usize, limit: usize) {
        let bytes = self.peers[from].transmit(self.now, limit, self.version);
        self.peers[1 - from].incoming.extend(bytes);
    }

    pub(crate) fn receive(&mut self, to: usize, bytes: usize) {
        self.peers[to].receive(self.now, bytes, self.version);
    }

    /// Goes on without cuts until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        loop {
            self.transmit(0, usize::MAX);
            self.transmit(1, usize::MAX);
            let is_quiet = self.peers.iter().all(|peer| {
                let is_written_out = peer.durable_units == peer.log.len();
                is_written_out && peer.incoming.is_empty() && peer.open.is_empty()
            });
            for n in [0, 1] {
                self.receive(n, usize::MAX);
                let peer = &mut self.peers[n];
                while !peer.open.is_empty() {
                    peer.decide(0, true, Durability::Pending);
                }
                peer.write_out(usize::MAX / 2);
            }
            if is_quiet {
                break;
            }
        }
        for peer in &mut self.peers {
            let connection = peer.connection();
            while let Some(event) = connection.poll_event() {
                assert!(!matches!(event, Event::Dropped(..)), "{event:?}");
            }
            let session = connection.session();
            assert_eq!(
                (
                    session.queue_len(),
                    session.in_flight_len(),
                    session.received_len()
                ),
                (0, 0, 0)
            );
            assert_eq!(connection.unsent_acks(), 0);
            assert!(peer.in_flight.is_empty() && peer.unacknowledged.is_empty());
        }
    }

    /// The session that the changes of a durable end give back is the one it has.
    pub(crate) fn check_restored(&mut self, n: usize) {
        let peer = &mut self.peers[n];
        if peer.persistence == Persistence::Ephemeral {
            return;
        }
        peer.write_unit(Vec::new());
        let restored = restore(&peer.log);
        let live = peer.connection().session();
        let in_flight = |session: &Session<Message>| -> Vec<_> {
            session
                .in_flight()
                .map(|message| (message.packet_id, message.handle.map(|message| message.key)))
                .collect()
        };
        // The handle of a released message is kept by the live session only, after a crash of neither.
        let ids = |session: &Session<Message>| {
            in_flight(session)
                .iter()
                .map(|(id, _)| *id)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&restored), ids(live));
        let queued = |session: &Session<Message>| -> Vec<u64> {
            session
                .queued()
                .filter(|message| message.qos > QoS::AtMostOnce)
                .map(|message| message.key)
                .collect()
        };
        assert_eq!(queued(&restored), queued(live));
        let received = |session: &Session<Message>| session.received().collect::<BTreeSet<_>>();
        assert_eq!(received(&restored), received(live));
    }
}
