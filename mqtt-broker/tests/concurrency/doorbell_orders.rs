//! An outbox: two publishers leave messages, the task of the session takes them. None is left lying.

use loom::sync::{Arc, Mutex};

use crate::doorbell::Doorbell;
use crate::executor::{Bed, in_every_order, is_found, spawn};

#[derive(Default)]
struct Outbox {
    doorbell: Doorbell,
    messages: usize,
}

/// As `collect` of a connection does it.
fn look(outbox: &Mutex<Outbox>, bed: &std::sync::Arc<Bed>) -> usize {
    let mut outbox = outbox.lock().unwrap();
    outbox.doorbell.answer(&bed.waker());
    core::mem::take(&mut outbox.messages)
}

fn deliver(publishers: usize, look: fn(&Mutex<Outbox>, &std::sync::Arc<Bed>) -> usize) {
    let outbox = Arc::new(Mutex::new(Outbox::default()));
    let publishers: Vec<_> = (0..publishers)
        .map(|_| {
            let outbox = Arc::clone(&outbox);
            spawn(move || {
                let mut outbox = outbox.lock().unwrap();
                outbox.messages += 1;
                let waker = outbox.doorbell.ring();
                drop(outbox);
                if let Some(waker) = waker {
                    waker.wake();
                }
            })
        })
        .collect();
    let bed = Bed::new();
    let mut received = 0;
    loop {
        received += look(&outbox, &bed);
        if received == publishers.len() {
            break;
        }
        bed.sleep();
    }
    for publisher in publishers {
        publisher.join().unwrap();
    }
}

#[test]
fn no_message_is_left_lying() {
    in_every_order(|| deliver(1, look));
    in_every_order(|| deliver(2, look));
}

/// What comes between is taken for looked at.
#[test]
fn to_answer_after_the_look_is_found() {
    is_found(
        "doorbell_orders::to_answer_after_the_look_is_found",
        "deadlock",
        || {
            deliver(1, |outbox, bed| {
                let found = core::mem::take(&mut outbox.lock().unwrap().messages);
                outbox.lock().unwrap().doorbell.answer(&bed.waker());
                found
            });
        },
    );
}

/// Who is not told where to ring sleeps for good.
#[test]
fn to_look_without_an_answer_is_found() {
    is_found(
        "doorbell_orders::to_look_without_an_answer_is_found",
        "deadlock",
        || {
            deliver(2, |outbox, bed| {
                let mut outbox = outbox.lock().unwrap();
                if outbox.messages == 0 {
                    outbox.doorbell.answer(&bed.waker());
                }
                core::mem::take(&mut outbox.messages)
            });
        },
    );
}
