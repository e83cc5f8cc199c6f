//! A relay that only copies bytes: what the kernel takes where a broker costs nothing.
//!
//! It answers CONNECT and SUBSCRIBE so that the generator needs no other protocol. The topic of a
//! connection's first PUBLISH decides to whom all its bytes go from then on, without a look at them.
//! So it carries loads of QoS 0 whose publishers keep to one topic each and share no subscriber.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;

use mio::net::TcpListener;
use mio::{Interest, Token};
use mqtt_codec::{ConnAck, FixedHeader, Packet, PacketType, ProtocolVersion, ReasonCode, SubAck};

use super::Failed;
use super::channel::Transport;
use super::engine::{Engine, Ready};

/// The token of the socket that listens.
const LISTENER: Token = Token(usize::MAX - 1);

/// What is done on purpose to every so many messages of a publisher, for tests of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Drop,
    Repeat,
    Swap,
    Corrupt,
}

/// Reads a fault of the command line.
pub(super) fn fault(text: &str) -> Result<(Fault, u64), String> {
    let (name, every) = text.split_once(':').ok_or("it must be FAULT:N")?;
    let fault = match name {
        "drop" => Fault::Drop,
        "repeat" => Fault::Repeat,
        "swap" => Fault::Swap,
        "corrupt" => Fault::Corrupt,
        _ => return Err("it must be drop, repeat, swap or corrupt".to_owned()),
    };
    match every.parse() {
        Ok(every @ 2..) => Ok((fault, every)),
        _ => Err("N must be a number from 2".to_owned()),
    }
}

/// One connection of the relay.
#[derive(Default)]
struct Peer {
    version: Option<ProtocolVersion>,
    /// Where its bytes go, once its first PUBLISH has come.
    sinks: Option<Vec<usize>>,
    /// Messages so far, and one that is held back, where faults are made.
    count: u64,
    held: Vec<u8>,
}

/// A relay that listens.
pub(super) struct Relay {
    engine: Engine,
    listener: TcpListener,
    peers: Vec<Peer>,
    /// The subscribers of each filter, which is taken for a topic.
    subscribers: HashMap<String, Vec<usize>>,
    fault: Option<(Fault, u64)>,
}

/// Runs a relay until the process ends, after a line that says where it listens.
pub(super) fn serve(address: SocketAddr, fault: Option<(Fault, u64)>) -> Result<(), Failed> {
    let mut relay = Relay::bind(address, fault)?;
    let mut output = io::stdout();
    writeln!(output, "listening on tcp://{}", relay.address()?)?;
    output.flush()?;
    loop {
        relay.turn()?;
    }
}

impl Relay {
    pub(super) fn bind(address: SocketAddr, fault: Option<(Fault, u64)>) -> io::Result<Self> {
        let engine = Engine::new(&Transport::default())?;
        let mut listener = TcpListener::bind(address)?;
        engine
            .registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            engine,
            listener,
            peers: Vec::new(),
            subscribers: HashMap::new(),
            fault,
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for something to do, and does it.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        let mut ready: Vec<Ready> = Vec::new();
        self.engine.wait(None, &mut ready)?;
        for event in &ready {
            if event.token == LISTENER.0 {
                self.accept()?;
                continue;
            }
            if event.writable {
                self.engine.writable(event.token);
            }
            if event.readable {
                self.read(event.token);
            }
        }
        self.engine.flush();
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.engine.accept(stream)?;
                    self.peers.push(Peer::default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self, token: usize) {
        let Some(peer) = self.peers.get_mut(token) else {
            return;
        };
        if self.fault.is_none()
            && let Some(sinks) = &peer.sinks
        {
            self.engine.copy(token, sinks);
            return;
        }
        let mut forward = Vec::new();
        let fault = self.fault;
        let subscribers = &mut self.subscribers;
        let alive = self.engine.read_bytes(token, |bytes, out| {
            let mut rest = bytes;
            while let Some(header) = FixedHeader::parse(rest).map_err(|error| error.to_string())? {
                let (Some(frame), Some(body)) = (
                    rest.get(..header.frame_len()),
                    rest.get(usize::from(header.header_len)..header.frame_len()),
                ) else {
                    break;
                };
                if header.packet_type == PacketType::Publish {
                    peer.begin(header, body, subscribers)?;
                    match fault {
                        Some(fault) => peer.damage(frame, fault, &mut forward),
                        None => {
                            // What follows goes the same way, whole packets or not.
                            forward.extend_from_slice(rest);
                            return Ok(bytes.len());
                        }
                    }
                } else {
                    peer.answer(token, header, body, subscribers, out)?;
                }
                rest = rest.get(header.frame_len()..).unwrap_or_default();
            }
            Ok(bytes.len() - rest.len())
        });
        if alive && let Some(sinks) = &peer.sinks {
            for sink in sinks {
                self.engine.out(*sink).extend_from_slice(&forward);
            }
        }
        if !alive {
            for tokens in self.subscribers.values_mut() {
                tokens.retain(|subscriber| *subscriber != token);
            }
        }
    }
}

impl Peer {
    /// Finds out where a publisher's bytes go.
    fn begin(
        &mut self,
        header: FixedHeader,
        body: &[u8],
        subscribers: &HashMap<String, Vec<usize>>,
    ) -> Result<(), String> {
        let version = self.version.ok_or("a PUBLISH before CONNECT")?;
        if self.sinks.is_some() {
            return Ok(());
        }
        let Ok(Packet::Publish(publish)) = Packet::decode(header, body, version) else {
            return Err("a malformed PUBLISH".to_owned());
        };
        let topic = publish.topic.map_or("", |topic| topic.as_str());
        self.sinks = Some(subscribers.get(topic).cloned().unwrap_or_default());
        Ok(())
    }

    fn answer(
        &mut self,
        token: usize,
        header: FixedHeader,
        body: &[u8],
        subscribers: &mut HashMap<String, Vec<usize>>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let version = self.version.unwrap_or(ProtocolVersion::V3_1_1);
        let packet = Packet::decode(header, body, version).map_err(|error| error.to_string())?;
        let answer = match packet {
            Packet::Connect(connect) => {
                self.version = Some(connect.version);
                Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::SUCCESS)))
            }
            Packet::Subscribe(subscribe) => {
                for filter in &subscribe.filters {
                    subscribers
                        .entry(filter.filter.as_str().to_owned())
                        .or_default()
                        .push(token);
                }
                let codes = vec![ReasonCode::SUCCESS; subscribe.filters.len()];
                Packet::SubAck(SubAck::new(subscribe.packet_id, codes))
            }
            Packet::Disconnect(_) => return Ok(()),
            other => {
                return Err(format!(
                    "a relay has no use for {}",
                    other.packet_type().name()
                ));
            }
        };
        let version = self.version.unwrap_or(version);
        answer
            .encode(version, out)
            .map_err(|error| error.to_string())
    }

    /// Appends a message, or what the fault makes of it.
    fn damage(&mut self, frame: &[u8], (fault, every): (Fault, u64), forward: &mut Vec<u8>) {
        self.count += 1;
        let hit = self.count.is_multiple_of(every);
        match (hit, fault) {
            (true, Fault::Drop) => return,
            (true, Fault::Swap) => {
                self.held = frame.to_vec();
                return;
            }
            _ => forward.extend_from_slice(frame),
        }
        forward.append(&mut self.held);
        match (hit, fault) {
            (true, Fault::Repeat) => forward.extend_from_slice(frame),
            (true, Fault::Corrupt) => {
                if let Some(last) = forward.last_mut() {
                    *last ^= 0x55;
                }
            }
            _ => {}
        }
    }
}
