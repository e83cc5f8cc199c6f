//! The load `retained`, which stores retained messages and lets a new subscriber have them all, and the
//! load `queue`, which leaves as many messages in the queue of a session without a connection.

use std::time::Duration;

use mqtt_codec::{FixedHeader, PacketId, PacketType, Publish, QoS};

use super::clock::Clock;
use super::engine::{Engine, Ready};
use super::meter::{Meter, Reading};
use super::publisher::{Complaints, Publisher};
use super::report::Figures;
use super::setup::{self, Setup};
use super::wire::{self, Identity, Stamp, Template};
use super::{Bench, Failed};

/// Topics that share a level above the last.
const FOLDERS: usize = 100;
/// Without any progress for this long, the rest counts as lost.
const PATIENCE: u64 = 10_000_000_000;
/// How long after the last message repeated ones are waited for.
const QUIET: u64 = 200_000_000;

/// How many messages, and how they come.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) messages: usize,
    /// Unacknowledged messages of the publisher.
    pub(super) window: u64,
    /// What the subscriber subscribes to; all of it has to match.
    pub(super) filter: String,
    /// Only stores them, and lets them stay.
    pub(super) store_only: bool,
    /// They are not retained, but wait for a session that is not there.
    pub(super) queue: bool,
}

/// What a subscriber got.
#[derive(Default)]
struct Delivered {
    /// What the topics begin with.
    prefix: String,
    seen: Vec<bool>,
    received: u64,
    duplicated: u64,
    foreign: u64,
    not_retained: u64,
    wrong_qos: u64,
}

