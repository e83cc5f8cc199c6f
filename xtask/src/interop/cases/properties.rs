//! Properties of 5.0 that the broker hands on, resolves, assigns or obeys.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    super::{
        message::{Message, to_hex},
        peer::{Peer, Version::V5},
        scene::Scene,
    },
    Pair, QOS, messages, numbered,
};

/// Messages for a client that takes few at a time.
const WINDOWED: usize = 100;

impl Pair<'_> {
    /// Adds the cases of two libraries in 5.0.
    pub(super) fn properties(&mut self) {
        for qos in QOS {
            let how = format!("5, QoS {qos}, handed on");
            self.add("properties", how, move |scene, publisher, subscriber| {
                handed_on(scene, [publisher, subscriber], qos)
            });
        }
        self.add("properties", "5, of a will", of_a_will);
        self.add("properties", "5, retained", retained);
        self.add("request", "5, response topic and correlation data", request);
        self.add("alias", "5, from the client", alias_from_client);
        self.add("alias", "5, to the client", alias_to_client);
        for qos in [1, 2] {
            let how = format!("5, QoS {qos}, receive maximum");
            self.add("limits", how, move |scene, publisher, subscriber| {
                receive_maximum(scene, [publisher, subscriber], qos)
            });
        }
        self.add("limits", "5, maximum packet size", packet_size);
    }
}

/// What stays as it is from publisher to subscriber.
fn unchanged() -> serde_json::Value {
    json!({
        "payloadFormatIndicator": 1,
        "contentType": "text/plain; charset=utf-8",
        "responseTopic": "räume/antwort",
        "correlationData": "00ff10c3a9",
        "userProperties": [["room", "kitchen"], ["room", "hall"], ["unit", "°C"], ["", ""]],
    })
}

/// The seconds that are left of an expiry interval of `sent` seconds, which take part of a case.
fn expires(properties: &mut serde_json::Value, sent: u64) -> Result<()> {
    let left = properties
        .as_object_mut()
        .and_then(|all| all.remove("messageExpiryInterval"))
        .and_then(|left| left.as_u64())
        .context("no Message Expiry Interval")?;
    ensure!(
        (sent.saturating_sub(60)..=sent).contains(&left),
        "{left} s are left of {sent} s"
    );
    Ok(())
}

fn handed_on(scene: &Scene<'_>, [publisher, subscriber]: [&Peer; 2], qos: u8) -> Result<()> {
    let topic = scene.topic("properties");
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    receiving.subscribe(&topic, qos)?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let message = Message::new(&topic, "21.5 °C", qos);
    let mut properties = unchanged();
    properties["messageExpiryInterval"] = 600.into();
    sending.publish_with(&message, properties)?;
    let delivery = receiving.receive()?;
    ensure!(delivery.message == message, "{:?}", delivery.message);
    let mut received = delivery.properties;
    expires(&mut received, 600)?;
    ensure!(received == unchanged(), "received {received}");
    // Without properties there are none.
    sending.publish(&message)?;
    let received = receiving.receive()?.properties;
    ensure!(received == json!({}), "received {received}");
    Ok(())
}

fn of_a_will(scene: &Scene<'_>, holder: &Peer, watcher: &Peer) -> Result<()> {
    let topic = scene.topic("will");
    let watching = scene.connect(watcher, V5, "w", json!({}))?;
    watching.subscribe(&topic, 1)?;
    let mut will = json!({"topic": topic, "payload": to_hex(b"gone"), "qos": 1, "retain": false});
    will["properties"] = unchanged();
    will["properties"]["messageExpiryInterval"] = 600.into();
    scene
        .connect(holder, V5, "h", json!({"will": will}))?
        .cut()?;
    let delivery = watching.receive()?;
    let expected = Message::new(&topic, "gone", 1);
    ensure!(delivery.message == expected, "{:?}", delivery.message);
    let mut received = delivery.properties;
    expires(&mut received, 600)?;
    ensure!(received == unchanged(), "received {received}");
    Ok(())
}

fn retained(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let topic = scene.topic("retained");
    let message = Message::new(&topic, "kept", 1).retained();
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let mut properties = unchanged();
    properties["messageExpiryInterval"] = 600.into();
    sending.publish_with(&message, properties)?;
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    receiving.subscribe(&topic, 1)?;
    let delivery = receiving.receive()?;
    ensure!(delivery.message == message, "{:?}", delivery.message);
    let mut received = delivery.properties;
    expires(&mut received, 600)?;
    ensure!(received == unchanged(), "received {received}");
    sending.publish(&Message::new(&topic, "", 1).retained())?;
    Ok(())
}

