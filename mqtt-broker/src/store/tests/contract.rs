//! What holds of an engine wherever its records are.

use mqtt_codec::SubscriptionOptions;
use mqtt_router::Subscription;

use super::place::{Directory, Place, Program, open};
use super::portions::read_all;
use super::{CLOCK, body, commit, message, packet, queued, session};
use crate::config::Durability;
use crate::store::engine::Engine;
use crate::store::record::{Clock, Op, WallTime};

/// Runs each of these on files and in memory.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_files {
            $(#[test] fn $name() { super::$name::<super::Directory>(); })*
        }
        mod in_memory {
            $(#[test] fn $name() { super::$name::<super::Program>(); })*
        }
    };
}

on_both! {
    what_comes_and_goes_in_one_commit_costs_no_write,
    a_long_queue_goes_in_portions,
    names_may_be_as_long_as_the_protocol_allows,
    retained_messages_expire_while_the_store_is_closed,
    the_time_of_the_last_commit_does_not_go_back,
    a_damaged_record_costs_no_other,
    several_values_of_a_topic_are_written_once,
    a_place_is_used_by_one,
    what_is_damaged_among_messages_is_left_out,
}

fn what_comes_and_goes_in_one_commit_costs_no_write<P: Place>() {
    let place = P::default();
    let mut engine = open(&place).0;
    commit(&mut engine, &[session(1, 1)]);
    let before = engine.records();
    let ops = [
        body(1),
        queued(1, 1, Some(1)),
        Op::Received(1, packet(1)),
        Op::Sent(1, packet(1), 1),
        Op::Dequeued(1, 1, Some(1)),
        Op::Forgotten(1, packet(1)),
        Op::Completed(1, packet(1)),
    ];
    let records = engine.commit(&ops, WallTime(1), Durability::Os).unwrap();
    assert_eq!(records, 1, "the time of the commit");
    assert_eq!(engine.records(), before);
}

fn a_long_queue_goes_in_portions<P: Place>() {
    let place = P::default();
    let mut engine = open(&place).0;
    let mut ops = vec![session(1, 1), session(2, 1), body(0), queued(2, 0, Some(0))];
    ops.extend((0..10_000).map(|key| queued(1, key, (key == 9_999).then_some(0))));
    commit(&mut engine, &ops);
    commit(&mut engine, &[Op::SessionEnded(1)]);
    drop(engine);
    let (mut engine, contents) = open(&place);
    assert_eq!(contents.sessions.len(), 1);
    assert_ne!(engine.records(), [1, 1]);
    for _ in 0..2 {
        commit(&mut engine, &[]);
    }
    assert_eq!(engine.records(), [1, 1]);
    commit(&mut engine, &[Op::Dequeued(2, 0, Some(0))]);
    assert_eq!(engine.records(), [0, 0]);
}

fn names_may_be_as_long_as_the_protocol_allows<P: Place>() {
    let place = P::default();
    let mut engine = open(&place).0;
    let long = "x".repeat(65_535);
    let subscription = Subscription::new(SubscriptionOptions::default());
    let ops = [
        session(1, 1),
        Op::Subscribed(1, long.as_str().into(), subscription),
        Op::Subscribed(1, long[1..].into(), subscription),
        Op::Retained(message(&long, "v"), None, None),
    ];
    commit(&mut engine, &ops);
    drop(engine);
    let (_, contents) = open(&place);
    assert_eq!(contents.sessions[0].subscriptions.len(), 2);
    assert_eq!(contents.retained[0].0.topic(), long);
}

