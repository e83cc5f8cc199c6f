//! That the checker sees what is broken: each rule that is left out is found, and the shortest way to
//! see it is printed.

use std::num::NonZeroU16;

use mqtt_codec::QoS;

use super::{
    bounds::{Q1, Q2},
    search::explore,
    setup::{Kind, Mutant, Restart, Setup},
};
use crate::end::V5;

/// What breaks when two messages go from the client to the server, which has room for `window`.
fn found(mutant: Mutant, qos: QoS, window: u16) -> Option<String> {
    let messages = [qos, qos];
    let setup = Setup {
        mutant: Some(mutant),
        window: NonZeroU16::new(window).unwrap(),
        crashes: 2,
        restart: Restart::Table,
        ..Setup::new(V5, [&messages, &[]])
    };
    let violation = explore(setup).violation?;
    println!(
        "{mutant:?}, QoS {}, {} steps\n{violation}",
        qos as u8,
        violation.steps.len()
    );
    Some(violation.what)
}

fn check(mutant: Mutant, qos: QoS, what: &str) {
    assert_eq!(found(mutant, qos, 2).as_deref(), Some(what), "{mutant:?}");
}

/// Without the received identifiers in the saved state, a QoS 2 message comes twice.
#[test]
fn received_identifiers_that_are_not_saved_are_found() {
    let mutant = Mutant::Loses(Kind::InboundReceived);
    check(mutant, Q2, "#1 is taken twice at QoS 2");
}

#[test]
fn every_other_change_that_is_not_saved_is_found() {
    let lost = |kind, what| check(Mutant::Loses(kind), Q2, what);
    lost(Kind::Sent, "#1 is sent again without DUP");
    lost(Kind::PubRecReceived, "#1 is taken twice at QoS 2");
    lost(Kind::InboundReleased, "#2 is taken for a duplicate of #1");
    // The identifier of a message that has ended is given to the next one.
    lost(
        Kind::Completed,
        "PubComp: identifier 1 is that of something else",
    );
}

#[test]
fn output_that_leaves_before_its_change_is_durable_is_found() {
    // One message at a time: what is released early takes all before it along.
    let early = |kind, qos, what| {
        let found = found(Mutant::ReleasesEarly(kind), qos, 1);
        assert_eq!(found.as_deref(), Some(what), "{kind:?}");
    };
    let lost = "#1 is acknowledged, but a crash may lose it";
    early(Kind::Taken, Q1, lost);
    early(Kind::InboundReceived, Q2, lost);
    early(Kind::Sent, Q2, "#1 is sent again without DUP");
    early(Kind::PubRecReceived, Q2, "#1 is taken twice at QoS 2");
    early(
        Kind::InboundReleased,
        Q2,
        "#2 is taken for a duplicate of #1",
    );
    assert_eq!(
        found(Mutant::ReleasesEarly(Kind::Completed), Q2, 1),
        None,
        "nothing waits for it"
    );
}

#[test]
fn what_is_in_flight_and_not_restored_is_found() {
    for qos in [Q1, Q2] {
        check(Mutant::ForgetsInFlight, qos, "#1 is lost");
    }
}

#[test]
fn a_message_and_its_change_in_two_units_are_found() {
    let what = "#1 is acknowledged, but a crash may lose it";
    for qos in [Q1, Q2] {
        check(Mutant::SplitsUnits, qos, what);
    }
}

#[test]
fn a_store_that_never_answers_is_found() {
    check(
        Mutant::KeepsSilent,
        Q1,
        "it comes to rest with something left",
    );
    check(Mutant::KeepsSilent, Q2, "#1 is lost");
}

#[test]
fn another_order_is_found() {
    for qos in [Q1, Q2] {
        check(Mutant::TakesInAnyOrder, qos, "#1 is taken after #2");
    }
}

#[test]
fn a_window_too_wide_is_found() {
    for qos in [Q1, Q2] {
        let found = found(Mutant::WidensWindow, qos, 1);
        assert_eq!(found.as_deref(), Some("beyond the Receive Maximum of 1"));
    }
}
