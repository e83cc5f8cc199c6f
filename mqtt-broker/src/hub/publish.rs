//! The way of a message from its publisher to the outboxes of those who subscribed.

use core::num::NonZeroU32;
use core::ops::Range;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_codec::{ProtocolVersion, Publish, QoS, SubscriptionIdentifier, TopicName};
use mqtt_session::{Durability, Time};

use crate::client::{Client, ClientKey, Link};
use crate::config::Durability as KeptBy;
use crate::counters::DropReason;
use crate::delivery::{Content, Delivery};
use crate::hub::Hub;
use crate::hub::cache::RouteCache;
use crate::hub::group::Group;
use crate::hub::retained::RetainedMessage;
use crate::hub::routes::{Grant, Route};
use crate::hub::runs::Run;
use crate::hub::staging::Staging;
use crate::hub::stored::queued;
use crate::message::{Envelope, Layout, Message, Parts, forwarded_properties};
use crate::store::{BodyNumber, Op, Store, Ticket};

/// Payloads of at least this many bytes are shared by several receivers instead of copied for each.
const SHARED_PAYLOAD: usize = 8 * 1024;

/// Receivers that one batch serves, and nodes and subscriptions that it looks at, before others have their
/// turn: a few milliseconds.
const WORK: usize = 50_000;

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publisher<'c> {
    /// The session, for No Local; none where the session has ended.
    pub(crate) client: Option<&'c Client>,
    pub(crate) version: ProtocolVersion,
}

impl<'c> Publisher<'c> {
    /// One that is connected.
    pub(crate) fn of(client: &'c Client, version: ProtocolVersion) -> Self {
        let client = Some(client);
        Self { client, version }
    }

    fn key(self) -> Option<ClientKey> {
        self.client.map(|client| client.key)
    }
}

/// A PUBLISH as the session let it through.
#[derive(Clone, Debug)]
pub(crate) struct Inbound<'p> {
    pub(crate) publish: &'p Publish<'p>,
    /// The topic, an alias resolved.
    pub(crate) topic: TopicName<'p>,
    /// Where the packet stands in the batch's bytes, if a receiver could get it as it is.
    pub(crate) frame: Option<Range<usize>>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// At least one session took it, or it was sent at QoS 0.
    Taken,
    /// Nobody subscribed to its topic.
    NoSubscription,
    /// It was wanted, and no session had room for it.
    Refused,
}

impl Outcome {
    /// What needs no store.
    fn at_once(self) -> Answer {
        Answer {
            outcome: self,
            durability: Durability::Now,
        }
    }
}

/// What became of a message, and what its acknowledgement waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// [`Durability::Pending`]: until the batch is durable.
    pub(crate) durability: Durability,
}

/// What became of a message at one receiver. There is no way to lose one without saying why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was dropped must be counted"]
pub(crate) enum Fate {
    /// It is on its way, or waits in the session.
    Sent,
    /// It is lost for this receiver.
    Dropped(DropReason),
}

/// What one worker gathers while it handles the packets of one read.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The broker whose routes are cached.
    owner: usize,
    pub(crate) cache: RouteCache,
    pub(crate) staging: Staging,
    pub(crate) run: Option<Run>,
    /// Changes for the store, which must be there before the sessions get what is staged.
    pub(crate) ops: Vec<Op>,
    /// What the changes of this batch that were submitted wait for.
    ticket: Option<Ticket>,
    unmatched: u64,
    /// What was done since the batch began, in receivers, and in nodes and subscriptions looked at.
    work: usize,
    properties: Vec<u8>,
    /// The packet, or its head, that was encoded last.
    scratch: Vec<u8>,
}

/// A message on its way through one route.
pub(crate) struct Passage<'a> {
    pub(crate) parts: Parts<'a>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Remaining Message Expiry Interval, seconds.
    pub(crate) expiry: Option<u32>,
    expires_at: Option<Time>,
    /// The kept form, made when the first receiver needs it.
    message: Option<Arc<Message>>,
    /// Where the store has the body that several sessions share.
    body: Option<BodyNumber>,
    /// Whether the store took it.
    pub(crate) stored: bool,
    /// It was acknowledged before: it moves, and is not refused for want of space.
    is_ours: bool,
    payload: Option<Bytes>,
    /// For which layout, RETAIN flag and mount point, without identifiers, the batch's scratch holds the packet.
    encoded: Option<(Layout, bool, u16)>,
    receivers: usize,
    taken: bool,
    refused: bool,
    /// Its publisher subscribed to it with No Local.
    own_only: bool,
}

