//! Opens connections, many at a time, up to the last SUBACK.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use mqtt_codec::{Packet, PacketId, PacketType, QoS};

use super::clock::Clock;
use super::engine::{Engine, Ready};
use super::stop::Stop;
use super::wire::{self, Identity};

/// Filters of one SUBSCRIBE.
const FILTERS: usize = 20;
/// How long a run waits for any answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failures that are kept in words.
const SHOWN_FAILURES: usize = 5;

/// What the server said of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    pub(super) token: usize,
    /// Unacknowledged messages that it takes.
    pub(super) receive_maximum: u16,
    pub(super) maximum_qos: QoS,
}

/// What came of opening some connections.
#[derive(Debug)]
pub(super) struct Outcome {
    /// In the order in which they were asked for; those that failed are missing.
    pub(super) opened: Vec<Opened>,
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
    /// A signal has ended it; some may not have been tried.
    pub(super) interrupted: bool,
    pub(super) seconds: f64,
    /// Nanoseconds from the start of a connection until it was ready.
    pub(super) latency: Histogram<u64>,
}

impl Outcome {
    /// All of them, or the reason why one is missing.
    pub(super) fn all(self) -> Result<Vec<Opened>, String> {
        match self.failures.into_iter().next() {
            _ if self.interrupted => Err("nothing was measured yet".to_owned()),
            Some(failure) => Err(failure),
            None => Ok(self.opened),
        }
    }
}

/// Where a connection stands.
enum Stage {
    /// CONNECT is on its way.
    Connecting,
    /// This many filters wait for their SUBACK, the first of them in SUBSCRIBE number `packet`.
    Subscribing {
        packet: u16,
        left: usize,
    },
    Ready,
    Failed,
}

struct Opening {
    answer: Opened,
    stage: Stage,
    begun: u64,
    filters: Vec<String>,
}

/// What to open.
pub(super) struct Setup<'a> {
    pub(super) server: SocketAddr,
    pub(super) identity: &'a Identity,
    pub(super) qos: QoS,
    /// Connections that are opened at once.
    pub(super) concurrency: usize,
    /// Ends it early.
    pub(super) stop: &'a Stop,
}

