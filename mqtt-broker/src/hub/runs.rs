//! Runs: packets that follow each other and go the same way are copied to each receiver at once.

use core::ops::Range;
use std::borrow::Cow;
use std::sync::Arc;

use mqtt_codec::{FixedHeader, PacketId, PlainPublish, ProtocolVersion, Publish, QoS};

use crate::amount::Amount;
use crate::bundle::Bundle;
use crate::client::{Client, Link};
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::hub::Hub;
use crate::hub::group::{Candidate, Content, Group};
use crate::hub::members::ATTEMPTS;
use crate::hub::publish::{Batch, Fate, Inbound, Passage, Publisher};
use crate::hub::routes::{Grant, Route};
use crate::hub::staging::BundleRoom;
use crate::message::{Envelope, Layout, Parts, forwarded_properties};

/// Packets of one topic and QoS that follow each other in the batch's bytes and have the same route.
#[derive(Debug)]
pub(crate) struct Run {
    route: Arc<Route>,
    version: ProtocolVersion,
    qos: QoS,
    topic_len: u16,
    bytes: Range<usize>,
    longest: usize,
    count: u64,
    /// What more the receiver with the most room can take, above QoS 0: while it takes them, no message needs
    /// to be refused.
    room: Amount,
}

/// Bytes by which a packet may be longer in the other layout.
const LAYOUT_BYTES: usize = 2;

/// The packets of a run as some of its receivers read them.
struct Form<'a> {
    layout: Layout,
    /// They have packet identifiers, which are not those of the receivers.
    has_ids: bool,
    bytes: Cow<'a, [u8]>,
    longest: usize,
    count: u64,
    /// The bytes as receivers share them, once one of them has.
    shared: Option<Arc<[u8]>>,
}

impl Form<'_> {
    /// The same without those that are longer than a receiver takes.
    fn up_to(&self, limit: usize) -> Form<'static> {
        let mut bytes = Vec::new();
        let mut count = 0;
        for frame in frames_of(&self.bytes).filter(|frame| frame.len() <= limit) {
            bytes.extend_from_slice(frame);
            count += 1;
        }
        Form {
            bytes: bytes.into(),
            longest: limit,
            count,
            shared: None,
            ..*self
        }
    }

    fn shared(&mut self) -> Arc<[u8]> {
        let bytes = &*self.bytes;
        Arc::clone(self.shared.get_or_insert_with(|| bytes.into()))
    }
}

/// The forms of a run that its receivers asked for: the one it came in first.
struct Forms<'a> {
    version: ProtocolVersion,
    own: &'a [u8],
    made: Vec<Form<'a>>,
}

impl<'a> Forms<'a> {
    fn new(run: &Run, own: &'a [u8]) -> Self {
        Self {
            version: run.version,
            own,
            made: vec![Form {
                layout: Layout::of(run.version),
                has_ids: run.qos != QoS::AtMostOnce,
                bytes: own.into(),
                longest: run.longest,
                count: run.count,
                shared: None,
            }],
        }
    }

    /// The packets in a layout, with identifiers or without.
    fn get(&mut self, layout: Layout, has_ids: bool) -> &mut Form<'a> {
        let known = self
            .made
            .iter()
            .position(|form| (form.layout, form.has_ids) == (layout, has_ids));
        let place = known.unwrap_or_else(|| {
            self.made
                .push(transcode(self.own, self.version, layout, has_ids));
            self.made.len() - 1
        });
        &mut self.made[place]
    }
}

impl Run {
    /// Whether some receiver certainly has room for one more packet of so many bytes.
    fn has_room(&self, len: usize) -> bool {
        self.qos == QoS::AtMostOnce
            || (self.room.messages > 0 && self.room.bytes >= len + LAYOUT_BYTES)
    }

    fn add(&mut self, len: usize) {
        self.bytes.end += len;
        self.longest = self.longest.max(len);
        self.count += 1;
        let amount = Amount::of_one(len + LAYOUT_BYTES);
        self.room = self.room.saturating_sub(amount);
    }
}

