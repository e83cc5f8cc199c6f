//! Batches of changes: connections submit and wait for their tickets, one thread commits. Everybody is woken, and
//! nobody before the change is committed.

use loom::sync::{Arc, Mutex};

use crate::batches::{Batches, Waited};
use crate::executor::{Bed, in_every_order, is_found, spawn};

/// What the thread that commits does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    AnnounceFirst,
}

/// How a connection waits for its ticket.
type Wait = fn(&Batches<u32>, crate::batches::Ticket, &std::sync::Arc<Bed>);

/// As `Store::durable` does it.
fn wait(batches: &Batches<u32>, ticket: crate::batches::Ticket, bed: &std::sync::Arc<Bed>) {
    while !batches.is_durable(ticket) && batches.wake_when_durable(ticket, &bed.waker()) {
        bed.sleep();
    }
}

fn commit(batches: &Batches<u32>, disk: &Mutex<Vec<u32>>, mistake: Mistake) {
    let mut items = Vec::new();
    loop {
        match batches.wait(&mut items, || None) {
            Waited::Changes(taken) if mistake == Mistake::AnnounceFirst => {
                batches.announce(&taken, || {});
                disk.lock().unwrap().append(&mut items);
            }
            Waited::Changes(taken) => {
                disk.lock().unwrap().append(&mut items);
                batches.announce(&taken, || {});
            }
            Waited::Closing => return,
            Waited::Nothing => unreachable!("it waits without end"),
        }
    }
}

fn store(connections: u32, wait: Wait, mistake: Mistake) {
    let batches = Arc::new(Batches::new());
    let disk = Arc::new(Mutex::new(Vec::new()));
    let committer = {
        let (batches, disk) = (Arc::clone(&batches), Arc::clone(&disk));
        spawn(move || commit(&batches, &disk, mistake))
    };
    let submit = move |number: u32, batches: &Batches<u32>, disk: &Mutex<Vec<u32>>| {
        let ticket = batches.submit(&mut vec![number], 1, false);
        wait(batches, ticket, &Bed::new());
        assert!(
            disk.lock().unwrap().contains(&number),
            "{number} is not there"
        );
    };
    let others: Vec<_> = (1..connections)
        .map(|number| {
            let (batches, disk) = (Arc::clone(&batches), Arc::clone(&disk));
            spawn(move || submit(number, &batches, &disk))
        })
        .collect();
    submit(0, &batches, &disk);
    for other in others {
        other.join().unwrap();
    }
    batches.close();
    committer.join().unwrap();
    assert_eq!(batches.pending(), 0);
}

#[test]
fn everybody_is_woken_when_the_change_is_there() {
    in_every_order(|| store(1, wait, Mistake::None));
    in_every_order(|| store(2, wait, Mistake::None));
}

#[test]
fn to_announce_before_the_commit_is_found() {
    is_found(
        "ticket_orders::to_announce_before_the_commit_is_found",
        "is not there",
        || store(1, wait, Mistake::AnnounceFirst),
    );
}

/// What is announced between the look and the sleep wakes nobody.
#[test]
fn to_sleep_on_an_old_look_is_found() {
    is_found(
        "ticket_orders::to_sleep_on_an_old_look_is_found",
        "deadlock",
        || {
            let wait: Wait = |batches, ticket, bed| {
                if !batches.is_durable(ticket) {
                    let _ = batches.wake_when_durable(ticket, &bed.waker());
                    bed.sleep();
                }
            };
            store(1, wait, Mistake::None);
        },
    );
}
