//! The loop of a load of publishers and subscribers, on one thread.

use std::time::Duration;

use hdrhistogram::Histogram;
use mqtt_codec::QoS;

use super::account::Account;
use super::clock::Clock;
use super::engine::{Calls, Engine, Ready};
use super::load::{Load, Shape};
use super::meter::{Meter, Reading};
use super::pace::Pace;
use super::progress::Progress;
use super::publisher::{LARGEST_WINDOW, Publisher};
use super::report::{Figures, percentiles};
use super::setup::{self, Setup};
use super::wire::Template;
use super::{Bench, Failed};

/// Without any progress for this long, what is under way is given up.
const STALL: u64 = 2_000_000_000;
/// Stalls after which the run is over.
const STALLS: u64 = 3;
/// How long after the last message repeated ones are waited for.
const QUIET: u64 = 200_000_000;
/// Messages under way for each publisher at a fixed rate.
const PACED_WINDOW: u64 = 1000;
/// Bytes under way in all, about.
const FLYING: usize = 4 << 20;
/// Filters of a connection that only holds some which match nothing.
const HELD: usize = 1000;
/// Connections that are opened at once.
const CONCURRENCY: usize = 64;

/// What a load of publishers and subscribers is run with.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Messages under way for each publisher; by the size of the load if absent.
    pub(super) window: Option<u64>,
    /// Messages that a publisher sends at once at least; half a window at QoS 0 if absent, else 1.
    pub(super) burst: Option<u64>,
    /// Messages a second of all publishers together; as many as the window lets if absent.
    pub(super) rate: Option<f64>,
    /// A message that finds no room is sent late and timed from when it was due. Otherwise it is
    /// left out and counted.
    pub(super) open_loop: bool,
    /// Messages of each publisher.
    pub(super) count: Option<u64>,
    /// Filters that match nothing, held by connections beside the load.
    pub(super) held: usize,
    /// How long missing messages are waited for.
    pub(super) drain: Duration,
}

impl Options {
    /// The window and the burst of each publisher.
    fn window(&self, load: &Load, qos: QoS, payload: usize) -> Result<(u64, u64), Failed> {
        let messages = match load.shape {
            Shape::Fanin => 10,
            _ => 100,
        };
        let copies = match load.shape {
            Shape::Fanout => load.subscribers,
            _ => load.publishers,
        };
        let by_size = (FLYING / (payload * copies).max(1)) as u64;
        let window = messages.min(by_size).max(8);
        let window = if qos == QoS::AtMostOnce {
            window
        } else {
            window.min(20)
        };
        let window = self.window.unwrap_or(window);
        // A publisher of QoS 0 refills in half windows, which keeps the generator cheap. One that
        // waits for acknowledgements goes on at once, as clients do.
        let burst = self.burst.unwrap_or(match qos {
            QoS::AtMostOnce => (window / 2).max(1),
            _ => 1,
        });
        if window == 0 || window > LARGEST_WINDOW || burst == 0 || burst > window {
            return Err(Failed::new(format!(
                "a window is 1 to {LARGEST_WINDOW} messages, and a burst 1 to a window"
            )));
        }
        Ok((window, burst))
    }
}

/// All that changes while the load runs.
struct Traffic<'a> {
    bench: &'a Bench,
    options: &'a Options,
    engine: Engine,
    clock: Clock,
    publishers: Vec<Publisher>,
    account: Account,
    subscribers: usize,
    burst: u64,
    pace: Option<Pace>,
    /// The publisher whose turn it is at a fixed rate.
    turn: usize,
    /// Messages left out because there was no room for them.
    left_out: u64,
    /// Nanoseconds by which the generator itself was late.
    lateness: Histogram<u64>,
    stalls: u64,
}

/// What was measured between the end of the warm-up and the end of sending.
#[derive(Default)]
struct Measured {
    reading: Reading,
    delivered: u64,
    sent: u64,
    calls: Calls,
}

