//! The way of a message from its publisher to the outboxes of those who subscribed.

use core::num::NonZeroU32;
use core::ops::Range;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use mqtt_codec::{
    FixedHeader, Packet, ProtocolVersion, Publish, QoS, SubscriptionIdentifier, TopicName,
};
use mqtt_session::Time;

use crate::client::{Client, ClientKey, Link};
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::hub::Hub;
use crate::hub::cache::RouteCache;
use crate::hub::group::Group;
use crate::hub::routes::{Grant, Route};
use crate::hub::staging::Staging;
use crate::message::{Envelope, Layout, Message, Parts, forwarded_properties};

/// Payloads of at least this many bytes are shared by several receivers instead of copied for each.
const SHARED_PAYLOAD: usize = 8 * 1024;

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publisher {
    /// The session, for No Local; none where the session has ended.
    pub(crate) key: Option<ClientKey>,
    pub(crate) version: ProtocolVersion,
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

/// What became of a message at one receiver. There is no way to lose one without saying why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was dropped must be counted"]
pub(crate) enum Fate {
    /// It is on its way, or waits in the session.
    Sent,
    /// It is lost for this receiver.
    Dropped(DropReason),
}

/// QoS 0 packets that follow each other in the batch's bytes and have the same route.
#[derive(Debug)]
struct Run {
    route: Arc<Route>,
    version: ProtocolVersion,
    bytes: Range<usize>,
    longest: usize,
    count: u64,
}

/// What one worker gathers while it handles the packets of one read.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The broker whose routes are cached.
    owner: usize,
    cache: RouteCache,
    staging: Staging,
    run: Option<Run>,
    unmatched: u64,
    properties: Vec<u8>,
    scratch: Vec<u8>,
}

/// A message on its way through one route.
struct Passage<'a> {
    parts: Parts<'a>,
    qos: QoS,
    retain: bool,
    /// Message Expiry Interval as received.
    expiry: Option<u32>,
    expires_at: Option<Time>,
    /// The kept form, made when the first receiver needs it.
    message: Option<Arc<Message>>,
    payload: Option<Bytes>,
    receivers: usize,
    taken: bool,
    refused: bool,
}

