//! QoS 0 packets that wait and expire: where they stand, so that they are dropped, or told how long they still
//! have, when they are taken.

use std::collections::VecDeque;

use mqtt_session::Time;

use crate::frames::Frames;
use crate::message::{seconds_until, set_expiry};

/// The packets of a queue of frames that have a Message Expiry Interval.
///
/// Nothing but a pointer until the first of them comes: few queues see one.
#[derive(Debug, Default)]
pub(crate) struct Expiring(Option<Box<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    /// Where each begins, counted from the first byte of the queue when the first of them came, and when it expires.
    marks: VecDeque<(u64, Time)>,
    /// Bytes that were taken from the front of the queue since.
    taken: u64,
}

impl Expiring {
    /// The packet that is appended next to a queue of `len` bytes expires.
    pub(crate) fn mark(&mut self, len: usize, expires_at: Time) {
        let marks = self.0.get_or_insert_default();
        marks
            .marks
            .push_back((marks.taken + len as u64, expires_at));
    }

    /// The packets of `other`, from which nothing was taken and of which `kept` bytes are left, are appended to a
    /// queue of `len` bytes.
    pub(crate) fn append(&mut self, len: usize, other: &mut Self, kept: usize) {
        let Some(other) = &mut other.0 else { return };
        let marks = self.0.get_or_insert_default();
        let start = marks.taken + len as u64;
        let kept = other.marks.drain(..).filter(|(at, _)| *at < kept as u64);
        marks
            .marks
            .extend(kept.map(|(at, time)| (start + at, time)));
    }

    /// `frames` were taken from the front: removes those of them that have expired, and writes into the others
    /// how long they still have. Returns how many were removed.
    pub(crate) fn take(&mut self, frames: &mut Frames, now: Time) -> u64 {
        let Some(marks) = &mut self.0 else { return 0 };
        let start = marks.taken;
        marks.taken += frames.len() as u64;
        let mut expired = 0;
        if marks.marks.front().is_some_and(|(at, _)| *at < marks.taken) {
            frames.revise_frames(|position, head| {
                let position = start + position as u64;
                let Some((at, time)) = marks.marks.front().copied() else {
                    return true;
                };
                if at != position {
                    return true;
                }
                marks.marks.pop_front();
                if time <= now {
                    expired += 1;
                    return false;
                }
                set_expiry(head, seconds_until(time, now));
                true
            });
        }
        if marks.marks.is_empty() {
            self.0 = None;
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use bytes::Bytes;
    use mqtt_codec::{Packet, ProtocolVersion, Publish, TopicName};

    use super::*;

    fn frame(payload: &str, expiry: Option<u32>) -> Vec<u8> {
        let mut publish = Publish::new(TopicName::new("topic").unwrap(), payload.as_bytes());
        publish.properties.message_expiry_interval = expiry;
        Packet::Publish(publish)
            .to_vec(ProtocolVersion::V5)
            .unwrap()
    }

    fn after(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// Marks follow their packets through a queue that is appended to another, cut, and taken in parts.
    #[test]
    fn marks_follow_their_packets() {
        let (mut all, mut marks) = (Frames::default(), Expiring::default());
        for round in 0..3 {
            let (mut part, mut part_marks) = (Frames::default(), Expiring::default());
            for number in 0..40 {
                let expiry = (number % 3 != 0).then_some(number + 1);
                if let Some(seconds) = expiry {
                    part_marks.mark(part.len(), after(seconds.into()));
                }
                let payload = format!("{round} {number} {}", "x".repeat(number as usize * 100));
                let bytes = frame(&payload, expiry);
                if number % 5 == 0 {
                    let (head, body) = bytes.split_at(bytes.len() - payload.len());
                    part.extend_shared(head, Bytes::copy_from_slice(body));
                } else {
                    part.extend(&bytes);
                }
            }
            // The last packet of each part does not fit.
            part.truncate_frames(part.len() - 5_000);
            marks.append(all.len(), &mut part_marks, part.len());
            all.append(&mut part);
        }
        let (mut seen, mut expired) = (Vec::new(), 0);
        while !all.is_empty() {
            let mut front = all.take_front(1);
            expired += marks.take(&mut front, after(20));
            let mut slices = [std::io::IoSlice::new(&[]); 512];
            let filled = front.gather(&[], &mut slices);
            let bytes: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|one| one.to_vec())
                .collect();
            let mut rest = bytes.as_slice();
            while let Some((Packet::Publish(publish), len)) =
                mqtt_codec::decode(rest, ProtocolVersion::V5, u32::MAX).unwrap()
            {
                let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                let mut words = text.split(' ').map(|word| word.parse::<u32>());
                let (round, number) = (
                    words.next().unwrap().unwrap(),
                    words.next().unwrap().unwrap(),
                );
                let left = publish.properties.message_expiry_interval;
                assert_eq!(
                    left,
                    (number % 3 != 0).then(|| number + 1 - 20),
                    "{round} {number}"
                );
                seen.push((round, number));
                rest = &rest[len..];
            }
        }
        let expected: Vec<_> = (0..3)
            .flat_map(|round| (0..39).map(move |number| (round, number)))
            .filter(|(_, number)| number % 3 == 0 || number + 1 > 20)
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(expired, 3 * 13);
    }
}
