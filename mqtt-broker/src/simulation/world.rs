//! A broker on a simulated disk, the clients around it, and what befalls them.

use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::DuplexStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::disk::{Disk, Plant};
use super::link::{self, Link};
use super::model::Model;
use super::random::Random;
use super::trace::Trace;
use crate::config::{Config, Durability};
use crate::counters::Counters;
use crate::policy::{ListenerOptions, Peer};
use crate::server::Broker;
use crate::store::{Step, Stepper, Store, WallTime};

/// The wall clock when a run begins.
const START: u64 = 1_000_000_000_000;
/// So long everybody has to get what is owed, in the end.
const PATIENCE: Duration = Duration::from_secs(600);
/// So long an end of the broker waits for what it is to follow.
const SOON: Duration = Duration::from_secs(2);
/// So long what should not come is waited for.
const REST: Duration = Duration::from_secs(5);

/// How a broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What was written stays.
    Kill,
    /// What was not synced is lost, or some of it.
    PowerCut,
    /// It is told to.
    Shutdown,
}

/// What the clients share.
pub(super) struct World {
    pub(super) trace: Trace,
    pub(super) disk: Arc<Disk>,
    model: Mutex<Model>,
    state: Mutex<State>,
    options: [Arc<ListenerOptions>; 3],
    /// A client has left a will that waits, but not for long.
    pub(super) left: Notify,
    begun: Instant,
}

#[derive(Default)]
struct State {
    broker: Option<Broker>,
    links: Vec<Arc<Link>>,
    calm: bool,
    /// Who has a will leaves for good.
    departs: bool,
    /// Of each client: its session may be gone since it last connected.
    forgotten: Vec<bool>,
    /// What each client was told when it began.
    levels: Vec<Durability>,
}

/// A broker that runs.
struct Running {
    broker: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    steps: JoinHandle<()>,
    closing: Arc<Mutex<bool>>,
}

const LEVELS: [Durability; 3] = [Durability::Disk, Durability::Os, Durability::Memory];

