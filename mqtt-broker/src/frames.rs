//! Bytes on their way to a socket: small frames in one buffer, large payloads as shared chunks.

use std::io::IoSlice;

use bytes::Bytes;
use mqtt_codec::{FixedHeader, PacketType};

use crate::seldom::SeldomQueue;

/// A copy of so many bytes is cheaper than a chunk of its own.
const SMALL: usize = 4 * 1024;
/// A chunk of copied bytes that has as many is not appended to.
const CHUNK: usize = 64 * 1024;

/// A run of bytes, and how many bytes of the frame it ends with follow in the next chunk.
#[derive(Debug)]
struct Chunk {
    bytes: Body,
    overhang: usize,
}

#[derive(Debug)]
enum Body {
    Copied(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Body::Copied(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }
}

/// A queue of bytes that is filled at the end, frame by frame, and written from the front.
///
/// Empty, it holds no memory beyond its own size once [`Frames::release`] was called. What was written is
/// given back while more is appended, so that a queue that never runs empty does not grow.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    sealed: SeldomQueue<Chunk>,
    tail: Vec<u8>,
    len: usize,
    /// Bytes of the first chunk that were written already. A chunk has at most [`CHUNK`] bytes and one frame.
    written: u32,
    /// Where the frame that is being written ends, from the start of the first chunk; it may end in a later
    /// one. Equal to `written` between two frames.
    frame_end: u32,
}

impl Frames {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn written(&self) -> usize {
        self.written as usize
    }

    fn frame_end(&self) -> usize {
        self.frame_end as usize
    }

    /// Both are far below the bound: a chunk is closed at [`CHUNK`] bytes, and a packet has 256 MiB at most.
    fn set_place(&mut self, written: usize, frame_end: usize) {
        debug_assert!(written <= frame_end && u32::try_from(frame_end).is_ok());
        self.written = written as u32;
        self.frame_end = frame_end as u32;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends finished frames.
    pub(crate) fn extend(&mut self, frames: &[u8]) {
        self.extend_with(|out| out.extend_from_slice(frames));
    }

    /// Lets `write` append finished frames in place.
    pub(crate) fn extend_with<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.forget_written();
        if self.tail.len() >= CHUNK {
            self.seal(0);
        }
        let before = self.tail.len();
        let result = write(&mut self.tail);
        self.len += self.tail.len() - before;
        result
    }

    /// Appends one frame whose last part is shared with other receivers.
    pub(crate) fn extend_shared(&mut self, head: &[u8], payload: Bytes) {
        self.extend(head);
        self.len += payload.len();
        self.seal(payload.len());
        self.sealed.push_back(Chunk {
            bytes: Body::Shared(payload),
            overhang: 0,
        });
    }

