//! What a sender holds: little where little is in flight, whatever was before, and the same messages.

use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::{Persistence, Time, Transmission};

/// A message without content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Blank(QoS);

impl Outgoing for Blank {
    type Buffer = Vec<u8>;

    fn qos(&self) -> QoS {
        self.0
    }

    fn topic(&self) -> &str {
        "t"
    }

    fn encoded_len(&self, _: &Transmission) -> usize {
        unreachable!("nothing is sent")
    }

    fn encode(&self, _: &Transmission, _: &mut Vec<u8>) {
        unreachable!("nothing is sent")
    }

    fn expires_at(&self) -> Option<Time> {
        None
    }

    fn size(&self) -> usize {
        1
    }

    fn key(&self) -> u64 {
        0
    }
}

const MANY: u16 = 400;

fn id(n: u16) -> PacketId {
    PacketId::new(n).unwrap()
}

/// As many messages as there are places for without growing, all published.
fn published(journal: &mut Journal) -> Outbound<Blank> {
    let mut outbound = Outbound::new();
    for n in 1..=MANY {
        let given = outbound.assign(Blank(QoS::ExactlyOnce), journal);
        assert_eq!(given, Some(id(n)));
    }
    outbound
}

/// Every message but the first and some others comes to its end: the places of those that are left are closed up, their
/// identifiers lead to them, and what was sent on this connection stays apart from what was not.
#[test]
fn holes_are_closed() {
    let mut journal = Journal::new(Persistence::Ephemeral);
    for sent in [0, 1, 20, MANY] {
        let mut outbound = published(&mut journal);
        let number_of = |outbound: &Outbound<Blank>, n: u16| match outbound.ids.get(id(n)) {
            Some(Use::Published(number) | Use::Released(number)) => number,
            other => panic!("{n} is {other:?}"),
        };
        outbound.next_publish = outbound.published.first().wrapping_add(sent.into());
        let is_left = |n: &u16| n % 64 == 1;
        for n in (1..=MANY).filter(|n| !is_left(n)) {
            let number = number_of(&outbound, n);
            assert!(outbound.unpublish(number).is_some());
            outbound.ids.remove(id(n));
        }
        assert!(!outbound.published.is_sparse());
        for n in (1..=MANY).filter(is_left) {
            let number = number_of(&outbound, n);
            assert_eq!(outbound.published.get(number).unwrap().packet_id, id(n));
            assert_eq!(
                is_before(number, outbound.next_publish),
                n <= sent,
                "{n} of {sent}"
            );
        }

        // The same of those whose PUBREC came.
        let mut outbound = published(&mut journal);
        for n in 1..=MANY {
            outbound.restore_released(id(n), None);
        }
        outbound.next_release = outbound.released.first().wrapping_add(sent.into());
        for n in (1..=MANY).filter(|n| !is_left(n)) {
            let number = number_of(&outbound, n);
            assert!(outbound.unrelease(number).is_some());
            outbound.ids.remove(id(n));
        }
        assert!(!outbound.released.is_sparse());
        for n in (1..=MANY).filter(is_left) {
            let number = number_of(&outbound, n);
            assert_eq!(outbound.released.get(number).unwrap().packet_id, id(n));
            assert_eq!(
                is_before(number, outbound.next_release),
                n <= sent,
                "{n} of {sent}"
            );
        }
    }
}

/// What many messages took is given back when few are left, and those are still there.
#[test]
fn spare_memory_is_given_back() {
    let mut journal = Journal::new(Persistence::Ephemeral);
    let mut outbound = published(&mut journal);
    for n in 2..=MANY {
        let Some(Use::Published(number)) = outbound.ids.get(id(n)) else {
            panic!("{n} is not published");
        };
        outbound.unpublish(number);
        outbound.ids.remove(id(n));
    }
    let before = outbound.ids.slots_len();
    outbound.shrink();
    assert!(outbound.ids.slots_len() < before / 8);
    let left: Vec<String> = outbound
        .in_flight()
        .map(|it| alloc::format!("{} {:?}", it.packet_id, it.handle))
        .collect();
    assert_eq!(left, ["1 Some(Blank(ExactlyOnce))"]);
}