impl World {
    /// With a client of each of these levels.
    pub(super) fn new(levels: Vec<Durability>, plant: Option<Plant>, print: bool) -> Arc<Self> {
        let options = LEVELS.map(|level| {
            Arc::new(ListenerOptions {
                durability: Some(level),
                ..ListenerOptions::default()
            })
        });
        Arc::new(Self {
            trace: Trace::new(print),
            disk: Disk::new(plant),
            model: Mutex::new(Model::new(levels.len())),
            state: Mutex::new(State {
                forgotten: vec![false; levels.len()],
                levels,
                ..State::default()
            }),
            options,
            left: Notify::new(),
            begun: Instant::now(),
        })
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Nothing fails any more, and nothing new is said.
    pub(super) fn is_calm(&self) -> bool {
        self.state().calm
    }

    /// Everybody has what was owed: clients with a will are to leave.
    pub(super) fn departs(&self) -> bool {
        self.state().departs
    }

    /// Whether the session of a client may be gone; asked once after each connection.
    pub(super) fn may_have_forgotten(&self, index: usize) -> bool {
        core::mem::take(&mut self.state().forgotten[index])
    }

    /// A connection through the listener of a level, if the broker is there.
    pub(super) fn connect(
        &self,
        level: Durability,
        random: &mut Random,
    ) -> Option<(DuplexStream, Arc<Link>)> {
        let mut state = self.state();
        let broker = state.broker.clone()?;
        let (client, served, link) = link::connect(random);
        state.links.retain(|link| !link.is_over());
        state.links.push(Arc::clone(&link));
        drop(state);
        let place = LEVELS
            .iter()
            .position(|it| *it == level)
            .unwrap_or_default();
        let options = Arc::clone(&self.options[place]);
        broker.serve_with(served, Peer::named("simulated"), options);
        Some((client, link))
    }

    /// A broker on the disk as it is, tried until it opens.
    async fn start(self: &Arc<Self>, random: &mut Random) -> Running {
        let mut config = Config::default();
        if random.once_in(2) {
            config.stored_window_bytes = 1_000 + random.below(3_000);
        }
        let (store, contents, stepper, counters) = loop {
            let now = WallTime(START + self.begun.elapsed().as_millis() as u64);
            let counters = Arc::new(Counters::default());
            let opened = Store::open_stepped(
                self.disk.open(),
                Arc::clone(&counters),
                config.durability,
                now,
                config.offline_window_bytes(),
            );
            match opened {
                Ok((store, contents, stepper)) => break (store, contents, stepper, counters),
                Err(error) => {
                    self.trace.note(format_args!("not started: {error}"));
                    sleep(Duration::from_secs(1)).await;
                }
            }
        };
        let sessions = contents.sessions.len();
        self.trace
            .note(format_args!("started with {sessions} sessions"));
        let broker = Broker::restored(config, counters, store, contents);
        self.model().broker_starts();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = broker.clone().run(Vec::new(), async move {
            if stopped.await.is_err() {
                // It is killed.
                core::future::pending().await
            }
        });
        let closing = Arc::new(Mutex::new(false));
        let steps = self
            .clone()
            .steps(stepper, Arc::clone(&closing), random.fork());
        self.state().broker = Some(broker);
        Running {
            broker: tokio::spawn(run),
            stop,
            steps: tokio::spawn(steps),
            closing,
        }
    }

    /// What the threads of the store do, until nothing is left to do and the broker has closed.
    async fn steps(
        self: Arc<Self>,
        mut stepper: Stepper,
        closing: Arc<Mutex<bool>>,
        mut random: Random,
    ) {
        loop {
            let step = stepper.step();
            if step != Step::Idle {
                self.trace.note(format_args!("store: {step:?}"));
            }
            let pause = match step {
                Step::Idle if *closing.lock().unwrap() => return,
                Step::Idle => 1..30,
                Step::Taken => 0..12,
                Step::Committed => 0..3,
                Step::Failed => 100..2_500,
            };
            sleep(random.millis(pause.start..pause.end + 1)).await;
            if random.once_in(2) {
                stepper.read();
            }
        }
    }

    async fn stop(self: &Arc<Self>, running: Running, end: End, random: &mut Random) {
        let (links, levels) = {
            let mut state = self.state();
            state.broker = None;
            (core::mem::take(&mut state.links), state.levels.clone())
        };
        let Running {
            broker,
            stop,
            steps,
            closing,
        } = running;
        if end == End::Shutdown {
            // It is gone only where it panicked, which is told elsewhere.
            let _ = stop.send(());
            let _ = broker.await;
            *closing.lock().unwrap() = true;
            let _ = steps.await;
        } else {
            // The store first: nothing that happens to the connections is stored any more.
            steps.abort();
            let _ = steps.await;
            broker.abort();
            let _ = broker.await;
        }
        links.iter().for_each(|link| link.cut());
        self.model().broker_ends(end != End::Shutdown);
        let unsynced = self.disk.store.unsynced();
        let mut lost = 0;
        if end == End::PowerCut {
            lost = self.disk.store.cut_power(random.below(unsynced + 1));
        }
        let mut state = self.state();
        for (index, level) in levels.into_iter().enumerate() {
            let forgets = match level {
                Durability::Disk => false,
                Durability::Os => end == End::PowerCut,
                Durability::Memory => true,
            };
            if forgets {
                state.forgotten[index] = true;
                self.model().lose(index);
            }
        }
        drop(state);
        self.trace.note(format_args!(
            "{end:?}; {lost} of {unsynced} unsynced commits lost"
        ));
    }

    /// Lets things go wrong for so long, then lets everybody get what is owed.
    pub(super) async fn run(self: &Arc<Self>, length: Duration, mut random: Random) {
        let mut running = self.start(&mut random).await;
        let end = Instant::now() + length;
        while Instant::now() < end {
            sleep(random.millis(50..3_000)).await;
            match random.below(20) {
                0..=5 => self.harm(&mut random, "cut", Link::cut),
                6 | 7 => self.harm(&mut random, "half open", Link::leave_half_open),
                8 | 9 => self.harm(&mut random, "slow", Link::slow_down),
                10..=12 => {
                    let mut faults = self.disk.faults();
                    faults.commits = 1 + random.below(3);
                    faults.kept = random.once_in(2);
                    faults.opens = random.below(3);
                }
                13 => self.disk.faults().reads = 1 + random.below(3),
                kind => {
                    let how = match kind {
                        14 | 15 => End::Kill,
                        16..=18 => End::PowerCut,
                        _ => End::Shutdown,
                    };
                    if how != End::Shutdown && self.disk.tears() {
                        // The power fails within the next commit, not between two.
                        sleep(random.millis(0..200)).await;
                    }
                    let waits_for_will = how != End::Shutdown && random.once_in(3);
                    if waits_for_will {
                        // A will begins to wait, and goes on with the next broker.
                        let _ = timeout(3 * SOON, self.left.notified()).await;
                        sleep(random.millis(0..2_000)).await;
                    } else if how != End::Shutdown && random.once_in(2) {
                        self.lose_what_is_owed(&mut random).await;
                    }
                    self.stop(running, how, &mut random).await;
                    sleep(random.millis(0..2_000)).await;
                    running = self.start(&mut random).await;
                    if waits_for_will {
                        // It has its time.
                        sleep(random.millis(3_000..12_000)).await;
                    }
                }
            }
        }
        self.calm_down(running, &mut random).await;
    }

    /// What follows the SUBACK of a subscription that is to get what is retained is not stored.
    async fn lose_what_is_owed(&self, random: &mut Random) {
        self.disk.faults().after_owed = true;
        let owed = async {
            while self.disk.faults().after_owed {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(2 * SOON, owed).await;
        self.disk.faults().after_owed = false;
        sleep(random.millis(5..60)).await;
    }

    async fn calm_down(self: &Arc<Self>, running: Running, random: &mut Random) {
        if random.once_in(2) {
            self.lose_what_is_owed(random).await;
        }
        // What was acknowledged last is at stake as well.
        let end = *random.pick(&[End::PowerCut, End::PowerCut, End::Kill]);
        self.stop(running, end, random).await;
        *self.disk.faults() = super::disk::Faults {
            calm: true,
            ..super::disk::Faults::default()
        };
        self.state().calm = true;
        self.trace.note(format_args!("calm"));
        let mut running = self.start(random).await;
        // Publishers say their last.
        sleep(REST).await;
        self.settle().await;
        sleep(REST).await;
        self.state().departs = true;
        let departed = async {
            while self.model().departing > 0 && self.model().failures.is_empty() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(PATIENCE, departed).await.is_err() {
            self.model()
                .fail("clients with a will cannot leave".to_owned());
        }
        if random.once_in(2) {
            // What is due is known to the broker, and so to the one after it.
            sleep(random.millis(1_000..5_000)).await;
            let end = *random.pick(&[End::Kill, End::PowerCut, End::Shutdown]);
            self.stop(running, end, random).await;
            running = self.start(random).await;
        }
        self.settle().await;
        sleep(REST).await;
        self.stop(running, End::Kill, random).await;
        self.look_at_retained();
    }

    /// Waits until everybody has got what is owed.
    async fn settle(&self) {
        let owed = async {
            while self.model().is_waiting() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(PATIENCE, owed).await.is_err() {
            let (first, count) = self.model().missing();
            let mut model = self.model();
            if let Some((session, number)) = first {
                let message = model.message(number);
                let text = format!(
                    "{count} messages are missing; the first for session {session}: {number}, {message:?}"
                );
                model.fail(text);
            }
        }
    }

    /// What is retained is what the store has.
    fn look_at_retained(&self) {
        let clock = crate::store::Clock {
            origin: WallTime(START),
        };
        let opened = self.disk.store.open();
        let contents = opened
            .and_then(|mut engine| crate::store::Engine::load(&mut engine, clock, usize::MAX));
        let retained = contents.unwrap().retained;
        let topics = self.model().retained_topics();
        for topic in topics {
            let found = retained
                .iter()
                .find(|(message, _)| message.topic() == topic);
            let found = found.and_then(|(message, _)| {
                core::str::from_utf8(message.parts().payload)
                    .ok()?
                    .parse()
                    .ok()
            });
            self.model().retained(&topic, found);
        }
    }

    /// Something happens to one connection.
    fn harm(&self, random: &mut Random, what: &str, harm: impl Fn(&Link)) {
        let mut state = self.state();
        state.links.retain(|link| !link.is_over());
        if !state.links.is_empty() {
            let index = random.below(state.links.len());
            self.trace.note(format_args!(
                "connection {index} of {}: {what}",
                state.links.len()
            ));
            harm(&state.links[index]);
        }
    }
}
