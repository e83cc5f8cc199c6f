//! Queues that are read in parts, from the engine.

use proptest::collection::vec;
use proptest::prelude::*;

use super::place::{Directory, Place, Program, open};
use super::{CLOCK, body, commit, packet, queued, session};
use crate::store::engine::{Engine, Reader};
use crate::store::record::{Key, Op, Portion, SessionNumber, Span};

/// Keys and payloads.
pub(super) type Messages = Vec<(Key, Vec<u8>)>;

fn messages(portion: &Portion) -> Messages {
    let entries = portion.entries.iter();
    entries
        .map(|(key, entry)| (*key, entry.message.parts().payload.to_vec()))
        .collect()
}

/// All of a span, in parts of so many bytes.
pub(super) fn read_all(
    reader: &dyn Reader,
    session: SessionNumber,
    from: Key,
    bytes: usize,
) -> Messages {
    let mut all = Vec::new();
    let mut span = Span {
        session,
        from,
        until: 1_000,
        bytes,
    };
    while span.from < span.until {
        let portion = reader.read(&span, CLOCK).unwrap();
        assert_eq!(portion.from, span.from);
        assert!(portion.next > span.from);
        assert!(portion.entries.iter().all(|(key, _)| *key < portion.next));
        all.extend(messages(&portion));
        span.from = portion.next;
    }
    all
}

/// The head of each queue and what is read behind it make the queue, and are counted as what they are.
fn check<P: Place>(
    entries: Vec<(SessionNumber, bool, bool)>,
    sent: Option<usize>,
    window: usize,
    bytes: usize,
) -> Result<(), TestCaseError> {
    let place = P::default();
    let mut engine = open(&place).0;
    let mut ops: Vec<_> = (0..3).map(|number| session(number, 1)).collect();
    for (key, (number, shared, gone)) in (1..).zip(entries) {
        if shared {
            ops.push(body(key));
            ops.push(queued((number + 1) % 3, key, Some(key)));
        }
        ops.push(queued(number, key, shared.then_some(key)));
        if gone {
            ops.push(Op::Dequeued(number, key, shared.then_some(key)));
        }
    }
    commit(&mut engine, &ops);
    let before = engine.reader();
    let whole = engine.load(CLOCK, usize::MAX).unwrap();
    let stored = &whole.sessions[0].entries;
    let sent = sent.and_then(|nth| Some(stored.get(nth)?.0));
    if let Some(key) = sent {
        commit(&mut engine, &[Op::Sent(0, packet(1), key)]);
    }
    for stored in &whole.sessions {
        let all = read_all(&*before, stored.number, 0, bytes);
        let expected = stored.entries.iter();
        let expected: Messages = expected
            .map(|(key, entry)| (*key, entry.message.parts().payload.to_vec()))
            .collect();
        prop_assert_eq!(all, expected);
    }
    drop((before, engine));
    let mut engine = place.open();
    let heads = engine.load(CLOCK, window).unwrap();
    let reader = engine.reader();
    for (head, whole) in heads.sessions.iter().zip(&whole.sessions) {
        let mut keys: Vec<_> = head.entries.iter().map(|(key, _)| *key).collect();
        if head.number == 0
            && let Some(sent) = sent
        {
            prop_assert!(keys.contains(&sent), "what is in flight is held");
        }
        prop_assert_eq!(head.queued(), whole.entries.len());
        if let Some(rest) = head.rest {
            let behind = read_all(&*reader, head.number, rest.first, bytes);
            prop_assert_eq!(behind.len(), rest.messages);
            prop_assert_eq!(behind.first().map(|it| it.0), Some(rest.first));
            prop_assert_eq!(behind.last().map(|it| it.0), Some(rest.last));
            let sizes = whole.entries.iter().filter(|(key, _)| *key >= rest.first);
            let sizes = sizes.map(|(_, entry)| entry.message.size());
            prop_assert_eq!(rest.bytes, sizes.sum::<usize>());
            keys.extend(behind.iter().map(|it| it.0));
        }
        let expected: Vec<_> = whole.entries.iter().map(|(key, _)| *key).collect();
        prop_assert_eq!(keys, expected);
    }
    Ok(())
}

type Case = (
    Vec<(SessionNumber, bool, bool)>,
    Option<usize>,
    usize,
    usize,
);

fn cases() -> impl Strategy<Value = Case> {
    (
        vec((0..3_u64, any::<bool>(), any::<bool>()), 0..80),
        proptest::option::of(0..40_usize),
        prop_oneof![Just(0), 1..4_000_usize],
        prop_oneof![Just(0), 1..2_000_usize],
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_queue_is_read_in_parts_from_files((entries, sent, window, bytes) in cases()) {
        check::<Directory>(entries, sent, window, bytes)?;
    }

    #[test]
    fn a_queue_is_read_in_parts_from_memory((entries, sent, window, bytes) in cases()) {
        check::<Program>(entries, sent, window, bytes)?;
    }
}
