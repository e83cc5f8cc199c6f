//! A disk that fails when it is told to and loses its power, behind the trait of engines; and mistakes planted there,
//! which the model must find.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use mqtt_codec::QoS;

use crate::config::Durability;
use crate::store::{
    Clock, Contents, Engine, EngineError, MemoryStore, Op, Open, Portion, Reader, Span, WallTime,
};

/// A mistake of a broker or its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plant {
    /// A commit counts as durable before it is made.
    AckFirst,
    /// What is to be synced is only written.
    NoSync,
    /// Identifiers of received QoS 2 messages are not stored.
    ForgetReceived,
    /// Nor is that PUBREC came for a message that was sent.
    ForgetReleased,
    /// Nor are subscriptions.
    ForgetSubscriptions,
    /// Messages that were acknowledged stay.
    KeepAcknowledged,
    /// Of what was retained, nothing is stored.
    ForgetRetained,
    /// What was retained is stored, and not read back.
    UnreadRetained,
    /// Sessions are stored without their wills.
    ForgetWills,
    /// Wills are stored without their delay.
    HurryWills,
    /// A will that waits is stored as due later.
    LateWills,
    /// Messages are stored as if they never expired.
    ForgetExpiry,
    /// Messages are stored with another time to expire.
    LateExpiry,
    /// Not stored is that a subscription is to get what is retained.
    ForgetOwed,
    /// Not stored is which group chose the session for a message.
    ForgetGroups,
    /// The units of a commit are stored in two commits.
    TornUnits,
    /// What a group gives to a session that is not synced is not stored.
    ForgetLesserMembers,
    /// A QoS 1 message that was acknowledged stays.
    KeepOnce,
    /// As long as things fail, a broker forgets at its start the wills that have a delay.
    LoseDelayedWills,
}

impl Plant {
    pub(super) const ALL: [Self; 19] = [
        Self::AckFirst,
        Self::NoSync,
        Self::ForgetReceived,
        Self::ForgetReleased,
        Self::ForgetSubscriptions,
        Self::KeepAcknowledged,
        Self::ForgetRetained,
        Self::UnreadRetained,
        Self::ForgetWills,
        Self::HurryWills,
        Self::LateWills,
        Self::ForgetExpiry,
        Self::LateExpiry,
        Self::ForgetOwed,
        Self::ForgetGroups,
        Self::TornUnits,
        Self::ForgetLesserMembers,
        Self::KeepOnce,
        Self::LoseDelayedWills,
    ];

    /// What becomes of a change on its way to the store.
    fn spoil(self, mut op: Op) -> Op {
        if let Op::Session(_, record) = &mut op {
            match (self, &mut record.will) {
                (Self::ForgetWills, will) => *will = None,
                (Self::HurryWills, Some(will)) => {
                    will.delay = 0;
                    will.due = None;
                }
                (Self::LateWills, Some(will)) => delay(&mut will.due),
                _ => {}
            }
        }
        let expires_at = match &mut op {
            Op::Body(_, _, expires_at) | Op::Retained(_, expires_at, _) => Some(expires_at),
            Op::Queued(_, _, entry) => {
                if self == Self::ForgetGroups {
                    entry.group = None;
                }
                Some(&mut entry.expires_at)
            }
            _ => None,
        };
        match (self, expires_at) {
            (Self::ForgetExpiry, Some(expires_at)) => *expires_at = None,
            (Self::LateExpiry, Some(expires_at)) => delay(expires_at),
            _ => {}
        }
        op
    }

    /// Whether this change is kept from the store. `once`: the QoS 1 messages that were queued.
    fn drops(self, op: &Op, once: &mut BTreeSet<(u64, u64)>) -> bool {
        match self {
            Self::AckFirst
            | Self::NoSync
            | Self::UnreadRetained
            | Self::ForgetWills
            | Self::HurryWills
            | Self::LateWills
            | Self::ForgetExpiry
            | Self::LateExpiry
            | Self::ForgetGroups
            | Self::TornUnits
            | Self::LoseDelayedWills => false,
            Self::ForgetLesserMembers => match op {
                Op::Queued(_, _, entry) => entry.group.is_some() && !op.wants_sync(false),
                _ => false,
            },
            Self::KeepOnce => match op {
                Op::Queued(session, key, entry) => {
                    if entry.qos == QoS::AtLeastOnce {
                        once.insert((*session, *key));
                    }
                    false
                }
                Op::Dequeued(session, key, _) => once.contains(&(*session, *key)),
                _ => false,
            },
            Self::ForgetReceived => matches!(op, Op::Received(..)),
            Self::ForgetReleased => matches!(op, Op::Released(..)),
            Self::ForgetSubscriptions => matches!(op, Op::Subscribed(..)),
            Self::KeepAcknowledged => matches!(op, Op::Dequeued(..)),
            Self::ForgetOwed => matches!(op, Op::Owes(_, _, true)),
            Self::ForgetRetained => matches!(op, Op::Retained(..)),
        }
    }
}

