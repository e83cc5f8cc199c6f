//! Steps on a pair of session machines over a cutting link, against what each quality of service
//! promises; then a stream of any bytes into a single end, which must only ever refuse it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_codec::{ConnAck, Connect, Packet, ProtocolVersion, QoS, ReasonCode, decode};
use mqtt_session::{
    ClientConfig, Connection, Durability, Persistence, Role, ServerLimits, Session, Time, Verdict,
};

use crate::{
    message::Message,
    pair::Pair,
    schedule::{Op, check, run},
};

#[path = "../../mqtt-session/tests/session/message.rs"]
mod message;
#[path = "../../mqtt-session/tests/session/pair.rs"]
mod pair;
#[path = "../../mqtt-session/tests/session/schedule.rs"]
mod schedule;

fn persistence(is_durable: bool) -> Persistence {
    if is_durable {
        Persistence::Durable
    } else {
        Persistence::Ephemeral
    }
}

/// Three bytes are a step.
fn op([kind, a, b]: [u8; 3]) -> Op {
    let end = usize::from(kind >> 7);
    let [maximum_a, maximum_b] = [a, b].map(|n| u16::from(n % 5) + 1);
    match kind % 16 {
        0..3 => Op::Push {
            from: end,
            qos: QoS::from_bits(a % 3).unwrap_or(QoS::AtMostOnce),
        },
        3..6 => Op::Transmit {
            from: end,
            limit: usize::from(a) + 1,
        },
        6..9 => Op::Receive {
            to: end,
            bytes: usize::from(a),
        },
        9..12 => Op::Accept {
            at: end,
            which: usize::from(a),
            pending: b % 2 == 0,
        },
        12 => Op::Reject {
            at: end,
            which: usize::from(a),
        },
        13 => Op::WriteOut {
            at: end,
            units: usize::from(a % 8),
        },
        14 => Op::Shrink { at: end },
        _ => Op::Cut {
            arrives: [usize::from(a), usize::from(b)],
            maximum: [maximum_a, maximum_b],
            crashes: [a & 0x80 != 0, b & 0x80 != 0],
        },
    }
}

/// Feeds a stream to an end that also has messages to send.
fn feed(mut connection: Connection<Message>, version: ProtocolVersion, mut stream: &[u8]) {
    let now = Time::ZERO;
    for key in 0..10 {
        let qos = QoS::from_bits((key % 3) as u8).unwrap_or(QoS::AtMostOnce);
        connection.push(Message::new(key, qos));
    }
    let mut out = Vec::new();
    while let Ok(Some((packet, len))) = decode(stream, version, u32::MAX) {
        stream = &stream[len..];
        let packet_type = packet.packet_type();
        let result = match packet {
            Packet::Publish(publish) => {
                connection
                    .handle_publish(now, &publish)
                    .map(|verdict| match verdict {
                        Verdict::Deliver(message) => Some(message.token),
                        Verdict::Duplicate => None,
                    })
            }
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => connection.handle_ack(now, packet_type, &ack).map(|_| None),
            Packet::PingReq | Packet::PingResp => {
                connection.handle_ping(now);
                Ok(None)
            }
            _ => Ok(None),
        };
        match result {
            Ok(Some(token)) => drop(connection.accept(token, Durability::Pending)),
            Ok(None) => {}
            Err(error) => {
                assert_ne!(error.clause(), "");
                break;
            }
        }
        if !connection.has_output() {
            out.clear();
            assert!(!connection.poll_transmit(now, &mut out, 1_000) && out.is_empty());
            assert!(connection.poll_change().is_none() && connection.poll_event().is_none());
        }
        out.clear();
        while connection.poll_transmit(now, &mut out, 1_000) {
            out.clear();
        }
        while let Some((number, _)) = connection.poll_change() {
            connection.durable(number);
        }
    }
}

fuzz_target!(|input: (u8, [u8; 2], Vec<[u8; 3]>, Vec<u8>)| {
    let (setup, maximum, steps, stream) = input;
    let version = ProtocolVersion::ALL[usize::from(setup >> 4) % ProtocolVersion::ALL.len()];
    let persistence = [persistence(setup & 1 != 0), persistence(setup & 2 != 0)];
    let maximum = maximum.map(|n| u16::from(n % 5) + 1);

    let ops: Vec<Op> = steps.into_iter().map(op).collect();
    let is_cut = ops.iter().any(|op| matches!(op, Op::Cut { .. }));
    let mut pair = Pair::new(version, persistence, maximum);
    run(&mut pair, ops);
    check(&pair, 0, is_cut);
    check(&pair, 1, is_cut);

    let session = Session::new(persistence[0]);
    let role = if setup & 4 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let connection = match role {
        Role::Server => {
            let connect = Connect::new(version, "client");
            Connection::server(session, &ServerLimits::default(), &connect, Time::ZERO)
        }
        Role::Client => {
            let mut client = Connection::client(session, ClientConfig::new(version), Time::ZERO);
            let connack = ConnAck::new(ReasonCode::SUCCESS);
            client
                .handle_connack(Time::ZERO, &connack)
                .expect("an accepted connection");
            client
        }
    };

    feed(connection, version, &stream);
});
