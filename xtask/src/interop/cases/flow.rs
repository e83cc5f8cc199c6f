//! Many messages in flight, connections that break amid them, and subscriptions that end.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    super::{
        client::Client,
        message::Message,
        peer::{Peer, Version},
        scene::Scene,
    },
    Pair, QOS, messages, numbered,
};

/// Messages that are sent without waiting for each other.
const MANY: usize = 2_000;
/// Messages during which a connection breaks.
const INTERRUPTED: usize = 300;

impl Pair<'_> {
    /// Adds the cases of two libraries in one version.
    pub(super) fn flow(&mut self, version: Version) {
        for qos in QOS {
            let how = format!("{version}, QoS {qos}, {MANY} messages");
            self.add("pipeline", how, move |scene, publisher, subscriber| {
                let topic = scene.topic("pipeline");
                let receiving = scene.connect(subscriber, version, "s", json!({}))?;
                receiving.subscribe(&topic, qos)?;
                let sending = scene.connect(publisher, version, "p", json!({}))?;
                let payloads = numbered(MANY);
                let model = Message::new(&topic, "", qos);
                let all = sending.start_publish(&model, &payloads, json!({}))?;
                receiving.expect(&messages(&topic, &payloads, qos))?;
                sending.finish_publish(all)?;
                sending.disconnect()?;
                receiving.disconnect()
            });
        }
        for qos in [1, 2] {
            let how = format!("{version}, QoS {qos}, publisher cut amid {INTERRUPTED}");
            self.add("cut", how, move |scene, publisher, subscriber| {
                cut(
                    scene,
                    [publisher, subscriber],
                    version,
                    qos,
                    Side::Publisher,
                )
            });
            let how = format!("{version}, QoS {qos}, subscriber cut amid {INTERRUPTED}");
            self.add("cut", how, move |scene, publisher, subscriber| {
                cut(
                    scene,
                    [publisher, subscriber],
                    version,
                    qos,
                    Side::Subscriber,
                )
            });
        }
        let how = format!("{version}");
        self.add("unsubscribe", how, move |scene, publisher, subscriber| {
            unsubscribe(scene, [publisher, subscriber], version)
        });
    }
}

/// Whose connection breaks.
#[derive(Clone, Copy)]
enum Side {
    Publisher,
    Subscriber,
}

/// A connection breaks while messages are in flight; the session resumes with the same client.
fn cut(
    scene: &Scene<'_>,
    [publisher, subscriber]: [&Peer; 2],
    version: Version,
    qos: u8,
    side: Side,
) -> Result<()> {
    let topic = scene.topic("cut");
    let session = json!({"clean": false, "properties": {"sessionExpiryInterval": 300}});
    let mut receiving = scene.connect(subscriber, version, "s", session.clone())?;
    receiving.subscribe(&topic, qos)?;
    let mut sending = scene.connect(publisher, version, "p", session)?;
    let payloads = numbered(INTERRUPTED);
    let model = Message::new(&topic, "", qos);
    let all = sending.start_publish(&model, &payloads, json!({}))?;
    let expected = messages(&topic, &payloads, qos);
    let early = INTERRUPTED / 10;
    receiving.expect(&expected[..early])?;
    let broken = match side {
        Side::Publisher => &mut sending,
        Side::Subscriber => &mut receiving,
    };
    broken.cut()?;
    broken.reconnect()?;
    broken.ensure_session(true)?;
    let late = &expected[early..];
    if qos == 2 {
        receiving.expect(late)?;
    } else {
        at_least_once(&receiving, &expected, early)?;
    }
    sending.finish_publish(all)?;
    // Nothing may come twice after the end either.
    let end = Message::new(&topic, "end", qos);
    sending.publish(&end)?;
    if qos == 2 {
        receiving.expect(&[end])?;
    } else {
        while receiving.receive()?.message != end {}
    }
    discard(scene, [publisher, subscriber], version)
}

/// Each message comes, for the first time in order; what was in flight may come again.
fn at_least_once(receiving: &Client, expected: &[Message], mut received: usize) -> Result<()> {
    while received < expected.len() {
        let message = receiving.receive()?.message;
        if message == expected[received] {
            received += 1;
        } else {
            ensure!(
                expected[..received].contains(&message),
                "received {message:?} before {:?}",
                expected[received]
            );
        }
    }
    Ok(())
}

/// Ends the sessions of the publisher and of the subscriber.
fn discard(scene: &Scene<'_>, peers: [&Peer; 2], version: Version) -> Result<()> {
    for (peer, name) in peers.into_iter().zip(["p", "s"]) {
        scene
            .connect(peer, version, name, json!({}))?
            .disconnect()?;
    }
    Ok(())
}

/// One of two subscriptions ends, the other stays.
fn unsubscribe(
    scene: &Scene<'_>,
    [publisher, subscriber]: [&Peer; 2],
    version: Version,
) -> Result<()> {
    let [left, kept] = ["left", "kept"].map(|name| scene.topic(name));
    let receiving = scene.connect(subscriber, version, "s", json!({}))?;
    receiving.subscribe(&left, 1)?;
    receiving.subscribe(&kept, 1)?;
    let sending = scene.connect(publisher, version, "p", json!({}))?;
    let publish = |text: &str| {
        for topic in [&left, &kept] {
            sending.publish(&Message::new(topic, text, 1))?;
        }
        anyhow::Ok(())
    };
    publish("before")?;
    let codes = receiving.unsubscribe(&[&left, &scene.topic("unknown")])?;
    if version == Version::V5 {
        // 0x11: no subscription existed.
        ensure!(codes == [0, 0x11], "UNSUBACK has the codes {codes:x?}");
    }
    publish("after")?;
    receiving.expect(&[
        Message::new(&left, "before", 1),
        Message::new(&kept, "before", 1),
        Message::new(&kept, "after", 1),
    ])
}
