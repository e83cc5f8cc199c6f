//! One end: a real connection or session, its store, and what is known of it.

use std::{collections::VecDeque, num::NonZeroU16};

use mqtt_codec::{ConnAck, Connect, Packet, QoS, ReasonCode};
use mqtt_session::{
    ChangeNumber, ClientConfig, Connection, Durability, Event, Persistence, ServerLimits, Session,
    Time, Token, Verdict,
};

use super::{
    setup::{Mutant, Setup},
    store::{Record, Store, Unit, units},
    watch::{Watch, key},
};
use crate::message::Message;

/// Time stands still: keep alive and expiry are not explored.
const NOW: Time = Time::from_secs(1);

/// What happens to one end. Packets are named by their place in the table of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Input {
    /// The application gives it the next message.
    Push,
    /// It writes one packet.
    Transmit,
    /// It reads the next packet under way to it.
    Receive(u32),
    /// The application takes one of the messages that it was given; 0 is the oldest.
    Accept(u8),
    /// The store says that one more unit is durable.
    Written,
    /// The client connects, with this Receive Maximum.
    Dial(NonZeroU16),
    /// The connection ends.
    Hangup,
    /// The process ends and starts again with what is durable and so many units more.
    Crash(u8),
}

/// What is left of an end when its connection ends.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    role: usize,
    /// None while a connection has it.
    session: Option<Session<Message>>,
    pub(super) store: Store,
    /// How far the session knows its changes to be durable.
    pub(super) durable: ChangeNumber,
    /// How many messages the application has given.
    pub(super) pushed: usize,
    pub(super) watch: Watch,
}

impl Memory {
    pub(super) const fn role(&self) -> usize {
        self.role
    }