/// By half a minute.
fn delay(time: &mut Option<WallTime>) {
    if let Some(WallTime(millis)) = time {
        *millis += 30_000;
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    /// How many of the next commits fail, and whether they were made all the same.
    pub(super) commits: usize,
    pub(super) kept: bool,
    /// How many of the next attempts to open fail.
    pub(super) opens: usize,
    /// How many of the next reads fail.
    pub(super) reads: usize,
    /// Commits fail from the next on that follows one by which a subscription is to get what is retained.
    pub(super) after_owed: bool,
    /// The next commit is torn, where that is planted.
    pub(super) tears: bool,
    /// Nothing fails any more.
    pub(super) calm: bool,
}

/// Outlives brokers.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) store: MemoryStore,
    faults: Mutex<Faults>,
    /// QoS 1 messages that were queued, where a plant asks for it.
    once: Mutex<BTreeSet<(u64, u64)>>,
    plant: Option<Plant>,
}

impl Disk {
    pub(super) fn new(plant: Option<Plant>) -> Arc<Self> {
        Arc::new(Self {
            store: MemoryStore::with_power_cuts(),
            faults: Mutex::default(),
            once: Mutex::default(),
            plant,
        })
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    /// Lets the next commit be torn, where that is planted; false where it is not.
    pub(super) fn tears(&self) -> bool {
        let planted = self.plant == Some(Plant::TornUnits);
        self.faults().tears = planted;
        planted
    }

    pub(super) fn open(self: &Arc<Self>) -> Open {
        let disk = Arc::clone(self);
        Box::new(move || {
            if take(&mut disk.faults().opens) {
                return Err("the disk is not there".into());
            }
            Ok(Box::new(Simulated {
                engine: Box::new(disk.store.open()?),
                disk: Arc::clone(&disk),
                held: Vec::new(),
            }))
        })
    }
}

fn take(count: &mut usize) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

#[derive(Debug)]
struct Simulated {
    engine: Box<dyn Engine>,
    disk: Arc<Disk>,
    /// What counts as committed and is not.
    held: Vec<Op>,
}

impl Simulated {
    fn commit_planted(
        &mut self,
        plant: Plant,
        ops: &[Op],
        at: WallTime,
        durability: Durability,
    ) -> Result<usize, EngineError> {
        match plant {
            Plant::AckFirst => {
                let before = core::mem::replace(&mut self.held, ops.to_vec());
                self.engine.commit(&before, at, durability)
            }
            Plant::NoSync => self.engine.commit(ops, at, Durability::Os),
            Plant::TornUnits => {
                let (first, second) = ops.split_at(ops.len() / 2);
                self.engine.commit(first, at, durability)?;
                if core::mem::take(&mut self.disk.faults().tears) {
                    return Err("the power fails within a commit".into());
                }
                self.engine.commit(second, at, durability)
            }
            _ => {
                let once = &mut *self.disk.once.lock().unwrap();
                let kept: Vec<Op> = ops
                    .iter()
                    .filter(|op| !plant.drops(op, once))
                    .map(|op| plant.spoil(op.clone()))
                    .collect();
                self.engine.commit(&kept, at, durability)
            }
        }
    }
}

impl Engine for Simulated {
    fn last_commit_at(&self) -> Option<WallTime> {
        self.engine.last_commit_at()
    }

    fn load(&mut self, clock: Clock, window: usize) -> Result<Contents, EngineError> {
        let mut contents = self.engine.load(clock, window)?;
        if self.disk.plant == Some(Plant::UnreadRetained) {
            contents.retained.clear();
        }
        if self.disk.plant == Some(Plant::LoseDelayedWills) && !self.disk.faults().calm {
            for session in &mut contents.sessions {
                session.record.will.take_if(|will| will.delay > 0);
            }
        }
        Ok(contents)
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(SimulatedReader {
            reader: self.engine.reader(),
            disk: Arc::clone(&self.disk),
        })
    }

    fn commit(
        &mut self,
        ops: &[Op],
        at: WallTime,
        durability: Durability,
    ) -> Result<usize, EngineError> {
        let (fails, kept) = {
            let mut faults = self.disk.faults();
            let fails = (take(&mut faults.commits), faults.kept);
            if faults.after_owed && ops.iter().any(|op| matches!(op, Op::Owes(_, _, true))) {
                (faults.after_owed, faults.commits, faults.kept) = (false, 3, false);
            }
            fails
        };
        let mut records = 0;
        if !fails || kept {
            records = match self.disk.plant {
                Some(plant) => self.commit_planted(plant, ops, at, durability)?,
                None => self.engine.commit(ops, at, durability)?,
            };
        }
        if fails {
            return Err("the disk fails".into());
        }
        Ok(records)
    }
}

#[derive(Debug)]
struct SimulatedReader {
    reader: Box<dyn Reader>,
    disk: Arc<Disk>,
}

impl Reader for SimulatedReader {
    fn read(&self, range: &Span, clock: Clock) -> Result<Portion, EngineError> {
        if take(&mut self.disk.faults().reads) {
            return Err("the disk cannot be read".into());
        }
        self.reader.read(range, clock)
    }
}