/// A request says where the answer goes and how to tell it from others.
fn request(scene: &Scene<'_>, asking: &Peer, answering: &Peer) -> Result<()> {
    let [question, answer] = ["question", "answer"].map(|name| scene.topic(name));
    let answerer = scene.connect(answering, V5, "a", json!({}))?;
    answerer.subscribe(&question, 1)?;
    let asker = scene.connect(asking, V5, "q", json!({}))?;
    asker.subscribe(&answer, 1)?;
    for correlation in ["01", "0002ff"] {
        let properties = json!({"responseTopic": answer, "correlationData": correlation});
        asker.publish_with(&Message::new(&question, "why", 1), properties)?;
        let asked = answerer.receive()?.properties;
        let back = asked["responseTopic"].as_str().context("no topic")?;
        let properties = json!({"correlationData": asked["correlationData"]});
        answerer.publish_with(&Message::new(back, "because", 1), properties)?;
        let delivery = asker.receive()?;
        let expected = Message::new(&answer, "because", 1);
        ensure!(delivery.message == expected, "{:?}", delivery.message);
        ensure!(
            delivery.properties == json!({"correlationData": correlation}),
            "received {}",
            delivery.properties
        );
    }
    Ok(())
}

/// A topic alias stands for a topic until it stands for another; it goes no further than the broker.
fn alias_from_client(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let receiving = scene.connect(subscriber, V5, "s", json!({}))?;
    receiving.subscribe(&scene.topic("#"), 1)?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let [one, two] = ["one", "two"].map(|name| scene.topic(name));
    for (written, alias, meant) in [
        (&one, 1, &one),
        (&two, 2, &two),
        (&String::new(), 1, &one),
        (&String::new(), 2, &two),
        (&two, 1, &two),
        (&String::new(), 1, &two),
    ] {
        let message = Message::new(written, format!("alias {alias}"), 1);
        sending.publish_with(&message, json!({"topicAlias": alias}))?;
        let delivery = receiving.receive()?;
        let expected = Message::new(meant, message.payload, 1);
        ensure!(delivery.message == expected, "{:?}", delivery.message);
        let properties = delivery.properties;
        ensure!(properties == json!({}), "received {properties}");
    }
    Ok(())
}

/// A subscriber that takes aliases gets its messages, whatever use the broker makes of that.
fn alias_to_client(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    // paho hands an alias to its user, who would have to resolve it.
    let maximum = if subscriber.name == "paho" { 0 } else { 3 };
    let options = json!({"properties": {"topicAliasMaximum": maximum}});
    let receiving = scene.connect(subscriber, V5, "s", options)?;
    receiving.subscribe(&scene.topic("#"), 1)?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    for round in 0..3 {
        for name in ["one", "two", "three", "four", "five"] {
            let message = Message::new(&scene.topic(name), format!("round {round}"), 1);
            sending.publish(&message)?;
            receiving.expect(&[message])?;
        }
    }
    Ok(())
}

/// A client that takes three messages at a time gets all of them in order.
fn receive_maximum(scene: &Scene<'_>, [publisher, subscriber]: [&Peer; 2], qos: u8) -> Result<()> {
    let topic = scene.topic("window");
    let options = json!({"properties": {"receiveMaximum": 3}});
    let receiving = scene.connect(subscriber, V5, "s", options)?;
    receiving.subscribe(&topic, qos)?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let payloads = numbered(WINDOWED);
    let all = sending.start_publish(&Message::new(&topic, "", qos), &payloads, json!({}))?;
    receiving.expect(&messages(&topic, &payloads, qos))?;
    sending.finish_publish(all)?;
    Ok(())
}

/// What is too large for a client is left out; what follows still comes.
fn packet_size(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let topic = scene.topic("size");
    let options = json!({"properties": {"maximumPacketSize": 200}});
    let receiving = scene.connect(subscriber, V5, "s", options)?;
    receiving.subscribe(&topic, 1)?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    let small = Message::new(&topic, "small", 1);
    sending.publish(&Message::new(&topic, "large".repeat(100), 1))?;
    sending.publish(&small)?;
    receiving.expect(&[small])
}
