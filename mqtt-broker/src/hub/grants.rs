//! What the owners of sessions may do: given when they come, and again when the configuration changes.

use std::sync::Arc;

use mqtt_codec::TopicFilter;

use crate::amount::Amount;
use crate::auth::{Access, AuthError, AuthPlan, Authority, Denial, Owner, Proven};
use crate::client::Client;
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::hub::state::SessionState;
use crate::hub::stored::Stored;
use crate::hub::withdrawn::Withdrawn;
use crate::hub::{Hub, total};
use crate::shown::Shown;
use crate::store::Op;

impl Hub {
    /// Which state of the permissions decisions must have been taken in to hold now; 0: everybody may do
    /// everything.
    #[inline]
    pub(crate) fn permissions(&self) -> u64 {
        self.routes.permissions()
    }

    /// Takes note of what a session's owner may do. `access`: who came for it; none: nobody was asked, or the
    /// session was read from the store.
    pub(crate) fn grant(&self, client: &Client, owner: Owner, access: Option<Access>) {
        let before = client.access.load_full();
        let known = access.map(|access| Access {
            owner: owner.clone(),
            ..access
        });
        loop {
            // What holds now may not be what the client was let in by.
            let policy = self.config.auth.policies();
            let now = policy.renewed(known.as_ref(), &owner, &client.shared_name());
            let restricts = now.as_ref().is_some_and(Access::is_restricted);
            let changed = before.as_ref().map(|access| &access.rules)
                != now.as_ref().map(|access| &access.rules);
            client.access.store(now.map(Arc::new));
            // What was decided before is in the routes: for another token of the same user it does not hold.
            let is_known = changed && before.is_some();
            if is_known || (restricts && self.permissions() == 0) {
                self.routes.permissions_changed();
            }
            if Arc::ptr_eq(&policy, &self.config.auth.policies()) {
                return;
            }
        }
    }

    /// Reads the configuration of authentication and permissions anew, and applies it to everybody.
    pub(crate) fn reload_auth(&self, plan: &AuthPlan) -> Result<(), AuthError> {
        self.config.auth.reload(plan)?;
        self.auth_has_changed();
        Ok(())
    }

    /// Lets a configuration of authentication and permissions hold that was read already, and applies it to everybody.
    pub(crate) fn replace_auth(&self, authority: &Authority) {
        self.config.auth.replace(authority);
        self.auth_has_changed();
    }

    fn auth_has_changed(&self) {
        let policy = self.config.auth.policies();
        for client in self.routes.clients() {
            client.access.rcu(|old| {
                let owner = old.as_ref().map_or(Owner::Anybody, |old| old.owner.clone());
                policy
                    .renewed(old.as_deref(), &owner, &client.shared_name())
                    .map(Arc::new)
            });
        }
        if policy.restricts() || self.permissions() != 0 {
            self.routes.permissions_changed();
        }
        self.look_again();
    }

    /// A client has shown again who it is; false: it is somebody else, and nothing changes.
    pub(crate) fn proved_again(&self, client: &Client, owner: &Owner, proven: &Proven) -> bool {
        let access = client.access.load_full();
        let Some(old) = access.filter(|old| old.owner == *owner) else {
            return false;
        };
        client.access.store(Some(Arc::new(old.with_entry(proven))));
        true
    }

    /// Takes subscriptions from a session that is resumed, which its owner may not have any more, and what waits for
    /// it by them alone. Of messages that are on the disk the store knows by which they came: it is told of their
    /// end when all of these were read.
    pub(crate) fn take_subscriptions(&self, state: &mut SessionState, filters: &[&str]) {
        if filters.is_empty() {
            return;
        }
        let client = Arc::clone(&state.client);
        let withdrawn = Withdrawn::new(filters, &state.subscriptions, client.next_key());
        let denied = take_queued(state, |delivery| withdrawn.covers_delivery(delivery));
        let mut ops = Vec::new();
        for text in filters {
            self.take_subscription(state, text, &mut ops);
        }
        self.discard_denied(&client, denied, state.stored.as_deref_mut(), &mut ops);
        if client.on_disk().0.messages > 0 {
            ops.retain(|op| !matches!(op, Op::Unsubscribed(..)));
            state.withdrawn.push_back(withdrawn);
        }
        self.submit(ops);
    }