/// Runs a load and reports on it.
pub(super) fn run(bench: &Bench, load: Load, options: &Options) -> Result<Figures, Failed> {
    let qos = bench.qos;
    let (window, burst) = options.window(&load, qos, bench.payload)?;
    let mut engine = Engine::new(&bench.transport)?;
    let clock = Clock::start();
    let setup = Setup {
        server: bench.server,
        identity: &bench.identity,
        qos,
        concurrency: CONCURRENCY,
        stop: &bench.stop,
    };
    let subscribers = load.subscribers;
    setup
        .open(&mut engine, subscribers, clock, |number| {
            (format!("s{number}"), load.filters(number))
        })?
        .all()?;
    let opened = setup
        .open(&mut engine, load.publishers, clock, |number| {
            (format!("p{number}"), Vec::new())
        })?
        .all()?;
    let mut publishers = Vec::with_capacity(opened.len());
    for (index, opened) in opened.iter().enumerate() {
        if opened.maximum_qos < qos {
            return Err(Failed::new(format!(
                "the server allows QoS {} at most",
                opened.maximum_qos as u8
            )));
        }
        let window = match qos {
            QoS::AtMostOnce => window,
            _ => window.min(opened.receive_maximum.into()),
        };
        let templates = load
            .topics(index)
            .iter()
            .map(|topic| Template::new(topic, qos, false, bench.payload, bench.identity.version))
            .collect::<Result<_, _>>()
            .map_err(|error| Failed::new(error.to_string()))?;
        publishers.push(Publisher::new(
            opened.token,
            index,
            qos,
            templates,
            window,
            load.deliveries_per_message(),
            options.count.unwrap_or(u64::MAX),
        ));
    }
    let prefix = &bench.prefix;
    setup
        .open(&mut engine, options.held.div_ceil(HELD), clock, |number| {
            let filters = (number * HELD..options.held.min((number + 1) * HELD)).map(|filter| {
                let (site, device) = (filter % 1000, filter / 1000);
                match filter % 10 {
                    3 => format!("{prefix}-held/{site}/device/+/{device}"),
                    _ => format!("{prefix}-held/{site}/device/{device}/value"),
                }
            });
            (format!("h{number}"), filters.collect())
        })?
        .all()?;
    let span = window.max(PACED_WINDOW);
    let pace = match options.rate {
        Some(rate) => Some(Pace::start(rate, clock.now(), engine.registry())?),
        None => None,
    };
    let mut traffic = Traffic {
        bench,
        options,
        engine,
        clock,
        publishers,
        account: Account::new(load, bench.identity.version, qos, bench.payload, span),
        subscribers,
        burst,
        pace,
        turn: 0,
        left_out: 0,
        lateness: super::report::histogram(),
        stalls: 0,
    };
    let measured = traffic.run()?;
    let figures = traffic.report(&measured, window, burst);
    setup::leave(&mut traffic.engine, &bench.identity);
    Ok(figures)
}

