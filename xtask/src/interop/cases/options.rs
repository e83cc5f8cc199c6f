//! Subscription options of 5.0, shared subscriptions and subscription identifiers.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    super::{
        message::Message,
        peer::{Peer, Version::V5},
        scene::Scene,
    },
    Pair, messages, numbered,
};

/// Messages that the members of a group share.
const SHARED: usize = 100;
/// The highest subscription identifier, of four bytes.
const HIGHEST: u32 = 268_435_455;

impl Pair<'_> {
    /// Adds the cases of two libraries in 5.0.
    pub(super) fn options(&mut self) {
        self.add("options", "5, no local", no_local);
        self.add("options", "5, retain as published", retain_as_published);
        self.add("options", "5, retain handling", retain_handling);
        self.add("options", "5, granted QoS", granted);
        self.add("shared", "5, two members and one apart", shared);
        self.add("identifiers", "5, overlapping subscriptions", identifiers);
    }
}

/// A client does not hear itself, but others.
fn no_local(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let topic = scene.topic("local");
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    let filter = json!({"filter": topic, "qos": 1, "noLocal": true});
    receiving.subscribe_with(filter, json!({}))?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    sending.subscribe(&topic, 1)?;
    let [own, other] = ["own", "other"].map(|text| Message::new(&topic, text, 1));
    receiving.publish(&own)?;
    sending.publish(&other)?;
    receiving.expect(std::slice::from_ref(&other))?;
    sending.expect(&[own, other])
}

/// The RETAIN flag of a live message stays as it was sent.
fn retain_as_published(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let topic = scene.topic("retain");
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    let filter = json!({"filter": topic, "qos": 1, "retainAsPublished": true});
    receiving.subscribe_with(filter, json!({}))?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let plain = Message::new(&topic, "plain", 1);
    let kept = Message::new(&topic, "kept", 1).retained();
    let cleared = Message::new(&topic, "", 1).retained();
    let all = [plain, kept, cleared];
    for message in &all {
        sending.publish(message)?;
    }
    receiving.expect(&all)
}

/// 0 sends retained messages at each subscription, 1 at a new one only, 2 never.
fn retain_handling(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let topic = scene.topic("retained");
    let retained = Message::new(&topic, "retained", 1).retained();
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    sending.publish(&retained)?;
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    // What each subscription brings, ahead of a live message.
    for (handling, brings) in [(2, false), (1, false), (0, true), (0, true)] {
        let filter = json!({"filter": topic, "qos": 1, "retainHandling": handling});
        receiving.subscribe_with(filter, json!({}))?;
        let live = Message::new(&topic, format!("after {handling}"), 1);
        sending.publish(&live)?;
        if brings {
            receiving.expect(std::slice::from_ref(&retained))?;
        }
        receiving.expect(&[live])?;
    }
    receiving.unsubscribe(&[&topic])?;
    let filter = json!({"filter": topic, "qos": 1, "retainHandling": 1});
    receiving.subscribe_with(filter, json!({}))?;
    receiving.expect(&[retained])?;
    sending.publish(&Message::new(&topic, "", 1).retained())?;
    Ok(())
}

/// The broker grants what is asked for and delivers at the lower of both QoS.
fn granted(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    for qos in [0, 1, 2] {
        let topic = scene.topic(&format!("qos{qos}"));
        receiving.subscribe(&topic, qos)?;
        // 0x00: there was somebody to receive it.
        let code = sending.publish(&Message::new(&topic, "heard", 1))?;
        ensure!(code == 0, "acknowledged with {code:#x}");
        receiving.expect(&[Message::new(&topic, "heard", qos.min(1))])?;
    }
    // 0x10: no matching subscribers.
    let code = sending.publish(&Message::new(&scene.topic("unheard"), "unheard", 1))?;
    ensure!(code == 0x10, "acknowledged with {code:#x}, expected 0x10");
    Ok(())
}

/// Each message of a shared subscription reaches one of its members; another subscriber gets all.
fn shared(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let [topic, end] = ["shared/work", "end"].map(|name| scene.topic(name));
    let group = format!("$share/group/{}", scene.topic("shared/#"));
    let mut members = Vec::new();
    for (peer, name) in [(subscriber, "a"), (publisher, "b")] {
        let member = scene.connect(peer, V5, name, json!({}))?;
        member.subscribe(&group, 1)?;
        member.subscribe(&end, 1)?;
        members.push(member);
    }
    let apart = scene.connect(subscriber, V5, "c", json!({}))?;
    apart.subscribe(&topic, 1)?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let payloads = numbered(SHARED);
    let expected = messages(&topic, &payloads, 1);
    let all = sending.start_publish(&Message::new(&topic, "", 1), &payloads, json!({}))?;
    sending.finish_publish(all)?;
    let last = Message::new(&end, "end", 1);
    sending.publish(&last)?;
    apart.expect(&expected)?;
    let mut seen = vec![0; SHARED];
    for member in &members {
        let mut previous = None;
        loop {
            let message = member.receive()?.message;
            if message == last {
                break;
            }
            let number = expected.iter().position(|one| *one == message);
            ensure!(number.is_some(), "received {message:?}");
            ensure!(number > previous, "{message:?} is out of order");
            previous = number;
            if let Some(count) = number.and_then(|number| seen.get_mut(number)) {
                *count += 1;
            }
        }
        ensure!(previous.is_some(), "a member received nothing");
    }
    ensure!(
        seen.iter().all(|&count| count == 1),
        "the messages came so often: {seen:?}"
    );
    Ok(())
}

/// A message carries the identifiers of the subscriptions it matches, in one copy or in several.
fn identifiers(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let [one, both] = ["one", "both/deep"].map(|name| scene.topic(name));
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    for (filter, identifier) in [("+", 1), ("both/#", 2), ("both/+", HIGHEST)] {
        let filter = json!({"filter": scene.topic(filter), "qos": 1});
        receiving.subscribe_with(filter, json!({"subscriptionIdentifier": identifier}))?;
    }
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let end = scene.topic("end");
    for topic in [&one, &both, &end] {
        sending.publish(&Message::new(topic, "identified", 1))?;
    }
    let mut found = HashSet::new();
    loop {
        let delivery = receiving.receive()?;
        let identifiers = &delivery.properties["subscriptionIdentifier"];
        let identifiers = identifiers.as_array().context("no identifier")?;
        let topic = delivery.message.topic;
        if topic == end {
            break;
        }
        for identifier in identifiers.iter().filter_map(Value::as_u64) {
            let first = found.insert((topic.clone(), identifier));
            ensure!(
                first,
                "{topic} came twice for the subscription {identifier}"
            );
        }
    }
    let expected = [(&one, 1), (&both, 2), (&both, HIGHEST)];
    let expected = expected.map(|(topic, identifier)| (topic.clone(), u64::from(identifier)));
    ensure!(found == HashSet::from(expected), "received for {found:?}");
    Ok(())
}
