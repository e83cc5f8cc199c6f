//! What can happen to a pair, and what must hold afterwards. The fuzz target `session_ops` uses it too.

use std::collections::{BTreeMap, BTreeSet};

use mqtt_codec::QoS;
use mqtt_session::Durability;

use crate::pair::Pair;

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Op {
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
    /// Spare memory is given back, which nobody may notice.
    Shrink {
        at: usize,
    },
    Cut {
        arrives: [usize; 2],
        maximum: [u16; 2],
        crashes: [bool; 2],
    },
}

/// Does all of it, then lets the pair come to rest.
pub(crate) fn run(pair: &mut Pair, ops: Vec<Op>) {
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
            Op::Shrink { at } => pair.peers[at].shrink(),
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
pub(crate) fn check(pair: &Pair, from: usize, is_cut: bool) {
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
        let mut known = BTreeSet::new();
        for (_, key) in receiver.seen.iter().filter(|(q, _)| *q == qos) {
            if known.insert(*key) {
                assert!(last < Some(*key), "#{key} came after #{last:?}");
                last = Some(*key);
            }
        }
    }
}
