//! Bytes on their way to a socket: small frames in one buffer, large payloads as shared chunks.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use mqtt_codec::FixedHeader;

/// A run of bytes and whether the frame it ends with goes on in the next chunk.
#[derive(Debug)]
struct Chunk {
    bytes: Body,
    continued: bool,
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
/// Empty, it holds no memory beyond its own size once [`Frames::release`] was called.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    sealed: VecDeque<Chunk>,
    tail: Vec<u8>,
    /// Bytes of the first chunk that were written already.
    written: usize,
    /// The chunk before the first one was written and its last frame goes on in the first one.
    cut: bool,
    len: usize,
}

impl Frames {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends finished frames.
    pub(crate) fn extend(&mut self, frames: &[u8]) {
        self.tail.extend_from_slice(frames);
        self.len += frames.len();
    }

    /// Lets `write` append finished frames in place.
    pub(crate) fn extend_with<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let before = self.tail.len();
        let result = write(&mut self.tail);
        self.len += self.tail.len() - before;
        result
    }

    /// Appends one frame whose last part is shared with other receivers.
    pub(crate) fn extend_shared(&mut self, head: &[u8], payload: Bytes) {
        self.tail.extend_from_slice(head);
        self.len += head.len() + payload.len();
        self.seal(true);
        self.sealed.push_back(Chunk {
            bytes: Body::Shared(payload),
            continued: false,
        });
    }

    /// Moves everything out of `other` to the end of `self`; without a copy where `self` is empty.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            core::mem::swap(self, other);
            other.clear();
            return;
        }
        if other.sealed.is_empty() {
            self.extend(&other.tail);
        } else {
            self.seal(false);
            self.sealed.append(&mut other.sealed);
            core::mem::swap(&mut self.tail, &mut other.tail);
            self.len += other.len;
        }
        other.clear();
    }

    /// Forgets the content, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.sealed.clear();
        self.tail.clear();
        self.written = 0;
        self.cut = false;
        self.len = 0;
    }

    /// Whether the next byte to write belongs to a frame that was begun.
    fn within_frame(&self) -> bool {
        self.cut || self.written > 0
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
        let mut kept = Self::default();
        let mut dropped = 0;
        let sealed = core::mem::take(&mut self.sealed);
        let tail = Chunk {
            bytes: Body::Copied(core::mem::take(&mut self.tail)),
            continued: false,
        };
        let mut chunks = sealed.into_iter().chain([tail]);
        while let Some(chunk) = chunks.next() {
            let bytes = chunk.as_slice();
            let mut at = 0;
            while let Some(len) = frame_len_at(bytes, at) {
                let end = (at + len).min(bytes.len());
                let head = &bytes[at..end];
                let shared = if at + len > bytes.len() {
                    chunks.next()
                } else {
                    None
                };
                at = end;
                if kept.len >= room {
                    dropped += 1;
                } else if let Some(Chunk {
                    bytes: Body::Shared(payload),
                    ..
                }) = shared
                {
                    kept.extend_shared(head, payload);
                } else {
                    kept.extend(head);
                }
            }
        }
        *self = kept;
        dropped
    }

    /// Number of frames in a queue of which nothing was written yet.
    pub(crate) fn count_frames(&mut self) -> u64 {
        self.truncate_frames(0)
    }

    fn seal(&mut self, continued: bool) {
        if !self.tail.is_empty() {
            let bytes = Body::Copied(core::mem::take(&mut self.tail));
            self.sealed.push_back(Chunk { bytes, continued });
        }
    }

    /// Fills `slices` with what is to be written next, `control` first where no frame is cut by it;
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
        let mut control_due = true;
        let mut within_frame = self.within_frame();
        let mut skip = self.written;
        for chunk in &self.sealed {
            if control_due && !within_frame {
                put(control);
                control_due = false;
            }
            put(chunk.as_slice().get(skip..).unwrap_or_default());
            within_frame = chunk.continued;
            skip = 0;
        }
        if control_due && !within_frame {
            put(control);
            control_due = false;
        }
        put(self.tail.get(skip..).unwrap_or_default());
        if control_due {
            put(control);
        }
        filled
    }

    /// Takes note that `count` bytes of what [`Frames::gather`] named were written; returns how many of
    /// them were bytes of `control`, which holds `control_len`.
    pub(crate) fn advance(&mut self, mut count: usize, control_len: usize) -> usize {
        let mut control = 0;
        let mut control_due = self.within_frame();
        if !control_due {
            control = count.min(control_len);
            count -= control;
        }
        while count > 0 {
            let Some(front) = self.sealed.front() else {
                break;
            };
            let left = front.as_slice().len() - self.written;
            if count < left {
                self.written += count;
                self.len -= count;
                return control;
            }
            count -= left;
            self.len -= left;
            self.written = 0;
            self.cut = front.continued;
            self.sealed.pop_front();
            if control_due && !self.cut {
                control = count.min(control_len);
                count -= control;
                control_due = false;
            }
        }
        let left = self.tail.len() - self.written;
        let taken = count.min(left);
        self.written += taken;
        self.len -= taken;
        count -= taken;
        if self.written == self.tail.len() && self.sealed.is_empty() {
            self.tail.clear();
            self.written = 0;
        }
        if control_due {
            control = count.min(control_len);
        }
        control
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
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..40_usize).prop_map(Step::Copied),
            (1..40_usize).prop_map(Step::Shared),
            prop::collection::vec(0..20_usize, 0..4).prop_map(Step::Append),
            Just(Step::Control),
            (1..60_usize).prop_map(Step::Write),
        ]
    }

    #[derive(Default)]
    struct Model {
        frames: Frames,
        control: Vec<u8>,
        written: Vec<u8>,
        next: usize,
        controls: usize,
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

        fn check(mut self) {
            while !self.frames.is_empty() || !self.control.is_empty() {
                let before = self.written.len();
                self.write(usize::MAX);
                assert!(self.written.len() > before, "a write makes progress");
            }
            let (mut number, mut controls, mut rest) = (0, 0, self.written.as_slice());
            while let Some((packet, len)) =
                mqtt_codec::decode(rest, ProtocolVersion::V3_1_1, u32::MAX).unwrap()
            {
                match packet {
                    Packet::PingResp => controls += 1,
                    Packet::Publish(publish) => {
                        number += 1;
                        assert_eq!(publish.topic.unwrap().as_str(), number.to_string());
                    }
                    other => panic!("nobody wrote {other:?}"),
                }
                rest = &rest[len..];
            }
            assert!(rest.is_empty());
            assert_eq!((number, controls), (self.next, self.controls));
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
                }
            }
            model.check();
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