    pub(super) fn new(role: usize, setup: &Setup) -> Self {
        let mut session = Session::new(setup.persistence[role]);
        session.set_established();
        Self {
            role,
            session: Some(session),
            store: Store::new(),
            durable: ChangeNumber::ZERO,
            pushed: 0,
            watch: Watch::default(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) memory: Memory,
    pub(super) connection: Option<Connection<Message>>,
    /// The Receive Maximum of the connection.
    window: NonZeroU16,
    /// Messages delivered and not yet accepted, in order.
    pub(super) open: VecDeque<(Token, u8)>,
}

type Output = Option<Vec<u8>>;

impl Endpoint {
    pub(super) const fn new(memory: Memory) -> Self {
        Self {
            memory,
            connection: None,
            window: NonZeroU16::MAX,
            open: VecDeque::new(),
        }
    }

    pub(super) fn session(&self) -> &Session<Message> {
        match &self.connection {
            Some(connection) => connection.session(),
            None => self.memory.session.as_ref().expect("a session"),
        }
    }

    fn session_mut(&mut self) -> &mut Session<Message> {
        match &mut self.connection {
            Some(connection) => connection.session_mut(),
            None => self.memory.session.as_mut().expect("a session"),
        }
    }

    fn take_session(&mut self) -> Session<Message> {
        self.memory.session.take().expect("no connection")
    }

    fn online(&mut self) -> &mut Connection<Message> {
        self.connection.as_mut().expect("a connection")
    }

    /// Nothing is left to do.
    pub(super) fn is_at_rest(&self) -> bool {
        let session = self.session();
        let unsent = self.connection.as_ref().map(Connection::unsent_acks);
        unsent == Some(0)
            && session.queue_len() == 0
            && session.in_flight_len() == 0
            && session.received_len() == 0
            && self.open.is_empty()
            && self.memory.store.tail.is_empty()
            && self.memory.watch.in_flight.is_empty()
    }

    /// Does it; what it writes. An error says which property does not hold.
    pub(super) fn step(
        &mut self,
        setup: &Setup,
        input: Input,
        packet: &[u8],
    ) -> Result<Output, String> {
        let output = match input {
            Input::Push => self.push(setup),
            Input::Transmit => self.transmit(setup)?,
            Input::Receive(_) => self.receive(setup, packet)?,
            Input::Accept(which) => self.accept(setup, which)?,
            Input::Written => self.written(setup),
            Input::Dial(window) => self.dial(setup, window),
            Input::Hangup => self.hang_up(),
            Input::Crash(units) => self.crash(setup, usize::from(units)),
        };
        let session = self.session_mut();
        for unit in units(|| session.poll_change()).collect::<Vec<_>>() {
            self.append(setup, unit);
        }
        while let Some(event) = self.connection.as_mut().and_then(Connection::poll_event) {
            if matches!(event, Event::Dropped(..)) {
                return Err(format!("{event:?}"));
            }
        }
        Ok(output)
    }

    fn append(&mut self, setup: &Setup, unit: Unit) {
        let (number, kind) = (unit.number, unit.kind());
        let persistence = setup.persistence[self.memory.role];
        self.memory.store.append(unit, persistence);
        if kind.is_some_and(|kind| setup.is_broken_by(Mutant::ReleasesEarly(kind))) {
            self.release(number);
        }
    }

    fn release(&mut self, number: Option<ChangeNumber>) {
        if let Some(number) = number {
            self.memory.durable = self.memory.durable.max(number);
            self.session_mut().durable(number);
        }
    }

    fn push(&mut self, setup: &Setup) -> Output {
        let qos = setup.messages[self.memory.role][self.memory.pushed];
        self.memory.pushed += 1;
        let message = Message::new(self.memory.pushed as u64, qos);
        self.session_mut().push(message.clone());
        // A store keeps no QoS 0 message.
        if qos > QoS::AtMostOnce {
            let records = vec![Record::Pushed(message)];
            self.append(
                setup,
                Unit {
                    number: None,
                    records,
                },
            );
        }
        None
    }

    fn transmit(&mut self, setup: &Setup) -> Result<Output, String> {
        let mut out = Vec::new();
        let had_output = self.online().has_output();
        let _ = self.online().poll_transmit(NOW, &mut out, 1);
        if out.is_empty() {
            return Ok(None);
        }
        if !had_output {
            return Err(format!("{out:?} written without output"));
        }
        let packet = decode(setup, &out);
        let window = usize::from(self.window.get());
        self.memory.watch.sends(&packet, window)?;
        Ok(Some(out))
    }

    fn receive(&mut self, setup: &Setup, packet: &[u8]) -> Result<Output, String> {
        let packet = decode(setup, packet);
        match &packet {
            Packet::Connect(connect) => return Ok(Some(self.answer(setup, connect))),
            Packet::ConnAck(connack) => {
                let result = self.online().handle_connack(NOW, connack);
                result.map_err(|error| error.to_string())?;
            }
            Packet::Publish(publish) => self.receive_publish(setup, publish)?,
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => {
                let packet_type = packet.packet_type();
                let result = self.online().handle_ack(NOW, packet_type, ack);
                result.map_err(|error| error.to_string())?;
                self.memory.watch.reads(packet_type, ack.packet_id.get());
            }
            other => panic!("{other:?}"),
        }
        Ok(None)
    }

    fn receive_publish(
        &mut self,
        setup: &Setup,
        publish: &mqtt_codec::Publish<'_>,
    ) -> Result<(), String> {
        self.memory.watch.meets(publish);
        let connection = self.connection.as_mut().expect("a connection");
        let verdict = connection.handle_publish(NOW, publish);
        match verdict.map_err(|error| error.to_string())? {
            Verdict::Duplicate => self.memory.watch.repeats(publish),
            Verdict::Deliver(message) => {
                let token = message.token;
                self.memory.watch.delivers(publish)?;
                if publish.qos == QoS::AtMostOnce {
                    return self.take(setup, key(publish), Vec::new(), None);
                }
                self.open.push_back((token, key(publish)));
                Ok(())
            }
        }
    }

    fn accept(&mut self, setup: &Setup, which: u8) -> Result<Output, String> {
        let open = self.open.remove(usize::from(which));
        let (token, key) = open.expect("an open message");
        let durability = match setup.persistence[self.memory.role] {
            Persistence::Durable => Durability::Pending,
            Persistence::Ephemeral => Durability::Now,
        };
        let number = self.online().accept(token, durability);
        let session = self.session_mut();
        let changes: Vec<Record> = units(|| session.poll_change())
            .flat_map(|unit| unit.records)
            .collect();
        self.take(setup, key, changes, number)?;
        Ok(None)
    }

    /// The application takes a message, in one unit with the changes of the session.
    fn take(
        &mut self,
        setup: &Setup,
        key: u8,
        mut records: Vec<Record>,
        number: Option<ChangeNumber>,
    ) -> Result<(), String> {
        if setup.is_broken_by(Mutant::SplitsUnits) {
            let records = std::mem::take(&mut records);
            self.append(setup, Unit { number, records });
        }
        records.push(Record::Taken(key));
        self.append(setup, Unit { number, records });
        let Memory {
            watch, store, role, ..
        } = &self.memory;
        watch.takes(setup, 1 - role, store.all_taken())
    }

    fn written(&mut self, setup: &Setup) -> Output {
        let number = self.memory.store.advance(setup);
        if !setup.is_broken_by(Mutant::KeepsSilent) {
            self.release(number);
        }
        None
    }

    fn dial(&mut self, setup: &Setup, window: NonZeroU16) -> Output {
        self.window = window;
        let announced = announced(setup, window);
        let mut config = ClientConfig::new(setup.version);
        config.clean_start = false;
        config.session_expiry_interval = u32::MAX;
        config.keep_alive = 0;
        config.receive_maximum = announced;
        // In v3 nobody is told, and each end has its own limit.
        config.send_maximum = if setup.version.has_properties() {
            NonZeroU16::MAX
        } else {
            announced
        };
        let mut connect = Connect::new(setup.version, "client");
        connect.clean_start = false;
        connect.keep_alive = 0;
        connect.properties = config.connect_properties();
        let mut out = Vec::new();
        connect.encode(setup.version, &mut out).unwrap();
        self.connection = Some(Connection::client(self.take_session(), config, NOW));
        Some(out)
    }

    /// The server's answer to CONNECT: the same Receive Maximum.
    fn answer(&mut self, setup: &Setup, connect: &Connect<'_>) -> Vec<u8> {
        let announced = announced(setup, setup.window);
        let announced = connect.properties.receive_maximum.unwrap_or(announced);
        self.window = announced.min(setup.window);
        let mut limits = ServerLimits::default();
        limits.receive_maximum = announced;
        limits.send_maximum_v3 = announced;
        let server = Connection::server(self.take_session(), &limits, connect, NOW);
        let negotiated = server.negotiated();
        let mut connack = ConnAck::new(ReasonCode::SUCCESS);
        connack.session_present = negotiated.session_present;
        negotiated.fill_connack(connect, &mut connack.properties);
        let mut out = Vec::new();
        connack.encode(setup.version, &mut out).unwrap();
        self.connection = Some(server);
        out
    }

    fn hang_up(&mut self) -> Output {
        let connection = self.connection.take().expect("a connection");
        self.memory.session = Some(connection.into_session());
        self.window = NonZeroU16::MAX;
        self.open.clear();
        self.memory.watch.ends();
        None
    }

    fn crash(&mut self, setup: &Setup, units: usize) -> Output {
        let session = self.memory.store.crash(units, setup);
        self.connection = None;
        self.window = NonZeroU16::MAX;
        self.open.clear();
        self.memory.durable = ChangeNumber::ZERO;
        let watch = &mut self.memory.watch;
        watch.ends();
        // A QoS 1 message may leave before its identifier is durable, and then come again under another.
        watch.in_flight.retain(|id, key| {
            let is_restored = session.in_flight().any(|message| {
                let handle = message.handle;
                message.packet_id.get() == *id && handle.is_some_and(|m| m.key == u64::from(*key))
            });
            is_restored || setup.qos_of(self.memory.role, *key) == QoS::ExactlyOnce
        });
        // What is not stored is not sent again; a message whose push is lost is pushed again.
        let messages = &setup.messages[self.memory.role];
        if messages.iter().all(|qos| *qos > QoS::AtMostOnce) {
            self.memory.pushed = self.memory.store.pushed;
        }
        self.memory.session = Some(session);
        None
    }
}

/// The Receive Maximum that a sender is told.
fn announced(setup: &Setup, window: NonZeroU16) -> NonZeroU16 {
    if setup.is_broken_by(Mutant::WidensWindow) {
        window.saturating_add(1)
    } else {
        window
    }
}

pub(super) fn decode<'a>(setup: &Setup, bytes: &'a [u8]) -> Packet<'a> {
    let (packet, len) = mqtt_codec::decode(bytes, setup.version, u32::MAX)
        .unwrap()
        .expect("a whole packet");
    assert_eq!(len, bytes.len(), "more than one packet");
    packet
}