impl Setup<'_> {
    /// Opens `count` connections; `describe` gives the name and the filters of each.
    pub(super) fn open(
        &self,
        engine: &mut Engine,
        count: usize,
        clock: Clock,
        mut describe: impl FnMut(usize) -> (String, Vec<String>),
    ) -> Result<Outcome, String> {
        let first = engine.len();
        let mut openings: Vec<Opening> = Vec::with_capacity(count);
        let mut ready: Vec<Ready> = Vec::new();
        let mut outcome = Outcome {
            opened: Vec::new(),
            failed: 0,
            failures: Vec::new(),
            interrupted: false,
            seconds: 0.0,
            latency: super::report::histogram(),
        };
        let begin = clock.now();
        let mut last = begin;
        let mut finished = 0;
        while finished < count {
            if self.stop.status().is_some() {
                outcome.interrupted = true;
                break;
            }
            while openings.len() < count && openings.len() - finished < self.concurrency {
                let (name, filters) = describe(openings.len());
                let token = engine.dial(self.server).map_err(|error| {
                    format!("connection {} to {}: {error}", openings.len(), self.server)
                })?;
                self.identity
                    .connect(&name, engine.out(token))
                    .map_err(|error| error.to_string())?;
                openings.push(Opening {
                    answer: Opened {
                        token,
                        receive_maximum: u16::MAX,
                        maximum_qos: QoS::ExactlyOnce,
                    },
                    stage: Stage::Connecting,
                    begun: clock.now(),
                    filters,
                });
            }
            engine.flush();
            engine
                .wait(Some(Duration::from_millis(200)), &mut ready)
                .map_err(|error| error.to_string())?;
            let now = clock.now();
            for event in &ready {
                if event.writable {
                    engine.writable(event.token);
                }
                let Some(opening) = event
                    .token
                    .checked_sub(first)
                    .and_then(|index| openings.get_mut(index))
                else {
                    continue;
                };
                if !event.readable || matches!(opening.stage, Stage::Ready | Stage::Failed) {
                    continue;
                }
                let mut failure = None;
                let alive = engine.read(event.token, |header, body, out| {
                    if let Err(error) = self.answer(opening, header, body, out) {
                        failure.get_or_insert(error);
                    }
                });
                if !alive {
                    failure.get_or_insert_with(|| {
                        engine.failures.last().cloned().unwrap_or_else(|| {
                            format!("connection {} was closed during set-up", event.token)
                        })
                    });
                }
                if let Some(failure) = failure {
                    opening.stage = Stage::Failed;
                    outcome.failed += 1;
                    if outcome.failures.len() < SHOWN_FAILURES {
                        outcome.failures.push(failure);
                    }
                    finished += 1;
                    last = now;
                } else if matches!(opening.stage, Stage::Ready) {
                    outcome
                        .latency
                        .saturating_record(now.saturating_sub(opening.begun));
                    finished += 1;
                    last = now;
                }
            }
            if Duration::from_nanos(clock.now() - last) > PATIENCE {
                outcome.failed += (count - finished) as u64;
                outcome.failures.push(format!(
                    "{} connections had no answer for {} s",
                    count - finished,
                    PATIENCE.as_secs()
                ));
                break;
            }
        }
        engine.flush();
        outcome.seconds = last.saturating_sub(begin) as f64 / 1e9;
        outcome.opened = openings
            .iter()
            .filter(|opening| matches!(opening.stage, Stage::Ready))
            .map(|opening| opening.answer)
            .collect();
        Ok(outcome)
    }

    fn answer(
        &self,
        opening: &mut Opening,
        header: mqtt_codec::FixedHeader,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let version = self.identity.version;
        match opening.stage {
            Stage::Connecting => {
                let connack = wire::connack(header, body, version)?;
                if let Some(maximum) = connack.properties.receive_maximum {
                    opening.answer.receive_maximum = maximum.get();
                }
                if let Some(maximum) = connack.properties.maximum_qos {
                    opening.answer.maximum_qos = maximum;
                }
                if opening.filters.is_empty() {
                    opening.stage = Stage::Ready;
                    return Ok(());
                }
                let chunks = opening.filters.chunks(FILTERS);
                for (id, filters) in (1..=u16::MAX).zip(chunks) {
                    let id = PacketId::new(id).unwrap_or(PacketId::MIN);
                    wire::subscribe(id, filters, self.qos, version, out)
                        .map_err(|error| error.to_string())?;
                }
                opening.stage = Stage::Subscribing {
                    packet: 1,
                    left: opening.filters.len(),
                };
                Ok(())
            }
            Stage::Subscribing { packet, left } => {
                // Retained messages may come before the SUBACK.
                if header.packet_type == PacketType::Publish {
                    return Ok(());
                }
                let suback = match Packet::decode(header, body, version) {
                    Ok(Packet::SubAck(suback)) => suback,
                    Ok(other) => {
                        return Err(format!("{} in place of SUBACK", other.packet_type().name()));
                    }
                    Err(error) => return Err(error.to_string()),
                };
                if suback.packet_id.get() != packet
                    || suback.reason_codes.len() != left.min(FILTERS)
                {
                    return Err("a SUBACK does not answer its SUBSCRIBE".to_owned());
                }
                if let Some(code) = suback
                    .reason_codes
                    .iter()
                    .find(|code| code.0 != self.qos as u8)
                {
                    return Err(format!(
                        "QoS {} was asked for, and SUBACK has {:#04x}, {}",
                        self.qos as u8,
                        code.0,
                        code.name()
                    ));
                }
                let left = left - suback.reason_codes.len();
                opening.stage = if left == 0 {
                    Stage::Ready
                } else {
                    Stage::Subscribing {
                        packet: packet + 1,
                        left,
                    }
                };
                Ok(())
            }
            Stage::Ready | Stage::Failed => Ok(()),
        }
    }
}

/// Says goodbye on all connections, so that brokers do not log broken ones.
pub(super) fn leave(engine: &mut Engine, identity: &Identity) {
    for token in 0..engine.len() {
        if engine.is_open(token) {
            wire::disconnect(identity.version, engine.out(token));
        }
    }
    engine.flush();
}