    /// Tells the store that subscriptions have ended which were taken from a session, unless they were made again: what
    /// had come by them before has been read.
    pub(crate) fn forget_withdrawn(&self, state: &mut SessionState, ops: &mut Vec<Op>) {
        let Some(number) = state.client.stored() else {
            return;
        };
        let withdrawn = core::mem::take(&mut state.withdrawn);
        let filters = withdrawn.into_iter().flat_map(|it| it.filters);
        let gone = filters.filter(|text| !state.subscriptions.contains(text));
        ops.extend(gone.map(|text| Op::Unsubscribed(number, text)));
    }

    fn take_subscription(&self, state: &mut SessionState, text: &str, ops: &mut Vec<Op>) {
        let Ok(filter) = TopicFilter::new(text) else {
            return;
        };
        self.unsubscribe(state, filter, ops);
        self.counters.count_denial(Denial::Subscribe);
        tracing::warn!(
            client_id = %Shown(state.client.name()),
            filter = %Shown(text),
            "subscription of a resumed session denied"
        );
    }

    /// Takes from a session that is resumed what its owner may not have any more: subscriptions, and messages
    /// that waited.
    pub(crate) fn check_resumed(&self, state: &mut SessionState) {
        let permissions = self.permissions();
        if permissions == 0 || state.permissions == permissions {
            return;
        }
        state.permissions = permissions;
        let filters: Vec<Box<str>> = state.subscriptions.iter().map(Into::into).collect();
        let mut ops = Vec::new();
        for text in filters {
            let filter = TopicFilter::new(&text);
            if filter.is_ok_and(|filter| state.client.may_subscribe(filter).is_none()) {
                self.take_subscription(state, &text, &mut ops);
            }
        }
        let client = Arc::clone(&state.client);
        let denied = take_queued(state, |delivery| client.is_denied(delivery.whole_topic()));
        self.discard_denied(&client, denied, state.stored.as_deref_mut(), &mut ops);
        if let Some(store) = &self.store
            && !ops.is_empty()
        {
            store.submit(&mut ops);
        }
    }

    /// Counts and forgets messages that waited for a client which may not receive them any more; what a shared group
    /// had chosen it for goes to other members. What the store is to know is added to `ops`.
    pub(crate) fn discard_denied(
        &self,
        client: &Client,
        denied: Vec<Delivery>,
        stored: Option<&mut Stored>,
        ops: &mut Vec<Op>,
    ) {
        if denied.is_empty() {
            return;
        }
        if let Some(stored) = stored {
            denied.iter().for_each(|delivery| stored.forget(delivery));
        }
        let is_shared = |delivery: &Delivery| delivery.group.is_some();
        let (shared, mut lost): (Vec<_>, Vec<_>) = denied.into_iter().partition(is_shared);
        lost.extend(self.return_to_groups(client, true, shared));
        if let Some(number) = client.stored() {
            let gone = lost.iter();
            ops.extend(gone.map(|it| Op::Dequeued(number, it.key, it.body)));
        }
        let messages = total(&lost).messages as u64;
        self.count_drop(Some(client), DropReason::NotAuthorized, messages);
    }
}

/// Takes out of the queue of a session without connection what is denied.
fn take_queued(state: &mut SessionState, is_denied: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
    let client = &state.client;
    let mut denied = state
        .session
        .as_mut()
        .map_or_else(Vec::new, |session| session.take_queued(&is_denied));
    let mut outbox = client.outbox();
    denied.extend(
        outbox
            .deliveries
            .extract_if(.., |delivery| is_denied(delivery)),
    );
    drop(outbox);
    client.queue_changes(total(&denied), Amount::default());
    if let Some(session) = &state.session {
        client.set_waiting(session.queue_size());
    }
    denied
}
