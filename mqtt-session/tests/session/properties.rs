//! Properties of pairs under random schedules: what each quality of service promises holds whatever
//! is cut, delayed or lost.

use std::collections::BTreeMap;

use mqtt_codec::{ProtocolVersion, QoS};
use mqtt_session::{Durability, Persistence};
use proptest::prelude::*;

use crate::{end::VERSIONS, pair::Pair};

#[derive(Debug, Clone)]
enum Op {
    Push {
        from: usize,
        qos: QoS,
    },
    Transmit {
        from: usize,
        limit: usize,
    },
    Receive {
        to: usize,
        bytes: usize,
    },
    Accept {
        at: usize,
        which: usize,
        pending: bool,
    },
    Reject {
        at: usize,
        which: usize,
    },
    WriteOut {
        at: usize,
        units: usize,
    },
    Cut {
        arrives: [usize; 2],
        maximum: [u16; 2],
        crashes: [bool; 2],
    },
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![1 => Just(QoS::AtMostOnce), 3 => Just(QoS::AtLeastOnce), 4 => Just(QoS::ExactlyOnce)]
}

fn op() -> impl Strategy<Value = Op> {
    let cut = (any::<[usize; 2]>(), [1u16..6, 1..6], any::<[u8; 2]>());
    prop_oneof![
        6 => (0usize..2, qos()).prop_map(|(from, qos)| Op::Push { from, qos }),
        8 => (0usize..2, 1usize..200).prop_map(|(from, limit)| Op::Transmit { from, limit }),
        8 => (0usize..2, 0usize..300).prop_map(|(to, bytes)| Op::Receive { to, bytes }),
        8 => (0usize..2, any::<usize>(), any::<bool>())
            .prop_map(|(at, which, pending)| Op::Accept { at, which: which % 3, pending }),
        1 => (0usize..2, 0usize..3).prop_map(|(at, which)| Op::Reject { at, which }),
        6 => (0usize..2, 0usize..4).prop_map(|(at, units)| Op::WriteOut { at, units }),
        2 => cut.prop_map(|(arrives, maximum, crashes)| Op::Cut {
            arrives,
            maximum,
            crashes: crashes.map(|n| n < 100),
        }),
    ]
}

fn version() -> impl Strategy<Value = ProtocolVersion> {
    prop::sample::select(VERSIONS.to_vec())
}

fn persistence() -> impl Strategy<Value = Persistence> {
    prop_oneof![Just(Persistence::Ephemeral), Just(Persistence::Durable)]
}

fn run(pair: &mut Pair, ops: Vec<Op>) {
    for op in ops {
        match op {
            Op::Push { from, qos } => pair.peers[from].push(qos),
            Op::Transmit { from, limit } => pair.transmit(from, limit),
            Op::Receive { to, bytes } => pair.receive(to, bytes),
            Op::Accept { at, which, pending } => {
                let durability = if pending {
                    Durability::Pending
                } else {
                    Durability::Now
                };
                pair.peers[at].decide(which, true, durability);
            }
            Op::Reject { at, which } => pair.peers[at].decide(which, false, Durability::Now),
            Op::WriteOut { at, units } => pair.peers[at].write_out(units),
            Op::Cut {
                arrives,
                maximum,
                crashes,
            } => pair.cut(arrives, maximum, crashes),
        }
        pair.check_restored(0);
        pair.check_restored(1);
    }
    pair.settle();
}

/// What one direction promised, against what came.
fn check(pair: &Pair, from: usize, is_cut: bool) {
    let receiver = &pair.peers[1 - from];
    let mut times = BTreeMap::<u64, usize>::new();
    for key in receiver.taken() {
        *times.entry(key).or_default() += 1;
    }
    let promised = pair.peers[from].promised();
    for message in &promised {
        let times = times.get(&message.key).copied().unwrap_or(0);
        let is_rejected = receiver.rejected.contains(&message.key);
        match message.qos {
            QoS::AtMostOnce => assert!(times <= 1),
            QoS::AtLeastOnce => {
                assert!(times >= 1 || is_rejected, "#{} is lost", message.key);
                assert!(
                    times <= 1 || is_cut,
                    "#{} came twice without a cut",
                    message.key
                );
            }
            QoS::ExactlyOnce => {
                assert!(times >= 1 || is_rejected, "#{} is lost", message.key);
                assert!(times <= 1, "#{} came {times} times", message.key);
            }
        }
    }
    // Also what the sender no longer knows of may not come twice.
    for (qos, key) in &receiver.seen {
        assert!(*qos != QoS::ExactlyOnce || times.get(key).copied().unwrap_or(0) <= 1);
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut last = None;
        let mut known = std::collections::BTreeSet::new();
        for (_, key) in receiver.seen.iter().filter(|(q, _)| *q == qos) {
            if known.insert(*key) {
                assert!(last < Some(*key), "#{key} came after #{last:?}");
                last = Some(*key);
            }
        }
    }
}

proptest! {
    /// QoS 0 at most once, 1 at least once, 2 exactly once, each in order; the Receive Maximum, the
    /// use of identifiers and DUP are checked with every packet. The session that the changes give back
    /// is compared after every step, and a crash goes on with what a prefix of them gives.
    #[test]
    fn promises_hold_over_cuts_delays_and_crashes(
        version in version(),
        persistence in [persistence(), persistence()],
        maximum in [1u16..6, 1..6],
        ops in prop::collection::vec(op(), 0..150),
    ) {
        let is_cut = ops.iter().any(|op| matches!(op, Op::Cut { .. }));
        let mut pair = Pair::new(version, persistence, maximum);
        run(&mut pair, ops);
        check(&pair, 0, is_cut);
        check(&pair, 1, is_cut);
    }
}

/// Many messages through small windows, without a cut: each comes once.
#[test]
fn a_quiet_link_delivers_everything_once() {
    for version in VERSIONS {
        for persistence in [Persistence::Ephemeral, Persistence::Durable] {
            let mut pair = Pair::new(version, [persistence; 2], [3, 7]);
            for n in 0..600 {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n % 3];
                pair.peers[n % 2].push(qos);
            }
            pair.settle();
            for from in [0, 1] {
                check(&pair, from, false);
                assert_eq!(pair.peers[from].taken().len(), 300);
            }
        }
    }
}