    /// Moves everything out of `other`, of which nothing was written, to the end of `self`; without a copy
    /// where there is much.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            core::mem::swap(self, other);
            other.clear();
            return;
        }
        if other.sealed.is_empty() && other.len <= SMALL {
            self.extend(&other.tail);
        } else {
            self.seal(0);
            self.sealed.append(&mut other.sealed);
            core::mem::swap(&mut self.tail, &mut other.tail);
            self.len += other.len;
        }
        other.clear();
    }

    /// Takes whole frames from the front of a queue of which nothing was written, `enough` bytes or a chunk more.
    pub(crate) fn take_front(&mut self, enough: usize) -> Self {
        if self.len <= enough + CHUNK {
            return core::mem::take(self);
        }
        let mut front = Self::default();
        // Not between the two parts of one frame.
        let mut overhang = 0;
        while (front.len < enough || overhang > 0)
            && let Some(chunk) = self.sealed.pop_front()
        {
            overhang = chunk.overhang;
            let len = chunk.as_slice().len();
            front.len += len;
            self.len -= len;
            front.sealed.push_back(chunk);
        }
        if front.is_empty() {
            return core::mem::take(self);
        }
        front
    }

    /// Forgets the content, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.sealed.clear();
        self.tail.clear();
        self.set_place(0, 0);
        self.len = 0;
    }

    /// Gives the memory of an empty queue back, if it is more than `keep` bytes.
    pub(crate) fn release(&mut self, keep: usize) {
        if self.is_empty() && self.tail.capacity() > keep {
            *self = Self::default();
        }
    }

    /// Keeps whole frames until they take `room` bytes, the last one reaching beyond, so that a frame
    /// larger than the bound still passes where nothing else waits; returns how many were dropped.
    ///
    /// Only for a queue of which nothing was written yet.
    pub(crate) fn truncate_frames(&mut self, room: usize) -> u64 {
        let mut dropped = 0;
        self.retain_frames(|kept, _| {
            let keep = kept < room;
            dropped += u64::from(!keep);
            keep
        });
        dropped
    }

    /// Number of frames in a queue of which nothing was written yet.
    pub(crate) fn count_frames(&mut self) -> u64 {
        self.truncate_frames(0)
    }

    /// Drops every frame that was not begun; returns how many of them were PUBLISH at QoS 0.
    pub(crate) fn cut(&mut self) -> u64 {
        let mut begun = Self::default();
        while self.written < self.frame_end && !self.is_empty() {
            // The rest of the frame that was begun, as one chunk.
            let rest = self.frame_end() - self.written();
            let first = self.first();
            let part = first.get(self.written()..).unwrap_or_default();
            let part = part.get(..rest).unwrap_or(part).to_vec();
            self.consume(part.len());
            begun.extend(&part);
            begun.set_place(0, begun.len);
        }
        self.drop_written();
        let mut dropped = 0;
        self.retain_frames(|_, first| {
            let publish = PacketType::Publish as u8;
            let at_most_once = first & 0x06 == 0;
            dropped += u64::from(first >> 4 == publish && at_most_once);
            false
        });
        *self = begun;
        dropped
    }

    /// Asks for each frame, given where it begins and its bytes as far as they are not shared, whether to keep it;
    /// it may be changed.
    ///
    /// Only for a queue of which nothing was written yet.
    pub(crate) fn revise_frames(&mut self, mut revise: impl FnMut(usize, &mut [u8]) -> bool) {
        let mut head = Vec::new();
        let mut position = 0;
        self.rebuild(|kept, frame, payload| {
            head.clear();
            head.extend_from_slice(frame);
            let at = position;
            position += frame.len() + payload.as_ref().map_or(0, Bytes::len);
            if revise(at, &mut head) {
                kept.push(&head, payload);
            }
        });
    }

    /// Asks for each frame, given the bytes kept so far and its first byte, whether to keep it.
    fn retain_frames(&mut self, mut keep: impl FnMut(usize, u8) -> bool) {
        self.rebuild(|kept, frame, payload| {
            if keep(kept.len, frame.first().copied().unwrap_or_default()) {
                kept.push(frame, payload);
            }
        });
    }

    /// Appends one frame, whose last part may be shared.
    fn push(&mut self, head: &[u8], payload: Option<Bytes>) {
        match payload {
            Some(payload) => self.extend_shared(head, payload),
            None => self.extend(head),
        }
    }

    /// Passes each frame, in its two parts, to whoever fills the queue anew.
    fn rebuild(&mut self, mut each: impl FnMut(&mut Self, &[u8], Option<Bytes>)) {
        let mut kept = Self::default();
        let sealed = core::mem::take(&mut self.sealed);
        let tail = Chunk {
            bytes: Body::Copied(core::mem::take(&mut self.tail)),
            overhang: 0,
        };
        let mut chunks = sealed.into_iter().chain([tail]);
        while let Some(chunk) = chunks.next() {
            let bytes = chunk.as_slice();
            let mut at = 0;
            while let Some(len) = frame_len_at(bytes, at) {
                let end = (at + len).min(bytes.len());
                let head = bytes.get(at..end).unwrap_or_default();
                let shared = if at + len > bytes.len() {
                    chunks.next()
                } else {
                    None
                };
                at = end;
                let payload = shared.and_then(|chunk| match chunk.bytes {
                    Body::Shared(payload) => Some(payload),
                    Body::Copied(_) => None,
                });
                each(&mut kept, head, payload);
            }
        }
        *self = kept;
    }

    /// Closes the tail: `overhang` bytes of its last frame follow.
    fn seal(&mut self, overhang: usize) {
        if !self.tail.is_empty() {
            let bytes = Body::Copied(core::mem::take(&mut self.tail));
            self.sealed.push_back(Chunk { bytes, overhang });
        }
    }

    fn first(&self) -> &[u8] {
        self.sealed.front().map_or(&self.tail, Chunk::as_slice)
    }

    /// Moves the tail to its start once most of it was written.
    fn forget_written(&mut self) {
        if self.sealed.is_empty() && self.written() > self.tail.len() / 2 {
            self.drop_written();
        }
    }

    /// Removes what was written of the first chunk.
    fn drop_written(&mut self) {
        let written = self.written();
        match self.sealed.front_mut() {
            None => drop(self.tail.drain(..written)),
            Some(chunk) => match &mut chunk.bytes {
                Body::Copied(bytes) => drop(bytes.drain(..written)),
                Body::Shared(bytes) => drop(bytes.split_to(written)),
            },
        }
        self.set_place(0, self.frame_end() - written);
    }

    /// Fills `slices` with what is to be written next, `control` as soon as no frame is cut by it;
    /// returns how many were filled.
    pub(crate) fn gather<'a>(&'a self, control: &'a [u8], slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut put = |bytes: &'a [u8]| {
            if !bytes.is_empty()
                && let Some(slot) = slices.get_mut(filled)
            {
                *slot = IoSlice::new(bytes);
                filled += 1;
            }
        };
        let mut from = self.written();
        // Where `control` goes, while it is to come.
        let mut place = Some(self.frame_end());
        let chunks = self.sealed.iter().map(Chunk::as_slice);
        for chunk in chunks.chain([self.tail.as_slice()]) {
            if let Some(end) = place
                && let Some(rest) = chunk.get(end..)
            {
                put(chunk.get(from..end).unwrap_or_default());
                put(control);
                put(rest);
                place = None;
            } else {
                put(chunk.get(from..).unwrap_or_default());
                place = place.map(|end| end - chunk.len());
            }
            from = 0;
        }
        filled
    }

    /// Takes note that `count` bytes of what [`Frames::gather`] named were written; returns how many of
    /// them were bytes of `control`, which holds `control_len`.
    pub(crate) fn advance(&mut self, count: usize, control_len: usize) -> usize {
        let begun = count.min(self.frame_end() - self.written());
        let control = (count - begun).min(control_len);
        self.consume(count - control);
        control
    }

    /// Removes written bytes from the front.
    fn consume(&mut self, mut count: usize) {
        self.len -= count;
        let (mut written, mut end) = (self.written(), self.frame_end());
        while let Some(chunk) = self.sealed.front() {
            let left = chunk.as_slice().len() - written;
            if count < left {
                break;
            }
            count -= left;
            end = end.max(chunk.as_slice().len() + chunk.overhang);
            end -= chunk.as_slice().len();
            written = 0;
            self.sealed.pop_front();
        }
        written += count;
        if self.len == 0 {
            self.tail.clear();
            self.set_place(0, 0);
            return;
        }
        // Headers are read only where a write ended within what it was given.
        let first = self.first();
        while end < written
            && let Some(len) = frame_len_at(first, end)
        {
            end += len;
        }
        self.set_place(written, end.max(written));
    }
}