impl Batch {
    /// Adds a packet to the run, or begins a new one; false if its receivers do not all take runs, or have no
    /// room.
    pub(crate) fn extend_run(
        &mut self,
        hub: &Hub,
        publisher: Publisher<'_>,
        route: &Arc<Route>,
        inbound: &Inbound<'_>,
        frame: Range<usize>,
        bytes: &[u8],
    ) -> bool {
        let len = frame.len();
        let qos = inbound.publish.qos;
        let topic_len = inbound.topic.as_str().len() as u16;
        if let Some(run) = &mut self.run
            && Arc::ptr_eq(&run.route, route)
            && run.bytes.end == frame.start
            && (run.qos, run.topic_len) == (qos, topic_len)
            && run.has_room(len)
        {
            run.add(len);
            return true;
        }
        self.flush_run(hub, bytes);
        let Some(room) = self.run_room(hub, route, qos) else {
            return false;
        };
        let mut run = Run {
            route: Arc::clone(route),
            version: publisher.version,
            qos,
            topic_len,
            bytes: frame.start..frame.start,
            longest: 0,
            count: 0,
            room,
        };
        if !run.has_room(len) {
            return false;
        }
        run.add(len);
        self.run = Some(run);
        true
    }

    /// What the receiver with the most room can take; `None`: they do not all take runs of this QoS.
    fn run_room(&mut self, hub: &Hub, route: &Route, qos: QoS) -> Option<Amount> {
        let mut room = Amount::default();
        if qos == QoS::AtMostOnce {
            return Some(room);
        }
        if !route.groups.is_empty() {
            return None;
        }
        self.work(route.len());
        for target in &route.targets {
            if target.grant.qos == QoS::AtMostOnce {
                // What it has no room for is dropped, and nothing is refused for that.
                room = Amount::MAX;
                continue;
            }
            match self.staging.bundle_room(&target.client, &hub.bounds) {
                BundleRoom::Has(one) if one.bytes > room.bytes => room = one,
                BundleRoom::Has(_) => {}
                BundleRoom::WantsMessages => return None,
            }
        }
        room.bytes = room.bytes.saturating_sub(Delivery::cost(0));
        Some(room)
    }

    /// Recognises a packet that goes where the one before it went and has its QoS: only its topic needs to be
    /// looked at. Its publisher is that of the run. It joins the run by [`Batch::continue_run`].
    pub(crate) fn recognize(
        &self,
        hub: &Hub,
        header: FixedHeader,
        body: &[u8],
        frame: &Range<usize>,
    ) -> Option<PlainPublish> {
        let run = self.run.as_ref()?;
        if run.bytes.end != frame.start || !run.has_room(frame.len()) {
            return None;
        }
        let topic = self.cache.last_topic(&hub.routes, &run.route)?;
        let plain = PlainPublish::recognize(header, body, run.version, topic)?;
        (plain.qos() == run.qos).then_some(plain)
    }

    /// Adds a packet of so many bytes to the run that [`Batch::recognize`] found it to go on with.
    pub(crate) fn continue_run(&mut self, len: usize) {
        if let Some(run) = &mut self.run {
            run.add(len);
        }
        self.work(1);
    }

    /// Copies the gathered run to each of its receivers: once for all its packets.
    pub(crate) fn flush_run(&mut self, hub: &Hub, bytes: &[u8]) {
        let Some(run) = self.run.take() else { return };
        self.work(run.route.len());
        let own = bytes.get(run.bytes.clone()).unwrap_or_default();
        let mut forms = Forms::new(&run, own);
        for target in &run.route.targets {
            let client = &target.client;
            let qos = run.qos.min(target.grant.qos);
            let (layout, limit) = match self.staging.slot(client, &hub.bounds).link() {
                Link::Online {
                    layout,
                    max_packet_size,
                    ..
                } => (layout, max_packet_size as usize),
                Link::Offline => {
                    hub.count_drop(Some(client), DropReason::Offline, run.count);
                    continue;
                }
                Link::Ended => {
                    hub.count_drop(Some(client), DropReason::SessionEnded, run.count);
                    continue;
                }
            };
            let form = forms.get(layout, qos != QoS::AtMostOnce);
            let unsendable = run.count - form.count;
            hub.count_drop(Some(client), DropReason::Unsendable, unsendable);
            let mut kept = None;
            let form = if form.longest <= limit {
                form
            } else {
                kept.insert(form.up_to(limit))
            };
            let too_large = run.count - unsendable - form.count;
            hub.count_drop(Some(client), DropReason::TooLarge, too_large);
            self.stage_form(hub, client, qos, run.topic_len, form);
            if self.staging.is_full() {
                self.hand_over(hub);
            }
        }
        for group in &run.route.groups {
            for frame in frames_of(own) {
                if !self.give_to_member(hub, group, frame, run.version) {
                    hub.count_drop(None, DropReason::NoMember, 1);
                }
                if self.staging.is_full() {
                    self.hand_over(hub);
                }
            }
        }
    }

