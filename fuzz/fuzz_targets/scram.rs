//! Messages of SCRAM-SHA-256: whatever a client says, it is let in by the proof that it knows the password and by
//! nothing else; and what the server says is what the standard has it say.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mqtt_broker::fuzzing::{scram, scram_last};

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    /// Any two messages.
    Bytes {
        /// Whether the first message begins as it should.
        begun: bool,
        first: &'a [u8],
        /// Whether the last message begins as it should.
        echoed: bool,
        last: &'a [u8],
    },
    /// A client that knows the password, with this nonce, or another one, of whose last message bytes are changed.
    Proof {
        nonce: &'a str,
        change: &'a [u8],
        at: u16,
        /// Another message in the exchange than the one that was sent.
        other: bool,
    },
}

/// What the server says to a first message with this nonce.
fn check_first(server_first: &str, theirs: &str) {
    let mut parts = server_first.split(',');
    let nonce = parts.next().and_then(|part| part.strip_prefix("r="));
    let ours = nonce.and_then(|nonce| nonce.strip_prefix(theirs));
    assert!(ours.is_some_and(|ours| ours.len() >= 24), "{server_first}");
    assert!(parts.next().is_some_and(|part| part.starts_with("s=")));
    assert_eq!(parts.next(), Some("i=1000"), "the user is known or not");
    assert_eq!(parts.next(), None);
}

fn bytes(begun: bool, first: &[u8], echoed: bool, last: &[u8]) {
    let mut message = Vec::new();
    if begun {
        message.extend_from_slice(b"n,,n=");
    }
    message.extend_from_slice(first);
    let answer = scram(&message, |server_first| {
        let mut answer = Vec::new();
        if echoed {
            let nonce = server_first.split(',').next().unwrap_or_default();
            answer.extend_from_slice(format!("c=biws,{nonce}").as_bytes());
        }
        answer.extend_from_slice(last);
        answer
    });
    let Some((server_first, let_in)) = answer else {
        return;
    };
    assert!(!let_in, "let in by {last:?}");
    // Only text with a header, a name and a nonce begins an exchange.
    let text = core::str::from_utf8(&message).expect("a first message is text");
    let theirs = text
        .split(',')
        .nth(3)
        .and_then(|part| part.strip_prefix("r="));
    check_first(&server_first, theirs.expect("a nonce is third"));
}

fn proof(nonce: &str, change: &[u8], at: usize, other: bool) {
    let bare = format!("n=user,r={nonce}");
    let mut right = Vec::new();
    let mut sent = Vec::new();
    let answer = scram(format!("n,,{bare}").as_bytes(), |server_first| {
        right = scram_last(&bare, server_first).into_bytes();
        sent = match other {
            true => scram_last("n=user,r=x", server_first).into_bytes(),
            false => right.clone(),
        };
        let at = at % (sent.len() + 1);
        let end = sent.len().min(at + change.len());
        sent.splice(at..end, change.iter().copied());
        sent.clone()
    });
    let is_nonce = (1..=256).contains(&nonce.len())
        && nonce
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',');
    let Some((server_first, let_in)) = answer else {
        assert!(!is_nonce, "{nonce:?} is a nonce");
        return;
    };
    let theirs = nonce.split(',').next().unwrap_or_default();
    check_first(&server_first, theirs);
    // What follows a comma is an extension, and part of what is proven.
    assert_eq!(let_in, sent == right, "{nonce:?} {change:?}");
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Bytes {
            begun,
            first,
            echoed,
            last,
        } => bytes(begun, first, echoed, last),
        Input::Proof {
            nonce,
            change,
            at,
            other,
        } => proof(nonce, change, at.into(), other),
    }
});
