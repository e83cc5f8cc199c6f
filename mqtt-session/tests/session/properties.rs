//! Properties of pairs under random schedules: what each quality of service promises holds whatever
//! is cut, delayed or lost.

use mqtt_codec::{ProtocolVersion, QoS};
use mqtt_session::Persistence;
use proptest::prelude::*;

use crate::{
    end::VERSIONS,
    pair::Pair,
    schedule::{Op, check, run},
};

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
        1 => (0usize..2).prop_map(|at| Op::Shrink { at }),
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