    /// Stages packets for one receiver.
    fn stage_form(
        &mut self,
        hub: &Hub,
        client: &Arc<Client>,
        qos: QoS,
        topic_len: u16,
        form: &mut Form<'_>,
    ) {
        let bounds = &hub.bounds;
        if qos == QoS::AtMostOnce {
            let fate = self
                .staging
                .extend_frames(client, bounds, &form.bytes, form.count);
            if let Fate::Dropped(reason) = fate {
                hub.count_drop(Some(client), reason, form.count);
            }
        } else {
            let bundle = Bundle::new(form.shared(), form.count, topic_len, form.layout);
            let dropped = self.staging.push_bundle(client, bounds, bundle, qos);
            hub.count_drop(Some(client), DropReason::QueueFull, dropped);
        }
    }

    /// Gives one packet to a member of a group; false if none can take it.
    fn give_to_member(
        &mut self,
        hub: &Hub,
        group: &Arc<Group>,
        frame: &[u8],
        version: ProtocolVersion,
    ) -> bool {
        let own_layout = Layout::of(version);
        for _ in 0..ATTEMPTS {
            let candidate = Candidate {
                content: Content::Packet(frame, version),
                qos: QoS::AtMostOnce,
                retain: false,
                expiry: None,
                but_not: None,
                restricted: false,
                may_wait: false,
            };
            let (chosen, asked) = group.choose(&candidate, &hub.bounds);
            self.work(asked);
            let Some((client, grant)) = chosen else {
                return false;
            };
            let fate = match self.staging.slot(&client, &hub.bounds).link() {
                Link::Online {
                    layout,
                    max_packet_size,
                    ..
                } if layout == own_layout
                    && grant.identifiers.is_none()
                    && client.mount_len() == 0 =>
                {
                    if frame.len() <= max_packet_size as usize {
                        self.staging.extend_frames(&client, &hub.bounds, frame, 1)
                    } else {
                        Fate::Dropped(DropReason::TooLarge)
                    }
                }
                _ => self.deliver_decoded(hub, &client, &grant, group, frame, version),
            };
            match fate {
                Fate::Sent => return true,
                // The choice knew nothing of what is staged: from now on it does.
                Fate::Dropped(_) => self.hand_over(hub),
            }
        }
        false
    }

    /// Stages a packet for a member that does not get it as it came.
    fn deliver_decoded(
        &mut self,
        hub: &Hub,
        client: &Arc<Client>,
        grant: &Grant,
        group: &Arc<Group>,
        frame: &[u8],
        version: ProtocolVersion,
    ) -> Fate {
        let mut properties = Vec::new();
        match decode_again(frame, version, &mut properties) {
            Some((parts, expiry)) => {
                let mut passage = Passage::at_most_once(parts, expiry, hub.now());
                self.deliver(hub, client, grant, Some(group), &mut passage)
            }
            None => Fate::Dropped(DropReason::Unsendable),
        }
    }
}

/// The packets in another form.
fn transcode<'a>(
    frames: &[u8],
    version: ProtocolVersion,
    layout: Layout,
    has_ids: bool,
) -> Form<'a> {
    let mut properties = Vec::new();
    let mut out = Vec::new();
    let (mut longest, mut count) = (0, 0);
    for frame in frames_of(frames) {
        if let Some((parts, expiry)) = decode_again(frame, version, &mut properties) {
            let before = out.len();
            let mut envelope = Envelope::at_most_once(layout, false, expiry);
            if has_ids {
                // What stands there is written anew for each receiver.
                envelope.qos = QoS::AtLeastOnce;
                envelope.packet_id = PacketId::new(1);
            }
            parts.encode(&envelope, &mut out);
            longest = longest.max(out.len() - before);
            count += 1;
        }
    }
    Form {
        layout,
        has_ids,
        bytes: out.into(),
        longest,
        count,
        shared: None,
    }
}

/// The parts of a packet that was decoded before, and its Message Expiry Interval, in seconds.
pub(crate) fn decode_again<'a>(
    frame: &'a [u8],
    version: ProtocolVersion,
    properties: &'a mut Vec<u8>,
) -> Option<(Parts<'a>, Option<u32>)> {
    let header = FixedHeader::parse(frame).ok()??;
    let body = frame.get(usize::from(header.header_len)..)?;
    let publish = Publish::decode(header.flags, body, version).ok()?;
    let topic = publish.topic?;
    forwarded_properties(&publish, topic, properties).ok()?;
    let parts = Parts {
        topic: topic.as_str().as_bytes(),
        properties,
        payload: publish.payload,
    };
    Some((parts, publish.properties.message_expiry_interval))
}

/// The packets that stand in `frames` one after the other.
fn frames_of(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let header = FixedHeader::parse(frames).ok()??;
        let (frame, rest) = frames.split_at_checked(header.frame_len())?;
        frames = rest;
        Some(frame)
    })
}
