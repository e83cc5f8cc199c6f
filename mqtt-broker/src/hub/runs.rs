//! Runs: QoS 0 packets that follow each other and go the same way are copied to each receiver at once.

use core::ops::Range;
use std::sync::Arc;

use mqtt_codec::{FixedHeader, ProtocolVersion, Publish, QoS, is_plain_publish};

use crate::client::{Client, Link};
use crate::counters::DropReason;
use crate::hub::Hub;
use crate::hub::group::{Candidate, Content, Group};
use crate::hub::members::ATTEMPTS;
use crate::hub::publish::{Batch, Fate, Passage, Publisher};
use crate::hub::routes::{Grant, Route};
use crate::message::{Envelope, Layout, Parts, forwarded_properties};

/// QoS 0 packets that follow each other in the batch's bytes and have the same route.
#[derive(Debug)]
pub(crate) struct Run {
    route: Arc<Route>,
    version: ProtocolVersion,
    bytes: Range<usize>,
    longest: usize,
    count: u64,
}

/// Packets as a receiver reads them.
#[derive(Clone, Copy)]
struct Packets<'a> {
    frames: &'a [u8],
    longest: usize,
    count: u64,
}

impl<'a> Packets<'a> {
    /// The same without those that are longer than a receiver takes.
    fn up_to(self, limit: usize, kept: &'a mut Vec<u8>) -> Self {
        let mut count = 0;
        for frame in frames_of(self.frames) {
            if frame.len() <= limit {
                kept.extend_from_slice(frame);
                count += 1;
            }
        }
        Self {
            frames: kept,
            longest: limit,
            count,
        }
    }
}

impl Batch {
    /// Adds a packet to the run, or begins a new one.
    pub(crate) fn extend_run(
        &mut self,
        hub: &Hub,
        publisher: Publisher<'_>,
        route: &Arc<Route>,
        frame: Range<usize>,
        bytes: &[u8],
    ) {
        let len = frame.len();
        if let Some(run) = &mut self.run
            && Arc::ptr_eq(&run.route, route)
            && run.bytes.end == frame.start
        {
            run.bytes.end = frame.end;
            run.longest = run.longest.max(len);
            run.count += 1;
            return;
        }
        self.flush_run(hub, bytes);
        self.run = Some(Run {
            route: Arc::clone(route),
            version: publisher.version,
            bytes: frame,
            longest: len,
            count: 1,
        });
    }

    /// Adds a packet to the run without decoding it, if it goes where the one before it went: only its topic
    /// needs to be looked at. Its publisher is that of the run.
    pub(crate) fn continue_run(
        &mut self,
        hub: &Hub,
        header: FixedHeader,
        body: &[u8],
        frame: Range<usize>,
    ) -> bool {
        let Some(run) = &mut self.run else {
            return false;
        };
        let goes_on = run.bytes.end == frame.start
            && self
                .cache
                .last_topic(&hub.routes, &run.route)
                .is_some_and(|topic| is_plain_publish(header, body, run.version, topic));
        if goes_on {
            run.longest = run.longest.max(frame.len());
            run.bytes.end = frame.end;
            run.count += 1;
            self.work(1);
        }
        goes_on
    }

    /// Copies the gathered run to each of its receivers: once for all its packets.
    pub(crate) fn flush_run(&mut self, hub: &Hub, bytes: &[u8]) {
        let Some(run) = self.run.take() else { return };
        self.work(run.route.len());
        let own = Packets {
            frames: bytes.get(run.bytes.clone()).unwrap_or_default(),
            longest: run.longest,
            count: run.count,
        };
        let own_layout = Layout::of(run.version);
        let mut other_frames = Vec::new();
        let mut other = None;
        for target in &run.route.targets {
            let client = &target.client;
            let (layout, limit) = match self.staging.slot(client, &hub.config).link() {
                Link::Online {
                    layout,
                    max_packet_size,
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
            let whole = if layout == own_layout {
                own
            } else {
                let (longest, count) = *other.get_or_insert_with(|| {
                    transcode(own.frames, run.version, layout, &mut other_frames)
                });
                Packets {
                    frames: &other_frames,
                    longest,
                    count,
                }
            };
            let unsendable = run.count - whole.count;
            hub.count_drop(Some(client), DropReason::Unsendable, unsendable);
            let mut kept = Vec::new();
            let packets = if whole.longest <= limit {
                whole
            } else {
                whole.up_to(limit, &mut kept)
            };
            let too_large = whole.count - packets.count;
            hub.count_drop(Some(client), DropReason::TooLarge, too_large);
            let fate =
                self.staging
                    .extend_frames(client, &hub.config, packets.frames, packets.count);
            if let Fate::Dropped(reason) = fate {
                hub.count_drop(Some(client), reason, packets.count);
            }
            if self.staging.is_full() {
                self.hand_over(hub);
            }
        }
        for group in &run.route.groups {
            for frame in frames_of(own.frames) {
                if !self.give_to_member(hub, group, frame, run.version) {
                    hub.count_drop(None, DropReason::NoMember, 1);
                }
                if self.staging.is_full() {
                    self.hand_over(hub);
                }
            }
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
            let (chosen, asked) = group.choose(&candidate, &hub.config);
            self.work(asked);
            let Some((client, grant)) = chosen else {
                return false;
            };
            let fate = match self.staging.slot(&client, &hub.config).link() {
                Link::Online {
                    layout,
                    max_packet_size,
                } if layout == own_layout
                    && grant.identifiers.is_none()
                    && client.mount_len() == 0 =>
                {
                    if frame.len() <= max_packet_size as usize {
                        self.staging.extend_frames(&client, &hub.config, frame, 1)
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

/// Appends the packets to `out` in the other layout; returns the length of the longest and how many they are.
fn transcode(
    frames: &[u8],
    version: ProtocolVersion,
    layout: Layout,
    out: &mut Vec<u8>,
) -> (usize, u64) {
    let mut properties = Vec::new();
    let (mut longest, mut count) = (0, 0);
    for frame in frames_of(frames) {
        if let Some((parts, expiry)) = decode_again(frame, version, &mut properties) {
            let before = out.len();
            parts.encode(&Envelope::at_most_once(layout, false, expiry), out);
            longest = longest.max(out.len() - before);
            count += 1;
        }
    }
    (longest, count)
}

/// The parts of a QoS 0 packet that was decoded before, and its Message Expiry Interval, in seconds.
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