/// Length of the frame that begins at `at`, from its fixed header.
fn frame_len_at(bytes: &[u8], at: usize) -> Option<usize> {
    let header = FixedHeader::parse(bytes.get(at..)?).ok()??;
    Some(header.frame_len())
}

#[cfg(test)]
mod tests {
    use mqtt_codec::{Packet, ProtocolVersion, Publish, TopicName};
    use proptest::prelude::*;

    use super::*;

    fn frame(number: usize, size: usize) -> Vec<u8> {
        let payload = vec![b'x'; size];
        let topic = number.to_string();
        let publish = Publish::new(TopicName::new(&topic).unwrap(), &payload);
        Packet::Publish(publish)
            .to_vec(ProtocolVersion::V3_1_1)
            .unwrap()
    }

    /// What one step of a test does.
    #[derive(Clone, Debug)]
    enum Step {
        Copied(usize),
        Shared(usize),
        Append(Vec<usize>),
        Control,
        Write(usize),
        Cut,
        Split(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..40_usize).prop_map(Step::Copied),
            (1..40_usize).prop_map(Step::Shared),
            prop::collection::vec(0..20_usize, 0..4).prop_map(Step::Append),
            Just(Step::Control),
            (1..60_usize).prop_map(Step::Write),
            (1..60_usize).prop_map(Step::Write),
            Just(Step::Cut),
            (1..200_usize).prop_map(Step::Split),
        ]
    }

    #[derive(Default)]
    struct Model {
        frames: Frames,
        control: Vec<u8>,
        written: Vec<u8>,
        next: usize,
        controls: usize,
        /// How many frames there had been at each cut, and how many it took away.
        cut: Vec<(usize, usize)>,
    }

    impl Model {
        fn frame(&mut self, size: usize) -> Vec<u8> {
            self.next += 1;
            frame(self.next, size)
        }

        fn shared(&mut self, size: usize) {
            let bytes = self.frame(size);
            let (head, payload) = bytes.split_at(bytes.len() - size);
            self.frames
                .extend_shared(head, Bytes::copy_from_slice(payload));
        }

        fn write(&mut self, limit: usize) {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = self.frames.gather(&self.control, &mut slices);
            let bytes: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            let count = limit.min(bytes.len());
            self.written.extend_from_slice(&bytes[..count]);
            let control = self.frames.advance(count, self.control.len());
            self.control.drain(..control);
        }

        /// After a cut the last frame that was begun is finished, and nothing else.
        fn cut(&mut self) {
            let cut = self.frames.cut();
            self.cut.push((self.next, cut as usize));
        }

        /// What was written is not kept.
        fn check_memory(&self) {
            let sealed = self
                .frames
                .sealed
                .iter()
                .map(|chunk| chunk.as_slice().len());
            let held = sealed.sum::<usize>() + self.frames.tail.len();
            assert_eq!(held, self.frames.len() + self.frames.written());
            assert!(self.frames.frame_end >= self.frames.written);
        }

        fn check(mut self) {
            while !self.frames.is_empty() || !self.control.is_empty() {
                let before = self.written.len();
                self.write(usize::MAX);
                assert!(self.written.len() > before, "a write makes progress");
            }
            let mut expected: Vec<usize> = Vec::new();
            let mut from = 1;
            for (had, lost) in self.cut.iter().copied().chain([(self.next, 0)]) {
                expected.extend(from..=had - lost);
                from = had + 1;
            }
            let (mut numbers, mut controls, mut rest) = (Vec::new(), 0, self.written.as_slice());
            while let Some((packet, len)) =
                mqtt_codec::decode(rest, ProtocolVersion::V3_1_1, u32::MAX).unwrap()
            {
                match packet {
                    Packet::PingResp => controls += 1,
                    Packet::Publish(publish) => {
                        numbers.push(publish.topic.unwrap().as_str().parse().unwrap());
                    }
                    other => panic!("nobody wrote {other:?}"),
                }
                rest = &rest[len..];
            }
            assert!(rest.is_empty());
            assert_eq!((numbers, controls), (expected, self.controls));
        }
    }

    proptest! {
        /// Whatever is appended and however writes are cut: whole packets leave, each kind in order.
        #[test]
        fn packets_stay_whole(steps in prop::collection::vec(step(), 0..60)) {
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Copied(size) => {
                        let bytes = model.frame(size);
                        model.frames.extend(&bytes);
                    }
                    Step::Shared(size) => model.shared(size),
                    Step::Append(sizes) => {
                        let mut other = Model { next: model.next, ..Model::default() };
                        for size in sizes {
                            other.shared(size + 1);
                            let bytes = other.frame(size);
                            other.frames.extend(&bytes);
                        }
                        model.next = other.next;
                        model.frames.append(&mut other.frames);
                        prop_assert!(other.frames.is_empty());
                    }
                    Step::Control => {
                        model.control.extend([0xd0, 0]);
                        model.controls += 1;
                    }
                    Step::Write(limit) => model.write(limit),
                    Step::Cut => model.cut(),
                    Step::Split(enough) => {
                        let mut other = Model { next: model.next, ..Model::default() };
                        for size in [CHUNK, 10, CHUNK, CHUNK] {
                            other.shared(size);
                            let bytes = other.frame(size);
                            other.frames.extend(&bytes);
                        }
                        model.next = other.next;
                        let mut front = other.frames.take_front(enough * 1_000);
                        prop_assert!(front.len() >= enough * 1_000 || other.frames.is_empty());
                        prop_assert!(front.len() <= enough * 1_000 + 3 * CHUNK);
                        model.frames.append(&mut front);
                        model.frames.append(&mut other.frames);
                    }
                }
                model.check_memory();
            }
            model.check();
        }

        /// A queue that is written slower than it is filled, but never left alone, holds what is unwritten and
        /// not much more; control waits for one frame at most.
        #[test]
        fn a_slow_reader_costs_what_it_has_not_read(size in 1..300_usize, limit in 50..400_usize) {
            let mut model = Model::default();
            for _ in 0..100 {
                while model.frames.len() < 2_000 {
                    let bytes = model.frame(size);
                    model.frames.extend(&bytes);
                }
                model.write(limit);
                model.written.clear();
                let held = model.frames.tail.len();
                prop_assert!(held <= 2 * (model.frames.len() + limit + size));
                let control = [0xd0, 0];
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = model.frames.gather(&control, &mut slices);
                let before = slices[..filled]
                    .iter()
                    .take_while(|slice| slice.as_ptr() != control.as_ptr());
                prop_assert!(before.map(|slice| slice.len()).sum::<usize>() < size + 10);
            }
        }

        /// Truncation keeps whole packets within the room and counts the rest.
        #[test]
        fn truncation_counts_what_it_drops(sizes in prop::collection::vec(1..40_usize, 0..20), room in 0..600_usize) {
            let mut model = Model::default();
            for (index, size) in sizes.iter().enumerate() {
                if index % 3 == 0 {
                    model.shared(*size);
                } else {
                    let bytes = model.frame(*size);
                    model.frames.extend(&bytes);
                }
            }
            let before = model.frames.len();
            let dropped = model.frames.truncate_frames(room);
            prop_assert!(model.frames.len() < room + 60);
            prop_assert_eq!(dropped == 0, model.frames.len() == before);
            prop_assert_eq!(model.frames.count_frames() + dropped, sizes.len() as u64);
        }
    }
}
