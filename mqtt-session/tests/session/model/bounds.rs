//! What is explored, and that nothing is found.

use std::{env, num::NonZeroU16, time::Instant};

use mqtt_codec::{ProtocolVersion, QoS};
use mqtt_session::Persistence::{self, Durable, Ephemeral};

use super::{
    search::explore,
    setup::{Restart, Setup},
};
use crate::end::{V3, V5};

pub(super) const Q0: QoS = QoS::AtMostOnce;
pub(super) const Q1: QoS = QoS::AtLeastOnce;
pub(super) const Q2: QoS = QoS::ExactlyOnce;

/// Two messages: what the client sends, then what the server sends.
const MESSAGES: [[&[QoS]; 2]; 13] = [
    [&[Q0, Q0], &[]],
    [&[], &[Q0, Q0]],
    [&[Q1, Q1], &[]],
    [&[], &[Q1, Q1]],
    [&[Q2, Q2], &[]],
    [&[], &[Q2, Q2]],
    [&[Q1, Q2], &[]],
    [&[], &[Q1, Q2]],
    [&[Q2, Q1], &[]],
    [&[], &[Q2, Q1]],
    [&[Q1], &[Q1]],
    [&[Q1], &[Q2]],
    [&[Q2], &[Q2]],
];
const VERSIONS: [ProtocolVersion; 2] = [V3, V5];

/// Explores all of them; prints and checks the sum.
fn check(name: &str, setups: impl IntoIterator<Item = Setup>) {
    let start = Instant::now();
    let (mut count, mut states, mut transitions) = (0, 0, 0);
    for setup in setups {
        let found = explore(setup.clone());
        if let Some(violation) = found.violation {
            panic!("{setup:?}\n{violation}");
        }
        count += 1;
        states += found.states;
        transitions += found.transitions;
    }
    println!(
        "{name}: {count} systems, {states} states, {transitions} transitions, {:.1} s",
        start.elapsed().as_secs_f64()
    );
}

fn with_messages(version: ProtocolVersion) -> impl Iterator<Item = Setup> {
    MESSAGES
        .into_iter()
        .map(move |messages| Setup::new(version, messages))
}

fn window(setup: Setup, window: u16) -> Setup {
    Setup {
        window: NonZeroU16::new(window).unwrap(),
        ..setup
    }
}

fn persistent(setup: Setup, persistence: [Persistence; 2]) -> Setup {
    Setup {
        persistence,
        ..setup
    }
}

fn faults(setup: Setup, cuts: u8, crashes: u8) -> Setup {
    Setup {
        cuts,
        crashes,
        ..setup
    }
}

/// Both ends have a store and may crash.
#[test]
fn both_ends_are_durable() {
    for (version, n) in [(V5, 1), (V5, 2), (V3, 2)] {
        let setups = with_messages(version).map(|setup| window(setup, n));
        check(&format!("durable, {version:?}, window {n}"), setups);
    }
}

/// The other end is in memory and does not crash.
#[test]
fn one_end_is_durable() {
    for persistence in [[Ephemeral, Durable], [Durable, Ephemeral]] {
        let setups = with_messages(V5).map(|setup| persistent(setup, persistence));
        check(&format!("client and server {persistence:?}"), setups);
    }
}

#[test]
fn no_end_is_durable() {
    for version in VERSIONS {
        let setups =
            with_messages(version).map(|setup| faults(persistent(setup, [Ephemeral; 2]), 3, 0));
        check(&format!("in memory, {version:?}"), setups);
    }
}

/// The store keeps a table of what is in flight instead of a log of changes.
#[test]
fn a_table_restores_as_well_as_a_log() {
    let setups = with_messages(V5).map(|setup| Setup {
        restart: Restart::Table,
        ..setup
    });
    check("table", setups);
}

#[test]
fn messages_are_taken_in_any_order() {
    let messages: [[&[QoS]; 2]; 4] = [
        [&[Q1, Q1], &[]],
        [&[Q2, Q2], &[]],
        [&[Q1, Q2], &[]],
        [&[], &[Q2, Q2]],
    ];
    let setups = messages.map(|messages| Setup {
        takes_in_any_order: true,
        ..Setup::new(V5, messages)
    });
    check("any order", setups);
}

#[test]
fn two_faults_of_each_kind() {
    let messages: [[&[QoS]; 2]; 4] = [
        [&[Q2, Q2], &[]],
        [&[], &[Q2, Q2]],
        [&[Q1, Q2], &[]],
        [&[Q2], &[Q2]],
    ];
    let setups = messages.map(|messages| faults(Setup::new(V5, messages), 2, 2));
    check("two faults of each kind", setups);
}

/// Each connection has its own Receive Maximum.
#[test]
fn the_window_narrows_and_widens() {
    let messages: [[&[QoS]; 2]; 4] = [
        [&[Q1, Q1], &[]],
        [&[Q2, Q2], &[]],
        [&[Q2, Q1], &[]],
        [&[], &[Q2, Q2]],
    ];
    let setups = messages.map(|messages| Setup {
        narrows: true,
        ..Setup::new(V5, messages)
    });
    check("any window up to 2", setups);
}

#[test]
fn three_messages() {
    let messages: [[&[QoS]; 2]; 2] = [[&[Q2, Q2, Q2], &[]], [&[], &[Q2, Q2, Q2]]];
    check(
        "three messages",
        messages.map(|messages| Setup::new(V5, messages)),
    );
}

/// Wider bounds where `MODEL_BOUNDS=wide` asks for them: 6 minutes and 3 GB, in release.
#[test]
fn wide_bounds() {
    if env::var_os("MODEL_BOUNDS").is_none_or(|bounds| bounds != "wide") {
        println!("MODEL_BOUNDS=wide explores more");
        return;
    }
    for version in VERSIONS {
        for restart in [Restart::Log, Restart::Table] {
            for n in [1, 2] {
                let setups = with_messages(version)
                    .map(|setup| faults(window(Setup { restart, ..setup }, n), 2, 2));
                check(&format!("{version:?}, {restart:?}, window {n}"), setups);
            }
        }
    }
    let setups = with_messages(V5).map(|setup| Setup {
        takes_in_any_order: true,
        ..faults(setup, 2, 2)
    });
    check("any order", setups);
    let setups = with_messages(V5).map(|setup| Setup {
        narrows: true,
        ..faults(setup, 2, 2)
    });
    check("any window up to 2", setups);
    for persistence in [[Ephemeral, Durable], [Durable, Ephemeral]] {
        let setups = with_messages(V5).map(|setup| faults(persistent(setup, persistence), 2, 2));
        check(&format!("client and server {persistence:?}"), setups);
    }
    let setups = with_messages(V5).map(|setup| faults(setup, 3, 3));
    check("three faults of each kind", setups);
    let three: [[&[QoS]; 2]; 6] = [
        [&[Q1, Q1, Q1], &[]],
        [&[Q2, Q2, Q2], &[]],
        [&[], &[Q2, Q2, Q2]],
        [&[Q2, Q1, Q2], &[]],
        [&[Q1, Q2], &[Q2]],
        [&[Q2, Q2], &[Q2]],
    ];
    for n in [2, 3] {
        let setups = three.map(|messages| window(Setup::new(V5, messages), n));
        check(&format!("three messages, window {n}"), setups);
    }
    let setups = three.map(|messages| faults(Setup::new(V5, messages), 2, 2));
    check("three messages, two faults of each kind", setups);
}