fn retained_messages_expire_while_the_store_is_closed<P: Place>() {
    let place = P::default();
    let mut engine = open(&place).0;
    let at = |millis| Some(WallTime(CLOCK.origin.0 + millis));
    let ops = [
        Op::Retained(message("gone", "v"), at(0), None),
        Op::Retained(message("again", "v"), at(0), None),
        Op::Retained(message("there", "v"), at(1), None),
    ];
    commit(&mut engine, &ops);
    drop(engine);
    let (mut engine, contents) = open(&place);
    assert_eq!(contents.retained.len(), 1);
    assert_eq!(
        contents.retained[0].0.expires_at,
        Some(CLOCK.time(at(1).unwrap()))
    );
    commit(
        &mut engine,
        &[Op::Retained(message("again", "v"), None, None)],
    );
    drop(engine);
    let clock = Clock {
        origin: WallTime(0),
    };
    let contents = place.open().load(clock, usize::MAX);
    assert_eq!(contents.unwrap().retained.len(), 2);
}

fn the_time_of_the_last_commit_does_not_go_back<P: Place>() {
    let place = P::default();
    let mut engine = place.open();
    assert_eq!(engine.last_commit_at(), None);
    assert!(engine.commit(&[], WallTime(7), Durability::Disk).is_err());
    engine.load(CLOCK, usize::MAX).unwrap();
    engine.commit(&[], WallTime(7), Durability::Disk).unwrap();
    engine.commit(&[], WallTime(5), Durability::Disk).unwrap();
    drop(engine);
    let engine = place.open();
    assert_eq!(engine.last_commit_at(), Some(WallTime(7)));
}

fn a_damaged_record_costs_no_other<P: Place>() {
    let place = P::default();
    let mut engine = open(&place).0;
    commit(
        &mut engine,
        &[session(1, 1), queued(1, 1, None), queued(1, 2, None)],
    );
    engine.damage(1, 1);
    drop(engine);
    let mut engine = place.open();
    let contents = engine.load(CLOCK, usize::MAX).unwrap();
    assert_eq!(contents.skipped, 1);
    let keys: Vec<_> = contents.sessions[0].entries.iter().map(|it| it.0).collect();
    assert_eq!(keys, [2]);
}

/// Of the values that a topic gets within one commit the last is written, and nothing else.
fn several_values_of_a_topic_are_written_once<P: Place>() {
    let place = P::default();
    let mut engine = open(&place).0;
    let value = |topic, payload: &str| Op::Retained(message(topic, payload), None, None);
    let mut ops: Vec<_> = (0..100).map(|it| value("a", &it.to_string())).collect();
    ops.extend([
        value("b", "1"),
        Op::RetainedCleared("b".into()),
        value("b", "2"),
    ]);
    ops.extend([value("c", "1"), Op::RetainedCleared("c".into())]);
    let records = engine.commit(&ops, WallTime(1), Durability::Os).unwrap();
    assert_eq!(
        records,
        3 + 1,
        "one for each topic, and the time of the commit"
    );
    drop(engine);
    let kept = open(&place).1.retained;
    let kept: Vec<_> = kept
        .iter()
        .map(|(message, _)| (message.topic(), message.parts().payload))
        .collect();
    assert_eq!(kept, [("a", &b"99"[..]), ("b", b"2")]);
}

fn a_place_is_used_by_one<P: Place>() {
    let place = P::default();
    let engine = place.open();
    let refused = place.try_open().unwrap_err();
    assert!(
        refused.to_string().ends_with("is in use by another broker"),
        "{refused}"
    );
    drop(engine);
    place.open();
}

/// A damaged message costs no other one, whether it is at the head of the queue or not.
fn what_is_damaged_among_messages_is_left_out<P: Place>() {
    let place = P::default();
    let mut engine = open(&place).0;
    let mut ops = vec![session(1, 1)];
    ops.extend((1..=4).map(|key| queued(1, key, None)));
    commit(&mut engine, &ops);
    engine.damage(1, 2);
    engine.damage(1, 4);
    let read = read_all(&*engine.reader(), 1, 1, usize::MAX);
    assert_eq!(read.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 3]);
    drop(engine);
    let mut engine = place.open();
    let contents = engine.load(CLOCK, 1).unwrap();
    assert_eq!((contents.skipped, contents.sessions[0].queued()), (2, 2));
}