impl<'a> Passage<'a> {
    /// A message that was on its way to one receiver before.
    pub(crate) fn again(message: &'a Arc<Message>, retain: bool, now: Time) -> Self {
        Self {
            parts: message.parts(),
            qos: message.qos,
            retain,
            expiry: message.remaining(now),
            expires_at: message.expires_at,
            message: Some(Arc::clone(message)),
            // The entry that has it may go before another one is written.
            body: None,
            stored: false,
            is_ours: true,
            payload: None,
            encoded: None,
            receivers: 1,
            taken: false,
            refused: false,
            own_only: false,
        }
    }

    /// A message of QoS 0 on its way to one receiver; `expiry` is its interval in seconds.
    pub(crate) fn at_most_once(parts: Parts<'a>, expiry: Option<u32>, now: Time) -> Self {
        Self {
            parts,
            qos: QoS::AtMostOnce,
            retain: false,
            expiry,
            expires_at: expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
            message: None,
            body: None,
            stored: false,
            is_ours: false,
            payload: None,
            encoded: None,
            receivers: 1,
            taken: false,
            refused: false,
            own_only: false,
        }
    }

    /// Takes note of what became of the message at one receiver.
    fn note(&mut self, hub: &Hub, client: &Client, fate: Fate) {
        match fate {
            Fate::Sent => self.taken = true,
            Fate::Dropped(reason) => {
                hub.count_drop(Some(client), reason, 1);
                match reason {
                    DropReason::QueueFull | DropReason::DirectoryFull | DropReason::DiskFull => {
                        self.refused = true;
                    }
                    // As if there were no such subscription.
                    DropReason::NoLocal => self.own_only = true,
                    _ => self.taken = true,
                }
            }
        }
    }

    /// Where the store has the body, if several receivers may share it; tells the store of it first.
    fn stored_body(&mut self, store: &Store, ops: &mut Vec<Op>) -> Option<BodyNumber> {
        if self.receivers > 1 && self.body.is_none() {
            let number = store.new_body();
            let expires_at = self.expires_at.map(|time| store.clock().wall(time));
            ops.push(Op::Body(number, self.message(), expires_at));
            self.body = Some(number);
        }
        self.body
    }

    fn shared_payload(&mut self) -> Bytes {
        let parts = &self.parts;
        self.payload
            .get_or_insert_with(|| Bytes::copy_from_slice(parts.payload))
            .clone()
    }

    fn message(&mut self) -> Arc<Message> {
        let Self {
            parts,
            qos,
            expires_at,
            message,
            ..
        } = self;
        Arc::clone(message.get_or_insert_with(|| Arc::new(Message::new(*parts, *qos, *expires_at))))
    }
}

impl Batch {
    /// Begins a batch for `hub`; what another broker of this process left in the cache is forgotten, and
    /// what a batch left that a panic ended.
    pub(crate) fn begin(&mut self, hub: &Hub) {
        if self.owner != hub.number {
            self.owner = hub.number;
            self.cache.clear();
        }
        if !self.staging.is_empty() {
            self.staging.clear();
        }
        self.staging.drops_for_slow = hub.pressure.drops();
        self.run = None;
        self.ops.clear();
        self.ticket = None;
        self.work = 0;
    }

    /// Others have their turn, and this connection what it has to send, before the batch's next packet.
    pub(crate) fn rest(&mut self) {
        self.work += WORK;
    }

    /// Takes note of work done.
    pub(crate) fn work(&mut self, units: usize) {
        self.work += units;
    }

    /// Whether so much was done that others should have their turn before this goes on.
    pub(crate) fn is_spent(&self) -> bool {
        self.work >= WORK
    }

    /// Ends a batch: hands the store and each session its part and wakes those that sleep. `bytes` are those
    /// that the frames of [`Inbound`] point into. Returns what the changes of the batch wait for, if there
    /// are any.
    pub(crate) fn end(&mut self, hub: &Hub, bytes: &[u8]) -> Option<Ticket> {
        self.flush_run(hub, bytes);
        self.settle(hub);
        if self.unmatched > 0 {
            hub.counters
                .count_drop(DropReason::NoSubscription, self.unmatched);
            self.unmatched = 0;
        }
        self.ticket
    }

    /// Hands the store, and then the sessions, what was gathered for them.
    pub(crate) fn hand_over(&mut self, hub: &Hub) {
        if let Some(store) = &hub.store
            && !self.ops.is_empty()
        {
            self.ticket = Some(store.submit(&mut self.ops));
        }
        self.staging.flush(hub);
    }

    /// Hands on what was gathered, in the middle of a message. If the store takes it, its changes are one unit,
    /// which is not complete yet, and what waits for it stays: only QoS 0 packets go.
    pub(crate) fn relieve(&mut self, hub: &Hub, stored: bool) {
        if stored {
            self.staging.flush_packets(hub);
        } else {
            self.hand_over(hub);
        }
    }

