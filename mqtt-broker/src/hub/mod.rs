//! What all connections share: routes, sessions without connection, retained messages, counters.

mod backlog;
mod bounds;
mod cache;
mod deadlines;
mod endings;
mod grants;
mod group;
mod members;
mod memory;
mod presence;
mod publish;
mod pulls;
mod recovery;
mod registry;
mod retained;
mod routes;
mod runs;
mod staging;
mod state;
mod stored;
mod subscriptions;
mod withdrawn;
mod worker;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mqtt_codec::TopicFilter;
use mqtt_router::Subscription;
use mqtt_session::{Outgoing, Time};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::amount::Amount;
use crate::auth::{Access, Denial, Owner};
use crate::client::{Client, Kick, Link};
use crate::config::{Config, Durability};
use crate::counters::{Counters, DropReason};
use crate::delivery::Delivery;
use crate::gate::Gate;
use crate::hub::deadlines::Deadlines;
use crate::hub::endings::Endings;
use crate::hub::memory::Pressure;
use crate::hub::presence::Presence;
use crate::hub::registry::Registry;
use crate::hub::retained::Retained;
use crate::hub::routes::Routes;
use crate::policy::Peer;
use crate::shown::Shown;
use crate::store::{Op, Room, SessionRecord, Store, Ticket, WallTime};
use crate::will::StoredWill;

pub(crate) use crate::hub::backlog::cost;
pub(crate) use crate::hub::bounds::Bounds;
pub(crate) use crate::hub::group::Group;
pub use crate::hub::memory::MemoryGauge;
pub(crate) use crate::hub::publish::{Answer, Batch, Inbound, Outcome, Publisher, packet_limit};
pub(crate) use crate::hub::pulls::Pull;
pub(crate) use crate::hub::registry::NotYours;
pub(crate) use crate::hub::retained::RetainedCursor;
pub(crate) use crate::hub::state::SessionState;
pub(crate) use crate::hub::stored::queued;
pub(crate) use crate::hub::worker::{is_busy, waits, with_worker};

/// The middle of a broker. Nothing in it awaits a socket.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Tells the brokers of one process apart.
    number: usize,
    /// As the broker was started.
    pub(crate) config: Config,
    /// What holds for connections that come now.
    pub(crate) limits: ArcSwap<Config>,
    /// How much may wait for each session now.
    pub(crate) bounds: Bounds,
    pub(crate) counters: Arc<Counters>,
    pub(crate) retained: Retained,
    /// What outlives the process; none in memory.
    pub(crate) store: Option<Store>,
    routes: Routes,
    registry: Registry,
    deadlines: Deadlines,
    endings: Endings,
    pub(crate) presence: Presence,
    pub(crate) gate: Arc<Gate>,
    pub(crate) pressure: Pressure,
    closing: AtomicBool,
    closed: Notify,
    /// Other limits hold.
    reconfigured: Notify,
    origin: Instant,
}

/// What becomes of a session when its connection ends.
#[derive(Debug)]
pub(crate) struct Stay {
    /// Seconds that the session outlives the connection; `u32::MAX`: it never ends by itself.
    pub(crate) expiry_interval: u32,
    /// The will, unless the client took it back.
    pub(crate) will: Option<StoredWill>,
}

impl Stay {
    /// Of a session that has no connection.
    fn offline(state: &SessionState) -> Self {
        Self {
            expiry_interval: state.expiry_interval,
            will: None,
        }
    }
}

