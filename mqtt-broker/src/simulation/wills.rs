//! Wills while things still fail: by which instant one must have been published, whatever else befalls the broker.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use mqtt_codec::QoS;
use tokio::time::Instant;

use super::model::Model;

/// So much later than it is due a will is published at most by a broker that runs.
const SLACK: Duration = Duration::from_secs(1);

/// A will that is stored, of a connection that has ended.
#[derive(Debug)]
struct Promise {
    client: usize,
    /// The broker knew of the end at the latest then, if it ran.
    ended: Instant,
    delay: Duration,
    /// Its client came back after it was due.
    is_back: bool,
}

/// All that are promised.
#[derive(Debug, Default)]
pub(super) struct Wills {
    promises: BTreeMap<usize, Promise>,
    /// When the last broker started: from then on what is stored waits anew.
    started: Option<Instant>,
    /// Which were found to have come, and to whom.
    kept: BTreeSet<(usize, usize)>,
}

impl Wills {
    /// How many were found to have come, one for each session.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// When a will has been published at the latest.
    fn latest(&self, promise: &Promise) -> Instant {
        let begun = self
            .started
            .map_or(promise.ended, |it| it.max(promise.ended));
        begun + promise.delay + SLACK
    }
}

impl Model {
    /// A broker starts with what is stored. It may find a will there that was published and not called back, and that
    /// the client calls back now.
    pub(super) fn broker_starts(&mut self) {
        self.wills.started = Some(Instant::now());
        let promises = &mut self.wills.promises;
        promises.retain(|_, it| !it.is_back || it.delay.is_zero());
    }

    /// The connection of a client with a stored will has ended: the broker knows that at this instant at the latest.
    pub(super) fn promise_will(
        &mut self,
        number: usize,
        client: usize,
        ended: Instant,
        delay: Duration,
    ) {
        let promise = Promise {
            client,
            ended,
            delay,
            is_back: false,
        };
        self.wills.promises.insert(number, promise);
    }

    /// A client is about to be back: what still waits need not come.
    pub(super) fn is_back(&mut self, client: usize) {
        let now = Instant::now();
        let mut promises = core::mem::take(&mut self.wills.promises);
        promises.retain(|_, it| {
            let is_due = self.wills.latest(it) < now;
            it.is_back |= it.client == client;
            it.client != client || it.delay.is_zero() || is_due
        });
        self.wills.promises = promises;
    }

    /// A message has come to a session at QoS 2, and so what was published before it was sent has come as well: a session
    /// sends these in their order, each when it is stored.
    pub(super) fn check_wills(&mut self, session: usize, number: usize, qos: QoS) {
        let Some(message) = self.messages.get(number) else {
            return;
        };
        if qos != QoS::ExactlyOnce || message.is_will {
            return;
        }
        let mut failures = Vec::new();
        let kept = &self.sessions[session];
        for (will, promise) in &self.wills.promises {
            let latest = self.wills.latest(promise);
            if message.begun <= latest {
                continue;
            }
            let mut interests = kept.interests(&self.messages[*will]);
            if !interests.any(|it| it.until.is_none() && it.qos > QoS::AtMostOnce) {
                continue;
            }
            if kept.came.contains_key(will) {
                self.wills.kept.insert((session, *will));
            } else {
                let late = message.begun - latest;
                failures.push(format!(
                    "session {session}: {number} came, which was sent {late:?} after the will {will} was due, and that did not"
                ));
            }
        }
        failures.into_iter().for_each(|text| self.fail(text));
    }
}