    /// Sends a message to everybody who subscribed to its topic, and retains it if it asks for that.
    pub(crate) fn publish(
        &mut self,
        hub: &Hub,
        now: Time,
        publisher: Publisher<'_>,
        inbound: &Inbound<'_>,
        bytes: &[u8],
    ) -> Answer {
        let route = self.cache.route(&hub.routes, inbound.topic);
        self.work += 1 + self.cache.take_walked();
        let answer = self.publish_along(hub, now, publisher, inbound, &route, bytes);
        self.cache.put_back(route);
        answer
    }

    fn publish_along(
        &mut self,
        hub: &Hub,
        now: Time,
        publisher: Publisher<'_>,
        inbound: &Inbound<'_>,
        route: &Arc<Route>,
        bytes: &[u8],
    ) -> Answer {
        let publish = inbound.publish;
        let topic = inbound.topic;
        if !publish.retain
            && !publish.dup
            && publish.properties.message_expiry_interval.is_none()
            && route.is_plain()
            && let Some(frame) = &inbound.frame
            && self.extend_run(hub, publisher, route, inbound, frame.clone(), bytes)
        {
            return Outcome::Taken.at_once();
        }
        if route.is_empty() && !publish.retain {
            self.unmatched += 1;
            return Outcome::NoSubscription.at_once();
        }
        self.flush_run(hub, bytes);
        let mut properties = core::mem::take(&mut self.properties);
        let outcome = match forwarded_properties(publish, topic, &mut properties) {
            Ok(()) => {
                let parts = Parts {
                    topic: inbound.topic.as_str().as_bytes(),
                    properties: &properties,
                    payload: publish.payload,
                };
                self.pass(hub, now, publisher, inbound, parts, route)
            }
            // Cannot happen: properties that were decoded are no longer when they are encoded again.
            Err(_) => {
                hub.count_drop(None, DropReason::Unsendable, 1);
                Outcome::Refused.at_once()
            }
        };
        self.properties = properties;
        outcome
    }

    fn pass(
        &mut self,
        hub: &Hub,
        now: Time,
        publisher: Publisher<'_>,
        inbound: &Inbound<'_>,
        parts: Parts<'_>,
        route: &Route,
    ) -> Answer {
        let Inbound { publish, topic, .. } = *inbound;
        let expiry = publish.properties.message_expiry_interval;
        let mut passage = Passage {
            parts,
            qos: publish.qos,
            retain: publish.retain,
            expiry,
            expires_at: expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
            message: None,
            body: None,
            stored: false,
            is_ours: false,
            payload: None,
            encoded: None,
            receivers: route.len(),
            taken: false,
            refused: false,
            own_only: false,
        };
        self.work += passage.receivers;
        if publish.retain {
            self.retain(hub, now, publisher, topic, &mut passage);
        }
        for target in &route.targets {
            let fate = match target.grant_for(publisher.key()) {
                Ok(grant) => self.deliver(hub, &target.client, grant, None, &mut passage),
                Err(reason) => Fate::Dropped(reason),
            };
            passage.note(hub, &target.client, fate);
            if self.staging.is_full() {
                self.relieve(hub, passage.stored);
            }
        }
        for group in &route.groups {
            if self.deliver_to_member(hub, group, None, true, &mut passage) {
                passage.taken = true;
            } else if hub.permissions() != 0 && !group.may_receive(topic) {
                // As if there were no such subscription.
            } else {
                hub.count_drop(None, DropReason::NoMember, 1);
                passage.refused = true;
            }
        }
        let outcome = match (passage.taken, passage.refused) {
            (true, _) => Outcome::Taken,
            (false, true) => Outcome::Refused,
            (false, false) => {
                self.unmatched += u64::from(!publish.retain && !passage.own_only);
                Outcome::NoSubscription
            }
        };
        let durability = if passage.stored {
            Durability::Pending
        } else {
            Durability::Now
        };
        Answer {
            outcome,
            durability,
        }
    }

