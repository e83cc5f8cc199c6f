//! The load `churn`: subscriptions made and dropped, and clients that come and go, each at a rate. It is
//! run beside another load, to see what becomes of that.

use std::collections::HashSet;
use std::time::Duration;

use mqtt_codec::{FixedHeader, Packet, PacketId, PacketType, QoS};

use super::clock::Clock;
use super::engine::{Engine, Ready};
use super::meter::Meter;
use super::pace::Pace;
use super::progress::Progress;
use super::report::Figures;
use super::setup::{self, Setup};
use super::wire;
use super::{Bench, Failed};

/// Filters that are made and dropped in turn. They are next to the topics of `p2p`, so that what a broker
/// has kept of the routes of those is out of date each time.
const FILTERS: u64 = 1000;
/// Clients on their way at once; one that finds no room is left out and counted.
const CLIENTS: usize = 1000;
/// How long the last answers are waited for, in nanoseconds.
const PATIENCE: u64 = 3_000_000_000;

/// What has been done, and what has been answered.
#[derive(Default)]
struct Churn {
    subscribed: u64,
    unsubscribed: u64,
    answered: u64,
    came: u64,
    went: u64,
    left_out: u64,
    refused: u64,
    protocol: u64,
    /// Clients that wait for their CONNACK.
    coming: HashSet<usize>,
    /// Clients whose DISCONNECT may not be written yet.
    going: Vec<usize>,
}

/// Runs the load: `rate` subscriptions and `rate` clients a second.
pub(super) fn run(bench: &Bench, rate: f64) -> Result<Figures, Failed> {
    let mut engine = Engine::new(&bench.transport)?;
    let clock = Clock::start();
    let setup = Setup {
        server: bench.server,
        identity: &bench.identity,
        qos: bench.qos,
        concurrency: 1,
        stop: &bench.stop,
    };
    let opened = setup
        .open(&mut engine, 1, clock, |_| ("churn".to_owned(), Vec::new()))?
        .all()?;
    let subscriber = opened.first().map_or(0, |opened| opened.token);
    let meter = Meter::start(&bench.processes);
    let begin = clock.now();
    let mut end = begin + bench.duration.as_nanos() as u64;
    let mut pace = Pace::start(rate, begin, engine.registry())?;
    let mut progress = Progress::new(bench, begin, end);
    let mut churn = Churn::default();
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        let now = clock.now();
        if bench.stop.status().is_some() {
            end = end.min(now);
        }
        if now < end {
            while pace.due(now).is_some() {
                churn.turn(bench, &mut engine, subscriber)?;
            }
        } else if churn.is_done() || now > end + PATIENCE || !engine.is_open(subscriber) {
            break;
        }
        engine.flush();
        churn.let_go(&mut engine);
        let timeout = pace.timeout(Duration::from_millis(20));
        engine.wait(Some(timeout), &mut ready)?;
        for event in &ready {
            if event.writable {
                engine.writable(event.token);
            }
            if event.readable && engine.is_open(event.token) {
                churn.read(bench, &mut engine, event.token, subscriber);
            }
        }
        progress.show(now, churn.answered + churn.went);
    }
    progress.end();
    let reading = meter.read();
    let mut figures = Figures::new(bench);
    figures.number("rate", rate);
    figures.count("subscriptions_made", churn.subscribed);
    figures.count("subscriptions_dropped", churn.unsubscribed);
    figures.count("clients_came", churn.came);
    figures.count("clients_went", churn.went);
    let asked = churn.subscribed + churn.unsubscribed;
    figures.account("unanswered", asked - churn.answered, true);
    figures.account("clients_lost", churn.came - churn.went, true);
    figures.account("left_out", churn.left_out, false);
    figures.account("refused", churn.refused, true);
    figures.account("protocol_errors", churn.protocol, true);
    figures.account("broken_connections", engine.broken, true);
    figures.usage(&reading, "change", churn.answered + churn.went);
    figures.failures(&engine.failures);
    figures.interrupted(bench);
    setup::leave(&mut engine, &bench.identity);
    Ok(figures)
}

impl Churn {
    fn is_done(&self) -> bool {
        self.answered == self.subscribed + self.unsubscribed && self.coming.is_empty()
    }

    /// Makes a subscription and drops another, and lets a client come.
    fn turn(
        &mut self,
        bench: &Bench,
        engine: &mut Engine,
        subscriber: usize,
    ) -> Result<(), Failed> {
        let failed = |error: mqtt_codec::EncodeError| Failed::new(error.to_string());
        let version = bench.identity.version;
        let filter = |number: u64| {
            let prefix = &bench.prefix;
            let number = number % FILTERS;
            match number % 10 {
                0 => format!("{prefix}/pair/+/{number}/#"),
                _ => format!("{prefix}/pair/{number}/churn"),
            }
        };
        // Each answer has come before an identifier is used again: there are 65,535, and two a turn.
        let id = |number: u64| PacketId::new((number % 30_000) as u16 + 1).unwrap_or(PacketId::MIN);
        if engine.is_open(subscriber) {
            let out = engine.out(subscriber);
            let number = self.subscribed;
            let filters = [filter(number)];
            wire::subscribe(id(number), &filters, QoS::AtMostOnce, version, out).map_err(failed)?;
            self.subscribed += 1;
            if let Some(old) = number.checked_sub(FILTERS / 2) {
                let id = PacketId::new(id(old).get() + 30_000).unwrap_or(PacketId::MIN);
                wire::unsubscribe(id, &filter(old), version, out).map_err(failed)?;
                self.unsubscribed += 1;
            }
        }
        if self.coming.len() >= CLIENTS {
            self.left_out += 1;
            return Ok(());
        }
        let token = engine.dial(bench.server)?;
        let name = format!("c{}", self.came);
        bench
            .identity
            .connect(&name, engine.out(token))
            .map_err(failed)?;
        self.came += 1;
        self.coming.insert(token);
        Ok(())
    }

    fn read(&mut self, bench: &Bench, engine: &mut Engine, token: usize, subscriber: usize) {
        let version = bench.identity.version;
        if token == subscriber {
            engine.read(token, |header, body, _| self.answer(bench, header, body));
            return;
        }
        let mut connected = None;
        engine.read(token, |header, body, out| {
            if connected.is_none() {
                connected = Some(wire::connack(header, body, version).is_ok());
                wire::disconnect(version, out);
            }
        });
        if let Some(connected) = connected {
            self.coming.remove(&token);
            self.went += u64::from(connected);
            self.refused += u64::from(!connected);
            self.going.push(token);
        } else if !engine.is_open(token) {
            self.coming.remove(&token);
        }
    }

    fn answer(&mut self, bench: &Bench, header: FixedHeader, body: &[u8]) {
        match Packet::decode(header, body, bench.identity.version) {
            Ok(Packet::SubAck(suback)) => {
                self.answered += 1;
                let refused = suback.reason_codes.iter().any(|code| code.is_error());
                self.refused += u64::from(refused);
            }
            Ok(packet) if packet.packet_type() == PacketType::UnsubAck => self.answered += 1,
            // What the load beside it publishes may match.
            Ok(packet) if packet.packet_type() == PacketType::Publish => {}
            _ => self.protocol += 1,
        }
    }

    /// Closes the connections whose last packet has been written.
    fn let_go(&mut self, engine: &mut Engine) {
        self.going.retain(|token| {
            let blocked = engine.is_blocked(*token);
            if !blocked {
                engine.close(*token);
            }
            blocked
        });
    }
}