impl Hub {
    pub(crate) fn new(config: Config, counters: Arc<Counters>, store: Option<Store>) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let routes = Routes::new();
        if config.auth.policies().restricts() {
            routes.permissions_changed();
        }
        Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            limits: ArcSwap::from_pointee(config.clone()),
            bounds: Bounds::new(&config),
            config,
            counters,
            retained: Retained::default(),
            store,
            routes,
            registry: Registry::new(),
            deadlines: Deadlines::default(),
            endings: Endings::default(),
            presence: Presence::default(),
            gate: Arc::default(),
            pressure: Pressure::default(),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            reconfigured: Notify::new(),
            origin: Instant::now(),
        }
    }

    /// Time since the broker started.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// The instant of `time`, for the runtime's timer.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.origin + time.saturating_since(Time::ZERO)
    }

    /// The wall clock at a time of this broker, for the store.
    pub(crate) fn wall(&self, time: Option<Time>) -> Option<WallTime> {
        let store = self.store.as_ref()?;
        Some(store.clock().wall(time?))
    }

    /// A time of the wall clock, as a time of this broker.
    fn time(&self, wall: WallTime) -> Option<Time> {
        Some(self.store.as_ref()?.clock().time(wall))
    }

    /// Takes the session of `id` for a new connection, or makes one; tells whether it was there. `access`: who
    /// its client is; none where nobody was asked.
    ///
    /// The connection that has it now is told to end first. A session that was there goes on as it was until the caller
    /// calls [`Hub::resume`], or gives it back with [`Hub::put_back`]; any other is given back with [`Hub::detach`]. A
    /// session that is stored is there, and one that was discarded is gone, on the disk
    /// before this returns. A new one has this durability for good.
    pub(crate) async fn attach(
        &self,
        id: &Arc<str>,
        clean_start: bool,
        stay: &Stay,
        access: Option<Access>,
        durability: Durability,
    ) -> Result<(Box<SessionState>, bool), NotYours> {
        let owner = access
            .as_ref()
            .map_or(Owner::Anybody, |it| it.owner.clone());
        let mut found = self.registry.claim(id, &owner, self.now()).await?;
        if let Some(state) = &mut found {
            if let Some(deadline) = state.deadline() {
                self.deadlines.remove(deadline, id);
            }
            // What was due is done, though its turn did not come before the client did.
            self.publish_due_will(state, self.now());
        }
        Ok(match found {
            Some(mut state) if !clean_start && !state.is_over(self.now()) => {
                if state.owner == Owner::Anybody {
                    state.owner = owner;
                }
                self.grant(&state.client, state.owner.clone(), access);
                self.check_resumed(&mut state);
                (state, true)
            }
            old => {
                let discarded = old.and_then(|old| {
                    if old.is_over(self.now()) {
                        self.note_expired(&old.client);
                    }
                    self.end_session(*old)
                });
                let stored = self.store.as_ref().filter(|_| stay.expiry_interval > 0);
                let stored = stored.and_then(|store| store.new_session(durability));
                let client = self.routes.add_client(Arc::clone(id), stored);
                self.grant(&client, owner.clone(), access);
                let mut state = SessionState::new(client, owner);
                state.permissions = self.permissions();
                let created = self.store_session(&state, stay);
                if let (Some(store), Some(ticket)) = (&self.store, created.or(discarded)) {
                    store.durable(ticket).await;
                }
                (Box::new(state), false)
            }
        })
    }

    /// The client of a session that was there is let in: neither the end of the session nor its will comes, though it
    /// was due meanwhile ([MQTT-3.1.3-9]).
    pub(crate) fn resume(&self, state: &mut SessionState, stay: &Stay) {
        state.will = None;
        state.expires_at = None;
        state.told = None;
        self.store_session(state, stay);
    }

    /// The client of a session that was there is not let in: the session goes on without a connection, its will and
    /// its end due when they were before.
    pub(crate) fn put_back(&self, state: Box<SessionState>) {
        let id = Arc::clone(&state.client.id);
        self.park(&id, state);
    }

    /// Resolves when somebody else wants the session that the caller has attached.
    pub(crate) fn wanted(&self, id: &str) -> Arc<Notify> {
        self.registry.watch(id)
    }

    /// Tells the store what is known of a session now, if it is stored.
    pub(crate) fn store_session(&self, state: &SessionState, stay: &Stay) -> Option<Ticket> {
        self.submit(vec![self.session_change(state, stay)?])
    }

    fn session_change(&self, state: &SessionState, stay: &Stay) -> Option<Op> {
        let number = state.client.stored()?;
        let pending = state.will.as_ref();
        let will = pending.map_or(
            stay.will.as_ref().map(|will| (will, None)),
            |(will, due)| Some((will, Some(*due))),
        );
        let record = SessionRecord {
            client_id: Arc::clone(&state.client.id),
            owner: state.owner.clone(),
            expiry_interval: stay.expiry_interval,
            expires_at: self.wall(state.expires_at),
            will: will.and_then(|(will, due)| will.record(self.wall(due))),
        };
        Some(Op::Session(number, Box::new(record)))
    }

    /// Opens the link of a session that was attached: from now on it receives, and may be taken over.
    pub(crate) fn open_link(&self, client: &Arc<Client>, link: Link) {
        client.outbox().kick = None;
        let lost = client.set_link(link);
        debug_assert_eq!(lost, 0, "only a link that closes loses packets");
        self.registry.install(client);
        if self.closing.load(Ordering::SeqCst) {
            client.kick(Kick::ShuttingDown);
        }
    }

    /// Takes a session back from a connection that has ended.
    pub(crate) fn detach(&self, mut state: Box<SessionState>, stay: Stay) {
        let now = self.now();
        let Stay {
            expiry_interval,
            will,
        } = stay;
        let id = Arc::clone(&state.client.id);
        if expiry_interval == 0 {
            state.will = will.map(|will| (will, now));
            self.end_session(*state);
            self.registry.release(&id, None, |_| {});
            return;
        }
        let lost = state.client.set_link(Link::Offline);
        state.client.forget_token();
        self.count_drop(Some(&state.client), DropReason::Offline, lost);
        self.return_unsent(&mut state);
        self.give_back_to_disk(&mut state);
        state.expiry_interval = expiry_interval;
        state.expires_at = (expiry_interval != u32::MAX)
            .then(|| now + Duration::from_secs(expiry_interval.into()));
        state.will = will.map(|will| {
            let due = now + Duration::from_secs(will.delay().into());
            (will, due)
        });
        if !self.publish_due_will(&mut state, now) {
            self.store_session(&state, &Stay::offline(&state));
        }
        self.park(&id, state);
    }

    /// Gives a session without connection to the registry and arranges for its next deadline.
    fn park(&self, id: &Arc<str>, state: Box<SessionState>) {
        self.registry.release(id, Some(state), |state| {
            if let Some(deadline) = state.deadline() {
                self.deadlines.add(deadline, id);
            }
        });
    }

    /// Publishes the will of a session without connection, if its delay has passed; returns whether it did, and
    /// told the store of the session.
    fn publish_due_will(&self, state: &mut SessionState, now: Time) -> bool {
        let Some((will, _)) = state.will.take_if(|(_, due)| *due <= now) else {
            return false;
        };
        let change = self.session_change(state, &Stay::offline(state));
        self.publish_will(&will, &state.client, true, Vec::from_iter(change));
        true
    }

    /// A session has outlived its connection for as long as it may.
    fn note_expired(&self, client: &Client) {
        self.counters.count_session_expired();
        tracing::info!(client_id = %Shown(client.name()), "session expired");
    }

    /// Ends a session: its subscriptions go, its will is published, what waited for it is dropped. Returns what
    /// its end waits for to be durable, if it was stored.
    fn end_session(&self, state: SessionState) -> Option<Ticket> {
        let SessionState {
            client,
            session,
            subscriptions,
            mut stored,
            will,
            withdrawn,
            ..
        } = state;
        for filter in subscriptions.iter() {
            if let Ok(filter) = TopicFilter::new(filter) {
                self.routes.unsubscribe(&client, filter);
            }
        }
        let (frames, mut waiting) = client.end();
        self.count_drop(Some(&client), DropReason::SessionEnded, frames);
        let (on_disk, shared) = client.on_disk();
        let ends_later = client.stored().filter(|_| shared > 0);
        let mut in_memory = Vec::new();
        if let (Some(_), Some(session), Some(stored)) = (ends_later, &session, &mut stored) {
            let in_flight = session.in_flight().filter_map(|one| one.handle);
            let all = in_flight.chain(session.queued()).chain(&waiting);
            for delivery in all {
                stored.note(delivery);
                in_memory.push(stored.remove(delivery.key));
            }
        }
        let mut lost = if ends_later.is_some() {
            0
        } else {
            on_disk.messages
        };
        if let Some(session) = session {
            let held = session.queue_len() + session.in_flight_len();
            let undelivered = session.into_undelivered();
            lost += held - total(&undelivered).messages;
            waiting.splice(..0, undelivered);
        }
        let left = self.return_to_groups(&client, true, waiting);
        lost += total(&left).messages;
        self.count_drop(Some(&client), DropReason::SessionEnded, lost as u64);
        let changes = match ends_later {
            Some(number) => {
                let taken = withdrawn.into_iter().flat_map(|it| it.filters);
                in_memory.extend(taken.map(|text| Op::Unsubscribed(number, text)));
                endings::changes(number, &subscriptions, in_memory)
            }
            None => client.stored().map(Op::SessionEnded).into_iter().collect(),
        };
        let ticket = match will {
            Some((will, _)) => self.publish_will(&will, &client, false, changes),
            None => self.submit(changes),
        };
        if ends_later.is_some() {
            self.endings.add(client);
        } else {
            self.routes.remove_client(client.key);
        }
        ticket
    }

    /// Tells the store of changes, if there are any.
    fn submit(&self, mut changes: Vec<Op>) -> Option<Ticket> {
        let store = self.store.as_ref().filter(|_| !changes.is_empty())?;
        Some(store.submit(&mut changes))
    }

    /// Gives what was chosen for this member of shared groups, and never sent to it, to other members.
    fn return_unsent(&self, state: &mut SessionState) {
        let mut unsent = state.session.as_mut().map_or_else(Vec::new, |session| {
            session.take_queued(|delivery| delivery.group.is_some())
        });
        let before = total(&unsent);
        unsent.extend(state.client.outbox().take_group_deliveries());
        if unsent.is_empty() {
            return;
        }
        let all = total(&unsent);
        if let Some(stored) = &mut state.stored {
            unsent.iter().for_each(|delivery| stored.forget(delivery));
        }
        let kept = self.return_to_groups(&state.client, false, unsent);
        debug_assert!(
            before.bytes <= all.bytes,
            "the outbox adds to what the session had"
        );
        state.client.queue_changes(all, total(&kept));
        if let Some(session) = &mut state.session {
            for delivery in kept {
                if let Some(stored) = &mut state.stored {
                    stored.note(&delivery);
                }
                session.push(delivery);
            }
        }
    }

    /// Offers messages to other members of the groups that they were chosen by; returns the rest.
    /// `may_wait`: members that are not connected may keep them.
    fn return_to_groups(
        &self,
        from: &Client,
        may_wait: bool,
        deliveries: Vec<Delivery>,
    ) -> Vec<Delivery> {
        if deliveries.is_empty() {
            return deliveries;
        }
        let now = self.now();
        let offer =
            |batch: &mut Batch| batch.return_to_groups(self, now, from, may_wait, deliveries);
        self.with_batch(offer).0
    }

    /// Counts messages that did not reach `client`, or nobody in particular.
    pub(crate) fn count_drop(&self, client: Option<&Client>, reason: DropReason, messages: u64) {
        self.counters.count_drop(reason, messages);
        if messages > 0
            && reason.is_limit()
            && self
                .counters
                .may_log(reason, self.origin.elapsed().as_secs())
        {
            let client_id = client.map(|client| Shown(client.name()).to_string());
            let so_far = self.counters.dropped(reason);
            tracing::warn!(client_id, %reason, so_far, "messages dropped");
        }
        if let Some(client) = client {
            client.count_drop(reason, messages);
        }
    }

    /// Lets other limits hold for those who come, and other bans for everybody.
    pub(crate) fn reconfigure(&self, config: Config) {
        let bans_changed = self.limits.load().bans != config.bans;
        self.bounds.set(&config);
        if let Some(store) = &self.store {
            store.set_room(Room::of(&config));
        }
        self.limits.store(Arc::new(config));
        self.reconfigured.notify_one();
        if bans_changed {
            self.look_again();
        }
    }

    /// Lets every connection ask again whether it may stay.
    pub(crate) fn look_again(&self) {
        self.gate.bans.rules_have_changed();
        for client in self.routes.clients() {
            client.wake();
        }
    }

    /// Takes note that a client has failed to get in, which may ban its address.
    pub(crate) fn note_failure(&self, peer: &Peer) {
        let limits = self.limits.load();
        if self.gate.bans.note_failure(peer.ip(), &limits.bans) {
            self.counters.count_ban();
            let seconds = limits.bans.duration.as_secs();
            tracing::warn!(%peer, seconds, "address banned: it has failed too often");
        }
    }

    /// The session of a client identifier, connected or not.
    pub(crate) fn client(&self, id: &str) -> Option<Arc<Client>> {
        self.registry.client(id)
    }

    /// Lends a batch to what does not come from a read. Returns as well what the changes of the batch wait for.
    fn with_batch<T>(&self, use_it: impl FnOnce(&mut Batch) -> T) -> (T, Option<Ticket>) {
        with_worker(|_, batch| {
            batch.begin(self);
            let result = use_it(batch);
            (result, batch.end(self, &[]))
        })
    }

    /// Publishes a will; `lasts`: its session goes on. That it is not to be published again is in `changes`, and one unit with that. Returns what
    /// the unit waits for to be durable, if anything of it is stored.
    fn publish_will(
        &self,
        will: &StoredWill,
        client: &Arc<Client>,
        lasts: bool,
        mut changes: Vec<Op>,
    ) -> Option<Ticket> {
        let Some((topic, publish)) = will.publish() else {
            return self.submit(changes);
        };
        if self.permissions() != 0 && !client.may_publish(topic, publish.qos, publish.retain) {
            self.counters.count_denial(Denial::Will);
            tracing::warn!(client_id = %Shown(client.name()), topic = %Shown(topic.as_str()), "will denied");
            return self.submit(changes);
        }
        let publisher = Publisher {
            client: lasts.then_some(&**client),
            version: will.version(),
        };
        let inbound = Inbound {
            publish: &publish,
            topic,
            frame: None,
        };
        let (_, ticket) = self.with_batch(|batch| {
            batch.publish(self, self.now(), publisher, &inbound, &[]);
            batch.ops.append(&mut changes);
        });
        ticket
    }

    /// Adds or replaces a subscription; returns whether it is new, or `None` if the session has as many as
    /// it may. What the store is to know is added to `ops`.
    pub(crate) fn subscribe(
        &self,
        state: &mut SessionState,
        filter: TopicFilter<'_>,
        subscription: Subscription,
        ops: &mut Vec<Op>,
    ) -> Option<bool> {
        let limits = self.limits.load();
        let fits = state.subscriptions.insert(
            filter.as_str(),
            limits.subscription_bytes,
            limits.subscriptions,
        );
        if !fits {
            return None;
        }
        if let Some(number) = state.client.stored() {
            ops.push(Op::Subscribed(number, filter.as_str().into(), subscription));
        }
        Some(self.routes.subscribe(&state.client, filter, subscription))
    }

    /// Removes a subscription; returns whether there was one.
    pub(crate) fn unsubscribe(
        &self,
        state: &mut SessionState,
        filter: TopicFilter<'_>,
        ops: &mut Vec<Op>,
    ) -> bool {
        if let Some(number) = state.client.stored() {
            ops.push(Op::Unsubscribed(number, filter.as_str().into()));
        }
        state.subscriptions.remove(filter.as_str());
        if state.pulls.stop(filter.as_str())
            && let Some(number) = state.client.stored()
        {
            ops.push(Op::Owes(number, filter.as_str().into(), false));
        }
        self.routes.unsubscribe(&state.client, filter)
    }

    /// Tells every connection to end, those included that come later.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.closed.notify_waiters();
        for client in self.routes.clients() {
            client.kick(Kick::ShuttingDown);
        }
    }

    /// Resolves when the broker closes.
    pub(crate) async fn closed(&self) {
        let closed = self.closed.notified();
        if !self.closing.load(Ordering::SeqCst) {
            closed.await;
        }
    }

    /// Removes expired retained messages from time to time. Never returns.
    pub(crate) async fn run_sweeps(&self) {
        loop {
            let pause = self.limits.load().retained_sweep_interval;
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                // Another interval may hold.
                () = self.reconfigured.notified() => continue,
            }
            let expired = self.retained.sweep(self.now());
            self.count_drop(None, DropReason::Expired, expired.len() as u64);
            if !expired.is_empty() {
                tracing::debug!(messages = expired.len(), "retained messages expired");
            }
            if let Some(store) = &self.store
                && !expired.is_empty()
            {
                let mut ops = expired.into_iter().map(Op::RetainedCleared).collect();
                store.submit(&mut ops);
            }
        }
    }

    /// Publishes delayed wills and ends expired sessions when their time comes. Never returns.
    pub(crate) async fn run_deadlines(&self) {
        loop {
            let (deadline, id) = self.deadlines.next(|time| self.instant(time)).await;
            let Some(mut state) = self.registry.take_due(&id, deadline) else {
                continue;
            };
            if state.expires_at.is_some_and(|end| end <= deadline) {
                self.note_expired(&state.client);
                self.end_session(*state);
                self.registry.release(&id, None, |_| {});
            } else {
                self.publish_due_will(&mut state, deadline);
                self.park(&id, state);
            }
            // Many may be due at once; connections have their turn in between.
            tokio::task::yield_now().await;
        }
    }
}