    /// Makes the message the retained one of its topic; an empty one ends what was retained.
    fn retain(
        &mut self,
        hub: &Hub,
        now: Time,
        publisher: Publisher<'_>,
        topic: TopicName<'_>,
        passage: &mut Passage<'_>,
    ) {
        let keeps = hub.store.is_some() && hub.config.durability != KeptBy::Memory;
        // What a broker before kept is no longer the last.
        let replaces = hub.store.is_some() && !keeps && hub.retained.is_stored(topic);
        let change = if passage.parts.payload.is_empty() {
            hub.retained.clear(topic);
            Op::RetainedCleared(topic.as_str().into())
        } else {
            let limits = hub.limits.load();
            let latest = limits.retained_expiry_maximum.map(|most| now + most);
            let message = match latest {
                Some(latest) if passage.expires_at.is_none_or(|end| end > latest) => {
                    Arc::new(Message::new(passage.parts, passage.qos, Some(latest)))
                }
                _ => passage.message(),
            };
            let expires_at = hub.wall(message.expires_at);
            let publisher = publisher.client.map(|client| Arc::clone(&client.id));
            let kept = RetainedMessage {
                message: Arc::clone(&message),
                publisher: publisher.clone(),
                stored: keeps,
            };
            let room = match hub.store.as_ref().filter(|_| keeps).and_then(Store::full) {
                Some(full) => {
                    // The one it had is no longer the last.
                    hub.retained.clear(topic);
                    Err(full.drop_reason())
                }
                None => hub.retained.set(topic, kept, &limits),
            };
            match room {
                Ok(()) => Op::Retained(message, expires_at, publisher),
                Err(reason) => {
                    hub.count_drop(None, reason, 1);
                    passage.refused = true;
                    Op::RetainedCleared(topic.as_str().into())
                }
            }
        };
        if keeps {
            self.ops.push(change);
            passage.stored = true;
        } else if replaces {
            self.ops.push(Op::RetainedCleared(topic.as_str().into()));
        }
    }

    /// Stages a message for one receiver.
    pub(crate) fn deliver(
        &mut self,
        hub: &Hub,
        client: &Arc<Client>,
        grant: &Grant,
        group: Option<&Arc<Group>>,
        passage: &mut Passage<'_>,
    ) -> Fate {
        let qos = passage.qos.min(grant.qos);
        let retain = passage.retain && grant.retain_as_published;
        let bounds = &hub.bounds;
        let link = self.staging.slot(client, bounds).link();
        if link == Link::Ended {
            return Fate::Dropped(DropReason::SessionEnded);
        }
        if qos != QoS::AtMostOnce {
            let mut delivery = Delivery {
                content: Content::One(passage.message()),
                qos,
                retain,
                mount: client.mount_len(),
                identifiers: grant.identifiers.clone(),
                group: group.map(Arc::downgrade),
                key: 0,
                body: None,
            };
            if let (Some(store), Some(_)) = (&hub.store, client.stored())
                && !passage.is_ours
                && let Some(full) = store.full()
            {
                return Fate::Dropped(full.drop_reason());
            }
            let Some(room) = self.staging.reserve(client, bounds, &delivery) else {
                return Fate::Dropped(DropReason::QueueFull);
            };
            if let (Some(store), Some(number)) = (&hub.store, client.stored()) {
                delivery.key = client.new_key();
                delivery.body = passage.stored_body(store, &mut self.ops);
                self.ops
                    .push(queued(store, number, &passage.message(), &delivery));
                passage.stored = true;
            }
            room.fill(delivery);
            return Fate::Sent;
        }
        let Link::Online {
            layout,
            max_packet_size,
            ..
        } = link
        else {
            return Fate::Dropped(DropReason::Offline);
        };
        let identifiers: &[SubscriptionIdentifier] =
            grant.identifiers.as_deref().unwrap_or_default();
        let envelope = Envelope::at_most_once(layout, retain, passage.expiry)
            .with_identifiers(identifiers)
            .behind(client.mount_len());
        let len = passage.parts.encoded_len(&envelope);
        if len > max_packet_size as usize {
            return Fate::Dropped(DropReason::TooLarge);
        }
        let parts = passage.parts;
        if passage.receivers == 1 {
            let expires_at = passage.expires_at;
            return self
                .staging
                .send(client, bounds, len, 1, expires_at, |frames| {
                    frames.extend_with(|out| parts.encode(&envelope, out));
                });
        }
        let shares = parts.payload.len() >= SHARED_PAYLOAD;
        let copied = len - if shares { parts.payload.len() } else { 0 };
        let scratch = &mut self.scratch;
        let expires_at = passage.expires_at;
        self.staging
            .send(client, bounds, copied, 1, expires_at, |frames| {
                // The same bytes for all who read the same, except where identifiers make them differ.
                let kind = identifiers
                    .is_empty()
                    .then_some((layout, retain, envelope.mount));
                if kind.is_none() || passage.encoded != kind {
                    scratch.clear();
                    if shares {
                        parts.encode_head(&envelope, scratch);
                    } else {
                        parts.encode(&envelope, scratch);
                    }
                    passage.encoded = kind;
                }
                if shares {
                    frames.extend_shared(scratch, passage.shared_payload());
                } else {
                    frames.extend(scratch);
                }
            })
    }
}

/// The largest packet that a link takes, from the Maximum Packet Size the peer announced.
pub(crate) fn packet_limit(announced: Option<NonZeroU32>) -> u32 {
    announced.map_or(u32::MAX, NonZeroU32::get)
}