impl Traffic<'_> {
    fn run(&mut self) -> Result<Measured, Failed> {
        let begin = self.clock.now();
        let warm = begin + self.bench.warmup.as_nanos() as u64;
        let end = warm + self.bench.duration.as_nanos() as u64;
        let drain = self.options.drain.as_nanos() as u64;
        let mut progress = Progress::new(self.bench, begin, end);
        let mut meter: Option<Meter> = None;
        let mut before = Measured::default();
        let mut measured: Option<Measured> = None;
        let mut ready: Vec<Ready> = Vec::new();
        let mut mark = (0, 0);
        let mut moved = begin;
        loop {
            let now = self.clock.now();
            if meter.is_none() && now >= warm {
                before = self.sample(Reading::default());
                self.account.forget_latency();
                self.lateness.reset();
                meter = Some(Meter::start(&self.bench.processes));
            }
            let sending = now < end
                && self.bench.stop.status().is_none()
                && self.stalls < STALLS
                && self.engine.broken == 0
                && self.publishers.iter().any(Publisher::has_more);
            if !sending && measured.is_none() {
                let reading = meter.as_ref().map(Meter::read).unwrap_or_default();
                let mut after = self.sample(reading);
                after.delivered -= before.delivered;
                after.sent -= before.sent;
                after.calls.reads -= before.calls.reads;
                after.calls.writes -= before.calls.writes;
                measured = Some(after);
            }
            self.account.settle(&mut self.publishers);
            if sending {
                self.top_up(now);
            }
            self.engine.flush();
            if sending {
                if now - moved > STALL {
                    self.stalls += 1;
                    moved = now;
                    for publisher in &mut self.publishers {
                        publisher.give_up();
                    }
                }
            } else {
                let wait = if self.is_complete() { QUIET } else { drain };
                if now - moved > wait || self.engine.broken > 0 {
                    break;
                }
            }
            let longest = Duration::from_millis(if sending { 100 } else { 20 });
            let timeout = match &self.pace {
                Some(pace) => pace.timeout(longest),
                None => longest,
            };
            self.engine.wait(Some(timeout), &mut ready)?;
            self.take(&ready);
            let acknowledged: u64 = self.publishers.iter().map(|p| p.acknowledged).sum();
            let state = (self.account.delivered, acknowledged);
            if state != mark {
                mark = state;
                moved = self.clock.now();
            }
            progress.show(now, self.account.delivered);
        }
        self.account.note_latency();
        progress.end();
        if meter.is_none() && self.bench.stop.status().is_some() {
            return Err(Failed::new("nothing was measured yet"));
        }
        Ok(measured.unwrap_or_default())
    }

    fn sample(&self, reading: Reading) -> Measured {
        Measured {
            reading,
            delivered: self.account.delivered,
            sent: self.publishers.iter().map(|publisher| publisher.sent).sum(),
            calls: self.engine.calls,
        }
    }

    /// Everything sent has come and is acknowledged.
    fn is_complete(&self) -> bool {
        let expected: u64 = self.publishers.iter().map(|p| p.expected).sum();
        self.account.received() >= expected && self.unacknowledged() == 0
    }

    fn unacknowledged(&self) -> u64 {
        match self.bench.qos {
            QoS::AtMostOnce => 0,
            _ => self
                .publishers
                .iter()
                .map(|publisher| publisher.sent - publisher.acknowledged)
                .sum(),
        }
    }

    fn top_up(&mut self, now: u64) {
        if self.pace.is_some() {
            self.top_up_paced(now);
            return;
        }
        let load = self.account.load();
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            let room = publisher.room(publisher.window);
            let burst = self.burst.min(publisher.window).min(publisher.left());
            if room == 0 || room < burst || self.engine.is_blocked(publisher.token) {
                continue;
            }
            let out = self.engine.out(publisher.token);
            out.reserve(room as usize * publisher.template(publisher.sent).len());
            for _ in 0..room {
                let deliveries = load.deliveries(index, publisher.sent);
                publisher.publish(now, deliveries, out);
            }
        }
    }

    fn top_up_paced(&mut self, now: u64) {
        let Some(pace) = &mut self.pace else {
            return;
        };
        let load = self.account.load();
        let count = self.publishers.len();
        // In the open loop whoever has room takes the turn; in the closed one whoever has more to send.
        let open = self.options.open_loop;
        let fits = |publisher: &Publisher| match open {
            true => publisher.room(PACED_WINDOW) > 0,
            false => publisher.has_more(),
        };
        while self.publishers.iter().any(fits)
            && let Some(due) = pace.due(now)
        {
            self.lateness.saturating_record(now - due);
            while !fits(&self.publishers[self.turn]) {
                self.turn = (self.turn + 1) % count;
            }
            let index = self.turn;
            self.turn = (index + 1) % count;
            let publisher = &mut self.publishers[index];
            if publisher.room(PACED_WINDOW) == 0 {
                self.left_out += 1;
                continue;
            }
            let time = if open { due } else { self.clock.now() };
            let deliveries = load.deliveries(index, publisher.sent);
            publisher.publish(time, deliveries, self.engine.out(publisher.token));
        }
    }

    fn take(&mut self, ready: &[Ready]) {
        let now = self.clock.now();
        let version = self.bench.identity.version;
        for event in ready {
            if event.writable {
                self.engine.writable(event.token);
            }
            if !event.readable {
                continue;
            }
            let (publishers, account) = (&mut self.publishers, &mut self.account);
            if event.token < self.subscribers {
                self.engine.read(event.token, |header, body, out| {
                    account.handle(event.token, header, body, now, publishers, out);
                });
            } else if let Some(publisher) = publishers.get_mut(event.token - self.subscribers) {
                self.engine.read(event.token, |header, body, out| {
                    publisher.handle(header, body, version, &mut account.complaints, out);
                });
            } else {
                // Nothing was to come to a filter that matches nothing.
                self.engine
                    .read(event.token, |_, _, _| account.damage.misrouted += 1);
            }
        }
    }

    fn report(&self, measured: &Measured, window: u64, burst: u64) -> Figures {
        let bench = self.bench;
        let account = &self.account;
        let load = account.load();
        let expected: u64 = self.publishers.iter().map(|p| p.expected).sum();
        let lost = expected.saturating_sub(account.received());
        let mut figures = Figures::new(bench);
        figures.count("publishers", load.publishers as u64);
        figures.count("subscribers", load.subscribers as u64);
        figures.count("window", window);
        figures.count("burst", burst);
        figures.count("held_filters", self.options.held as u64);
        if let Some(rate) = self.options.rate {
            figures.number("rate", rate);
            figures.flag("open_loop", self.options.open_loop);
        }
        figures.count("sent", self.sample(Reading::default()).sent);
        figures.count("expected", expected);
        figures.count("received", account.received());
        let at_least_once = bench.qos == QoS::AtLeastOnce;
        let lossy = bench.qos == QoS::AtMostOnce;
        figures.account("lost", lost, !lossy);
        figures.account("duplicated", account.duplicated(), !at_least_once);
        figures.account("out_of_order", account.out_of_order(), true);
        figures.account("misrouted", account.damage.misrouted, true);
        figures.account("corrupt", account.damage.corrupt, true);
        figures.account("wrong_qos", account.damage.wrong_qos, true);
        figures.account("dup_flag", account.damage.dup_flag, !at_least_once);
        figures.account("unacknowledged", self.unacknowledged(), true);
        let complaints = &account.complaints;
        figures.account("acks_unknown", complaints.unknown, true);
        figures.account("acks_refused", complaints.refused, true);
        figures.account("acks_out_of_order", complaints.out_of_order, true);
        figures.account("protocol_errors", complaints.protocol, true);
        figures.account("server_disconnects", complaints.disconnects, true);
        figures.account("broken_connections", self.engine.broken, true);
        figures.account("stalls", self.stalls, self.stalls >= STALLS);
        figures.account("left_out", self.left_out, false);
        let seconds = measured.reading.seconds;
        let delivered = measured.delivered as f64;
        figures.usage(&measured.reading, "message", measured.delivered);
        figures.number(
            "broker_cpu_us_per_publish",
            measured.reading.broker.cpu as f64 / 1e3 / measured.sent as f64,
        );
        figures.number("messages_per_s", delivered / seconds);
        figures.number("publishes_per_s", measured.sent as f64 / seconds);
        figures.number(
            "mib_per_s",
            delivered * bench.payload as f64 / seconds / f64::from(1 << 20),
        );
        figures.number(
            "messages_per_read",
            delivered / measured.calls.reads.max(1) as f64,
        );
        figures.number(
            "publishes_per_write",
            measured.sent as f64 / measured.calls.writes.max(1) as f64,
        );
        figures.interrupted(self.bench);
        percentiles(&mut figures, "latency", &account.latency);
        if self.pace.is_some() {
            percentiles(&mut figures, "generator_lateness", &self.lateness);
        }
        figures.failures(&self.engine.failures);
        figures
    }
}
