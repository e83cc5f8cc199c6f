//! Who owns which session: the task of its connection, or the registry while it has none.
//!
//! A claim takes a session out; a release puts it back or ends it. Whoever claims a session that a
//! connection owns waits in line while that connection is told to end.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core::hash::BuildHasher;

use foldhash::fast::RandomState;
use mqtt_session::Time;
use tokio::sync::{Notify, oneshot};

use crate::auth::Owner;
use crate::client::{Client, Kick};
use crate::hub::state::SessionState;

const SHARDS: usize = 16;

/// What a claim finds: the session, or that there is none.
type Handover = Option<Box<SessionState>>;

/// The session belongs to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotYours;

#[derive(Debug)]
enum Place {
    /// A task owns the session. `None` until the task says under which client it is known.
    Online(Option<Arc<Client>>),
    /// A task has claimed the session and asks others whether it may have it.
    Asking(Arc<Notify>),
    /// The registry owns it.
    Offline(Box<SessionState>),
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    place: Place,
    /// Claims that wait for the task to release the session, in order.
    line: VecDeque<oneshot::Sender<Handover>>,
}

type Shard = HashMap<Arc<str>, Entry, RandomState>;

/// All sessions by client identifier.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            shards: core::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
        }
    }

    fn shard(&self, id: &str) -> MutexGuard<'_, Shard> {
        let number = self.hasher.hash_one(id) as usize % SHARDS;
        self.shards[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the session of `id` for a new connection of `owner`; waits until the present one, and whoever
    /// claimed it before, has let it go. Whom it does not belong to disturbs nobody; one that ended by `now`
    /// belongs to nobody. The caller must answer with [`Registry::install`] or
    /// [`Registry::release`], and must not be dropped while it waits.
    pub(crate) async fn claim(
        &self,
        id: &Arc<str>,
        owner: &Owner,
        now: Time,
    ) -> Result<Handover, NotYours> {
        let waiting = {
            let mut shard = self.shard(id);
            match shard.entry(Arc::clone(id)) {
                MapEntry::Vacant(vacant) => {
                    vacant.insert(Entry {
                        owner: owner.clone(),
                        place: Place::Online(None),
                        line: VecDeque::new(),
                    });
                    return Ok(None);
                }
                MapEntry::Occupied(mut occupied) => {
                    let entry = occupied.get_mut();
                    let is_over = match &entry.place {
                        Place::Offline(state) => state.is_over(now),
                        Place::Online(_) | Place::Asking(_) => false,
                    };
                    if is_over || entry.owner == Owner::Anybody {
                        entry.owner = owner.clone();
                    }
                    if !entry.owner.admits(owner) {
                        return Err(NotYours);
                    }
                    match core::mem::replace(&mut entry.place, Place::Online(None)) {
                        Place::Offline(state) => return Ok(Some(state)),
                        Place::Online(client) => {
                            if let Some(client) = &client {
                                client.kick(Kick::TakenOver);
                            }
                            entry.place = Place::Online(client);
                        }
                        Place::Asking(wanted) => {
                            wanted.notify_one();
                            entry.place = Place::Asking(wanted);
                        }
                    }
                    let (sender, receiver) = oneshot::channel();
                    entry.line.push_back(sender);
                    receiver
                }
            }
        };
        // The sender is dropped unused only together with the registry.
        Ok(waiting.await.unwrap_or_default())
    }

    /// Makes the owner of a claimed session known, so that the next claim can tell it to end.
    pub(crate) fn install(&self, client: &Arc<Client>) {
        let mut shard = self.shard(&client.id);
        let Some(entry) = shard.get_mut(&client.id) else {
            return;
        };
        entry.place = Place::Online(Some(Arc::clone(client)));
        if !entry.line.is_empty() {
            client.kick(Kick::TakenOver);
        }
    }

    /// Tells the task that has claimed a session when somebody else claims it, until the next of [`Registry::install`]
    /// and [`Registry::release`].
    pub(crate) fn watch(&self, id: &str) -> Arc<Notify> {
        let wanted = Arc::new(Notify::new());
        if let Some(entry) = self.shard(id).get_mut(id) {
            if !entry.line.is_empty() {
                wanted.notify_one();
            }
            entry.place = Place::Asking(Arc::clone(&wanted));
        }
        wanted
    }

    /// Adds a session that nobody has. `kept` is called before anybody can claim it.
    pub(crate) fn insert(
        &self,
        id: &Arc<str>,
        state: Box<SessionState>,
        kept: impl FnOnce(&SessionState),
    ) {
        let mut shard = self.shard(id);
        kept(&state);
        let entry = Entry {
            owner: state.owner.clone(),
            place: Place::Offline(state),
            line: VecDeque::new(),
        };
        shard.insert(Arc::clone(id), entry);
    }

    /// Gives a claimed session back: to the next in line, or to the registry; `None` ends it. `kept` is
    /// called before anybody can claim a session that the registry keeps.
    pub(crate) fn release(&self, id: &str, mut state: Handover, kept: impl FnOnce(&SessionState)) {
        let mut shard = self.shard(id);
        let Some(entry) = shard.get_mut(id) else {
            return;
        };
        entry.place = Place::Online(None);
        while let Some(next) = entry.line.pop_front() {
            match next.send(state) {
                Ok(()) => return,
                Err(back) => state = back,
            }
        }
        match state {
            Some(state) => {
                kept(&state);
                entry.place = Place::Offline(state);
            }
            None => {
                shard.remove(id);
            }
        }
    }

    /// The session of `id`, wherever it is.
    pub(crate) fn client(&self, id: &str) -> Option<Arc<Client>> {
        match &self.shard(id).get(id)?.place {
            Place::Online(client) => client.clone(),
            Place::Asking(_) => None,
            Place::Offline(state) => Some(Arc::clone(&state.client)),
        }
    }

    /// Takes a session out that has no connection, if its deadline is the one given.
    pub(crate) fn take_due(&self, id: &str, deadline: Time) -> Handover {
        let mut shard = self.shard(id);
        let entry = shard.get_mut(id)?;
        match core::mem::replace(&mut entry.place, Place::Online(None)) {
            Place::Offline(state) if state.deadline() == Some(deadline) => Some(state),
            place => {
                entry.place = place;
                None
            }
        }
    }
}