impl Passage<'_> {
    /// Takes note of what became of the message at one receiver.
    fn note(&mut self, hub: &Hub, client: &Client, fate: Fate) {
        match fate {
            Fate::Sent => self.taken = true,
            Fate::Dropped(reason) => {
                hub.count_drop(Some(client), reason, 1);
                self.refused |= reason == DropReason::QueueFull;
                self.taken |= reason != DropReason::QueueFull;
            }
        }
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
    /// Begins a batch for `hub`; what another broker of this process left in the cache is forgotten.
    pub(crate) fn begin(&mut self, hub: &Hub) {
        if self.owner != hub.number {
            self.owner = hub.number;
            self.cache.clear();
        }
    }

    /// Ends a batch: hands each session its part and wakes those that sleep. `bytes` are those that the
    /// frames of [`Inbound`] point into.
    pub(crate) fn end(&mut self, hub: &Hub, bytes: &[u8]) {
        self.flush_run(hub, bytes);
        self.staging.flush(hub);
        if self.unmatched > 0 {
            hub.counters
                .count_drop(DropReason::NoSubscription, self.unmatched);
            self.unmatched = 0;
        }
    }

    /// Sends a message to everybody who subscribed to its topic, and retains it if it asks for that.
    pub(crate) fn publish(
        &mut self,
        hub: &Hub,
        now: Time,
        publisher: Publisher,
        inbound: &Inbound<'_>,
        bytes: &[u8],
    ) -> Outcome {
        let publish = inbound.publish;
        let topic = inbound.topic;
        let route = self.cache.route(&hub.routes, topic);
        if publish.qos == QoS::AtMostOnce
            && !publish.retain
            && route.is_plain()
            && let Some(frame) = &inbound.frame
        {
            self.extend_run(hub, publisher, route, frame.clone(), bytes);
            return Outcome::Taken;
        }
        if route.is_empty() && !publish.retain {
            self.unmatched += 1;
            return Outcome::NoSubscription;
        }
        self.flush_run(hub, bytes);
        let mut properties = core::mem::take(&mut self.properties);
        let outcome = match forwarded_properties(publish, topic, &mut properties) {
            Ok(()) => {
                let parts = Parts {
                    topic: inbound.topic.as_str(),
                    properties: &properties,
                    payload: publish.payload,
                };
                self.pass(hub, now, publisher, inbound, parts, &route)
            }
            // Cannot happen: properties that were decoded are no longer when they are encoded again.
            Err(_) => {
                hub.count_drop(None, DropReason::Unsendable, 1);
                Outcome::Refused
            }
        };
        self.properties = properties;
        outcome
    }

    fn pass(
        &mut self,
        hub: &Hub,
        now: Time,
        publisher: Publisher,
        inbound: &Inbound<'_>,
        parts: Parts<'_>,
        route: &Route,
    ) -> Outcome {
        let Inbound { publish, topic, .. } = *inbound;
        let expiry = publish.properties.message_expiry_interval;
        let mut passage = Passage {
            parts,
            qos: publish.qos,
            retain: publish.retain,
            expiry,
            expires_at: expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
            message: None,
            payload: None,
            receivers: route.targets.len() + route.groups.len(),
            taken: false,
            refused: false,
        };
        if publish.retain && publish.payload.is_empty() {
            hub.retained.clear(topic);
        } else if publish.retain
            && let Err(reason) = hub.retained.set(topic, passage.message(), &hub.config)
        {
            hub.count_drop(None, reason, 1);
            passage.refused = true;
        }
        for target in &route.targets {
            if let Some(grant) = target.grant_for(publisher.key) {
                let fate = self.deliver(hub, &target.client, grant, None, &mut passage);
                passage.note(hub, &target.client, fate);
            }
        }
        for group in &route.groups {
            match group.choose(passage.qos, &hub.config, None) {
                Some((client, grant)) => {
                    let fate = self.deliver(hub, &client, &grant, Some(group), &mut passage);
                    passage.note(hub, &client, fate);
                }
                None => {
                    hub.count_drop(None, DropReason::NoMember, 1);
                    passage.refused = true;
                }
            }
        }
        match (passage.taken, passage.refused) {
            (true, _) => Outcome::Taken,
            (false, true) => Outcome::Refused,
            (false, false) => {
                self.unmatched += u64::from(!publish.retain);
                Outcome::NoSubscription
            }
        }
    }

    fn deliver(
        &mut self,
        hub: &Hub,
        client: &Arc<Client>,
        grant: &Grant,
        group: Option<&Arc<Group>>,
        passage: &mut Passage<'_>,
    ) -> Fate {
        let qos = passage.qos.min(grant.qos);
        let retain = passage.retain && grant.retain_as_published;
        let slot = self.staging.slot(client, &hub.config);
        let link = slot.link();
        if link == Link::Ended {
            return Fate::Dropped(DropReason::SessionEnded);
        }
        if qos != QoS::AtMostOnce {
            let message = passage.message();
            let size = message.size();
            let identifiers = grant.identifiers.clone();
            let delivery = Delivery {
                message,
                qos,
                retain,
                identifiers,
                group: group.cloned(),
            };
            return slot.deliver(delivery, size);
        }
        let Link::Online {
            layout,
            max_packet_size,
        } = link
        else {
            return Fate::Dropped(DropReason::Offline);
        };
        let identifiers: &[SubscriptionIdentifier] =
            grant.identifiers.as_deref().unwrap_or_default();
        let envelope =
            Envelope::at_most_once(layout, retain, passage.expiry).with_identifiers(identifiers);
        if passage.parts.encoded_len(&envelope) > max_packet_size as usize {
            return Fate::Dropped(DropReason::TooLarge);
        }
        if passage.receivers > 1 && passage.parts.payload.len() >= SHARED_PAYLOAD {
            let payload = passage
                .payload
                .get_or_insert_with(|| Bytes::copy_from_slice(passage.parts.payload));
            self.scratch.clear();
            passage.parts.encode_head(&envelope, &mut self.scratch);
            slot.frame().extend_shared(&self.scratch, payload.clone());
        } else {
            slot.frame()
                .extend_with(|out| passage.parts.encode(&envelope, out));
        }
        Fate::Sent
    }

    /// Gives messages that a member of shared groups did not get to other members that are connected, and
    /// returns those that nobody else can take now.
    pub(crate) fn return_to_groups(
        &mut self,
        hub: &Hub,
        from: &Client,
        deliveries: Vec<Delivery>,
    ) -> Vec<Delivery> {
        let mut left = Vec::new();
        for delivery in deliveries {
            let member = delivery
                .group
                .as_ref()
                .and_then(|group| group.choose(delivery.message.qos, &hub.config, Some(from.key)));
            let Some((client, grant)) = member else {
                left.push(delivery);
                continue;
            };
            let parts = delivery.message.parts();
            let mut passage = Passage {
                parts,
                qos: delivery.message.qos,
                retain: delivery.retain,
                expiry: None,
                expires_at: delivery.message.expires_at,
                message: Some(Arc::clone(&delivery.message)),
                payload: None,
                receivers: 1,
                taken: false,
                refused: false,
            };
            let fate = self.deliver(hub, &client, &grant, delivery.group.as_ref(), &mut passage);
            passage.note(hub, &client, fate);
        }
        left
    }

    fn extend_run(
        &mut self,
        hub: &Hub,
        publisher: Publisher,
        route: Arc<Route>,
        frame: Range<usize>,
        bytes: &[u8],
    ) {
        let len = frame.len();
        if let Some(run) = &mut self.run
            && Arc::ptr_eq(&run.route, &route)
            && run.bytes.end == frame.start
        {
            run.bytes.end = frame.end;
            run.longest = run.longest.max(len);
            run.count += 1;
            return;
        }
        self.flush_run(hub, bytes);
        self.run = Some(Run {
            route,
            version: publisher.version,
            bytes: frame,
            longest: len,
            count: 1,
        });
    }

    /// Copies the gathered run to each of its receivers: once for all its packets.
    fn flush_run(&mut self, hub: &Hub, bytes: &[u8]) {
        let Some(run) = self.run.take() else { return };
        let frames = bytes.get(run.bytes.clone()).unwrap_or_default();
        let layout = Layout::of(run.version);
        for target in &run.route.targets {
            let slot = self.staging.slot(&target.client, &hub.config);
            match slot.link() {
                Link::Ended => {
                    hub.count_drop(Some(&target.client), DropReason::SessionEnded, run.count)
                }
                Link::Offline => {
                    hub.count_drop(Some(&target.client), DropReason::Offline, run.count)
                }
                Link::Online {
                    layout: wanted,
                    max_packet_size,
                } if wanted == layout && run.longest <= max_packet_size as usize => {
                    slot.extend_frames(frames, run.count);
                }
                Link::Online {
                    layout,
                    max_packet_size,
                } => {
                    for_each_publish(frames, run.version, |topic, publish| {
                        if forwarded_properties(publish, topic, &mut self.properties).is_err() {
                            hub.count_drop(Some(&target.client), DropReason::Unsendable, 1);
                            return;
                        }
                        let parts = Parts {
                            topic: topic.as_str(),
                            properties: &self.properties,
                            payload: publish.payload,
                        };
                        let expiry = publish.properties.message_expiry_interval;
                        let envelope = Envelope::at_most_once(layout, false, expiry);
                        if parts.encoded_len(&envelope) > max_packet_size as usize {
                            hub.count_drop(Some(&target.client), DropReason::TooLarge, 1);
                        } else {
                            slot.frame().extend_with(|out| parts.encode(&envelope, out));
                        }
                    });
                }
            }
        }
    }
}

/// Decodes packets that were decoded before.
fn for_each_publish(
    mut frames: &[u8],
    version: ProtocolVersion,
    mut handle: impl FnMut(TopicName<'_>, &Publish<'_>),
) {
    while let Ok(Some(header)) = FixedHeader::parse(frames) {
        let Some((frame, rest)) = frames.split_at_checked(header.frame_len()) else {
            return;
        };
        frames = rest;
        let body = frame
            .get(usize::from(header.header_len)..)
            .unwrap_or_default();
        if let Ok(Packet::Publish(publish)) = Packet::decode(header, body, version)
            && let Some(topic) = publish.topic
        {
            handle(topic, &publish);
        }
    }
}

/// The largest packet that a link takes, from the Maximum Packet Size the peer announced.
pub(crate) fn packet_limit(announced: Option<NonZeroU32>) -> u32 {
    announced.map_or(u32::MAX, NonZeroU32::get)
}
