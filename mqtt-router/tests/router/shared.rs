//! Shared groups: even rotation, the fallback classes, membership.

use mqtt_codec::SubscriptionOptions;
use mqtt_router::{Readiness, SharedGroup, Subscription};
use proptest::prelude::*;

fn plain() -> Subscription {
    Subscription::new(SubscriptionOptions::default())
}

fn group(members: u32) -> SharedGroup<u32> {
    let mut group = SharedGroup::new();
    for key in 0..members {
        assert_eq!(group.insert(key, plain()), None);
    }
    group
}

fn chosen(group: &SharedGroup<u32>, readiness: impl Fn(&u32) -> Readiness) -> Option<u32> {
    group.choose(|key, _| readiness(key)).map(|(key, _)| key)
}

#[test]
fn an_empty_group_has_no_member_to_choose() {
    let mut group = group(1);
    assert_eq!(group.remove(&0), Some(plain()));
    assert!(group.is_empty());
    assert_eq!(chosen(&group, |_| Readiness::Ready), None);
}

#[test]
fn ready_members_take_turns() {
    let group = group(5);
    let order: Vec<_> = (0..7)
        .filter_map(|_| chosen(&group, |_| Readiness::Ready))
        .collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 0, 1]);
    let order: Vec<_> = (0..6)
        .filter_map(|_| {
            chosen(&group, |key| match key {
                1 | 2 => Readiness::Busy,
                _ => Readiness::Ready,
            })
        })
        .collect();
    assert_eq!(
        order,
        [3, 4, 0, 3, 4, 0],
        "those after a gap get no more than the others"
    );
}

#[test]
fn busy_before_offline_and_never_unavailable() {
    let group = group(4);
    let classes = |ready, busy, offline| {
        move |key: &u32| match *key {
            key if key == ready => Readiness::Ready,
            key if key == busy => Readiness::Busy,
            key if key == offline => Readiness::Offline,
            _ => Readiness::Unavailable,
        }
    };
    let none = 99;
    for _ in 0..5 {
        assert_eq!(chosen(&group, classes(2, 0, 1)), Some(2));
        assert_eq!(chosen(&group, classes(none, 0, 1)), Some(0));
        assert_eq!(chosen(&group, classes(none, none, 3)), Some(3));
        assert_eq!(chosen(&group, classes(none, none, none)), None);
    }
}

#[test]
fn asks_no_further_than_the_first_ready_member() {
    let group = group(1_000);
    let mut asked = 0;
    for _ in 0..2_000 {
        group.choose(|_, _| {
            asked += 1;
            Readiness::Ready
        });
    }
    assert_eq!(asked, 2_000);
}

proptest! {
    /// Each member of the best class gets the same number of messages in whole rounds.
    #[test]
    fn the_best_class_is_served_evenly(
        classes in prop::collection::vec(
            prop::sample::select(vec![
                Readiness::Ready,
                Readiness::Busy,
                Readiness::Offline,
                Readiness::Unavailable,
            ]),
            1..40,
        ),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        skipped in 0_usize..10,
    ) {
        let mut group = group(classes.len() as u32);
        let mut present: Vec<u32> = (0..classes.len() as u32).collect();
        for nth in removed {
            if present.is_empty() {
                break;
            }
            let key = present.swap_remove(nth.index(present.len()));
            prop_assert_eq!(group.remove(&key), Some(plain()));
            prop_assert_eq!(group.remove(&key), None);
            prop_assert_eq!(group.get(&key), None);
        }
        prop_assert_eq!(group.len(), present.len());
        for _ in 0..skipped {
            group.choose(|_, _| Readiness::Ready);
        }
        let class = |key: &u32| classes[*key as usize];
        let best = present.iter().map(class).min().unwrap_or(Readiness::Unavailable);
        if best == Readiness::Unavailable {
            prop_assert_eq!(chosen(&group, class), None);
            return Ok(());
        }
        let mut wanted: Vec<u32> = present.iter().copied().filter(|key| class(key) == best).collect();
        wanted.sort();
        for _ in 0..3 {
            let mut round: Vec<u32> = (0..wanted.len()).filter_map(|_| chosen(&group, class)).collect();
            round.sort();
            prop_assert_eq!(&round, &wanted);
        }
    }
}