/// What messages cost together.
fn total(deliveries: &[Delivery]) -> Amount {
    Amount {
        messages: deliveries.iter().map(Outgoing::count).sum(),
        bytes: deliveries.iter().map(Outgoing::size).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Layout;

    const ONLINE: Link = Link::Online {
        layout: Layout::Properties,
        max_packet_size: u32::MAX,
        bundles: false,
    };

    async fn visit(hub: &Hub, id: &Arc<str>, expiry_interval: u32) -> bool {
        let stay = Stay {
            expiry_interval,
            will: None,
        };
        let attached = hub.attach(id, false, &stay, None, Durability::Disk).await;
        let (mut state, present) = attached.unwrap();
        if present {
            hub.resume(&mut state, &stay);
        }
        hub.open_link(&state.client, ONLINE);
        hub.detach(state, stay);
        present
    }

    /// However often a client comes and goes, its session has one deadline at most.
    #[tokio::test(start_paused = true)]
    async fn a_session_has_one_deadline() {
        let hub = Hub::new(Config::default(), Arc::default(), None);
        let id: Arc<str> = "client".into();
        for round in 0..100 {
            assert_eq!(visit(&hub, &id, 1_000).await, round > 0);
            assert_eq!(hub.deadlines.len(), 1);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        visit(&hub, &id, u32::MAX).await;
        assert_eq!(hub.deadlines.len(), 0);
        visit(&hub, &id, 0).await;
        assert_eq!(hub.deadlines.len(), 0);
        assert!(!visit(&hub, &id, 0).await);
    }

    /// A session whose time is over is over, whether its deadline has had its turn or not.
    #[tokio::test(start_paused = true)]
    async fn an_expired_session_is_not_resumed() {
        let hub = Hub::new(Config::default(), Arc::default(), None);
        let id: Arc<str> = "client".into();
        visit(&hub, &id, 10).await;
        // Nobody runs the deadlines here.
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(visit(&hub, &id, 10).await);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!visit(&hub, &id, 10).await);
    }
}