/// Runs the load.
pub(super) fn run(bench: &Bench, options: &Options) -> Result<Figures, Failed> {
    let mut engine = Engine::new(&bench.transport)?;
    let clock = Clock::start();
    let setup = Setup {
        server: bench.server,
        identity: &bench.identity,
        qos: bench.qos,
        concurrency: 1,
        stop: &bench.stop,
    };
    if options.queue {
        leave_session(bench, clock)?;
    }
    let opened = setup
        .open(&mut engine, 1, clock, |_| ("p0".to_owned(), Vec::new()))?
        .all()?;
    let window = opened.first().map_or(1, |opened| {
        options.window.min(opened.receive_maximum.into())
    });
    let topics = |number: usize| format!("{}/retained/{}/{number}", bench.prefix, number % FOLDERS);
    let templates = (0..options.messages)
        .map(|number| {
            let version = bench.identity.version;
            let retain = !options.queue;
            Template::new(&topics(number), bench.qos, retain, bench.payload, version)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failed::new(error.to_string()))?;
    let mut complaints = Complaints::default();
    let count = templates.len() as u64;
    let mut publisher = Publisher::new(0, 0, bench.qos, templates, window, 1.0, count);
    let meter = Meter::start(&bench.processes);
    store(bench, &mut engine, clock, &mut publisher, &mut complaints)?;
    let storing = meter.read();
    let stored = publisher.acknowledged;

    let mut figures = Figures::new(bench);
    figures.count("messages", options.messages as u64);
    figures.count("sent", publisher.sent);
    let is_whole = bench.stop.status().is_none();
    figures.account("unacknowledged", publisher.sent - stored, is_whole);
    figures.account("acks_refused", complaints.refused, true);
    figures.number(
        "store_cpu_us_per_message",
        storing.broker.cpu as f64 / 1e3 / stored as f64,
    );
    figures.number("stores_per_s", stored as f64 / storing.seconds);
    figures.number(
        "store_rss_bytes_per_message",
        storing.broker.rss_growth as f64 / stored as f64,
    );
    if !options.store_only && !options.queue && is_whole {
        deliver(
            bench,
            &mut engine,
            clock,
            options,
            stored,
            &mut complaints,
            &mut figures,
        )?;
    }
    figures.account(
        "protocol_errors",
        complaints.protocol + complaints.unknown,
        true,
    );
    figures.account("broken_connections", engine.broken, true);
    figures.failures(&engine.failures);
    figures.interrupted(bench);
    setup::leave(&mut engine, &bench.identity);
    Ok(figures)
}

/// Makes a session that wants all messages, and leaves it.
fn leave_session(bench: &Bench, clock: Clock) -> Result<(), Failed> {
    let mut engine = Engine::new(&bench.transport)?;
    let identity = Identity {
        lasting: true,
        ..bench.identity.clone()
    };
    let setup = Setup {
        server: bench.server,
        identity: &identity,
        qos: bench.qos,
        concurrency: 1,
        stop: &bench.stop,
    };
    let filter = format!("{}/retained/#", bench.prefix);
    setup
        .open(&mut engine, 1, clock, |_| {
            ("q".to_owned(), vec![filter.clone()])
        })?
        .all()?;
    setup::leave(&mut engine, &identity);
    Ok(())
}

/// Publishes until everything is acknowledged: at QoS 0 by a PINGRESP after each window.
fn store(
    bench: &Bench,
    engine: &mut Engine,
    clock: Clock,
    publisher: &mut Publisher,
    complaints: &mut Complaints,
) -> Result<(), Failed> {
    let count = publisher.count;
    let version = bench.identity.version;
    let mut ready: Vec<Ready> = Vec::new();
    let mut moved = clock.now();
    let mut under_way = 0;
    while publisher.acknowledged < count {
        let room = match bench.qos {
            QoS::AtMostOnce if under_way > 0 => 0,
            _ => publisher.room(publisher.window),
        };
        if room > publisher.window / 2 || (room > 0 && room == publisher.left()) {
            let out = engine.out(publisher.token);
            for _ in 0..room {
                publisher.publish(clock.now(), 1, out);
                publisher.give_up();
                under_way += 1;
            }
            if bench.qos == QoS::AtMostOnce {
                wire::ping(out);
            }
        }
        engine.flush();
        engine.wait(Some(Duration::from_millis(100)), &mut ready)?;
        for event in &ready {
            if event.writable {
                engine.writable(event.token);
            }
            if !event.readable {
                continue;
            }
            moved = clock.now();
            engine.read(event.token, |header, body, out| {
                if header.packet_type == PacketType::PingResp {
                    publisher.acknowledged += under_way;
                    under_way = 0;
                } else {
                    publisher.handle(header, body, version, complaints, out);
                }
            });
        }
        let is_over = bench.stop.status().is_some();
        if is_over || engine.broken > 0 || clock.now() - moved > PATIENCE {
            break;
        }
    }
    Ok(())
}

/// Subscribes, and adds what came to the figures.
fn deliver(
    bench: &Bench,
    engine: &mut Engine,
    clock: Clock,
    options: &Options,
    stored: u64,
    complaints: &mut Complaints,
    figures: &mut Figures,
) -> Result<(), Failed> {
    let setup = Setup {
        server: bench.server,
        identity: &bench.identity,
        qos: bench.qos,
        concurrency: 1,
        stop: &bench.stop,
    };
    let outcome = setup.open(engine, 1, clock, |_| ("s0".to_owned(), Vec::new()))?;
    if outcome.interrupted {
        return Ok(());
    }
    let opened = outcome.all()?;
    let token = opened.first().map_or(0, |opened| opened.token);
    let meter = Meter::start(&bench.processes);
    let begin = clock.now();
    wire::subscribe(
        PacketId::MIN,
        std::slice::from_ref(&options.filter),
        bench.qos,
        bench.identity.version,
        engine.out(token),
    )
    .map_err(|error| Failed::new(error.to_string()))?;
    let mut delivered = Delivered {
        prefix: format!("{}/retained/", bench.prefix),
        seen: vec![false; options.messages],
        ..Delivered::default()
    };
    let mut ready: Vec<Ready> = Vec::new();
    let mut last = begin;
    let mut complete: Option<Reading> = None;
    loop {
        engine.flush();
        engine.wait(Some(Duration::from_millis(20)), &mut ready)?;
        for event in &ready {
            if event.writable {
                engine.writable(event.token);
            }
            if !event.readable {
                continue;
            }
            engine.read(event.token, |header, body, out| {
                if event.token == token && header.packet_type != PacketType::SubAck {
                    delivered.take(bench, header, body, complaints, out);
                }
            });
            last = clock.now();
        }
        let all = delivered.received >= options.messages as u64;
        if all && complete.is_none() {
            complete = Some(meter.read());
        }
        let quiet = clock.now() - last;
        let is_over = bench.stop.status().is_some() || engine.broken > 0;
        if is_over || quiet > if all { QUIET } else { PATIENCE } {
            break;
        }
    }
    let reading = complete.unwrap_or_else(|| meter.read());
    let received = delivered.received;
    figures.count("received", received);
    // What had not come when a signal ended it is not lost.
    let is_whole = bench.stop.status().is_none();
    figures.account("lost", stored.saturating_sub(received), is_whole);
    figures.account(
        "duplicated",
        delivered.duplicated,
        bench.qos != QoS::AtLeastOnce,
    );
    figures.count("foreign", delivered.foreign);
    figures.account("retain_flag_missing", delivered.not_retained, true);
    figures.account("wrong_qos", delivered.wrong_qos, true);
    figures.usage(&reading, "message", received);
    figures.number("messages_per_s", received as f64 / reading.seconds);
    figures.number("delivery_ms", reading.seconds * 1e3);
    Ok(())
}

impl Delivered {
    fn take(
        &mut self,
        bench: &Bench,
        header: FixedHeader,
        body: &[u8],
        complaints: &mut Complaints,
        out: &mut Vec<u8>,
    ) {
        let version = bench.identity.version;
        if header.packet_type == PacketType::PubRel {
            match wire::ack(header, body, version) {
                Ok((id, _)) => wire::acknowledge(PacketType::PubComp, id, out),
                Err(_) => complaints.protocol += 1,
            }
            return;
        }
        let publish = match header.packet_type {
            PacketType::Publish => Publish::decode(header.flags, body, version).ok(),
            _ => None,
        };
        let Some(publish) = publish else {
            complaints.protocol += 1;
            return;
        };
        if let Some(id) = publish.packet_id {
            let answer = match publish.qos {
                QoS::ExactlyOnce => PacketType::PubRec,
                _ => PacketType::PubAck,
            };
            wire::acknowledge(answer, id, out);
        }
        let ours = publish
            .topic
            .is_some_and(|topic| topic.as_str().starts_with(&self.prefix));
        let number = Stamp::read(publish.payload, bench.payload).map(|stamp| stamp.number as usize);
        let seen = number.and_then(|number| self.seen.get_mut(number));
        let (true, Some(seen)) = (ours, seen) else {
            self.foreign += 1;
            return;
        };
        self.not_retained += u64::from(!publish.retain);
        self.wrong_qos += u64::from(publish.qos != bench.qos);
        if std::mem::replace(seen, true) {
            self.duplicated += 1;
        } else {
            self.received += 1;
        }
    }
}
