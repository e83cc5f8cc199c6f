//! What ends by time in 5.0: delays of wills, messages, sessions.
//!
//! Time passes here by the broker's own clock: a case waits for a will that the broker delays.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    super::{
        client::Client,
        message::Message,
        peer::{Peer, Version::V5},
        scene::{Scene, will_options},
    },
    Pair,
};

/// The longest that a session or a will lasts here.
const LONG: u32 = 300;

impl Pair<'_> {
    /// Adds the cases of two libraries in 5.0.
    pub(super) fn expiry(&mut self) {
        self.add("will", "5, delayed", delayed);
        self.add(
            "will",
            "5, delay cut short by the session's end",
            session_ends,
        );
        self.add("will", "5, delay ended by resumption", resumed);
        self.add("expiry", "5, of waiting and retained messages", messages);
        self.add("expiry", "5, of a session", session);
    }
}

/// Connects a client with a will at QoS 1 that is delayed by `delay`, its session kept for `session`
/// seconds.
fn holder(
    scene: &Scene<'_>,
    peer: &Peer,
    name: &str,
    topic: &str,
    [delay, session]: [u32; 2],
) -> Result<Client> {
    let mut will = will_options(topic, "gone", 1, false);
    will["properties"] = json!({"willDelayInterval": delay});
    let properties = json!({"sessionExpiryInterval": session});
    let options = json!({"clean": false, "will": will, "properties": properties});
    scene.connect(peer, V5, name, options)
}

/// Ends the session of [`holder`].
fn discard(scene: &Scene<'_>, peer: &Peer, name: &str) -> Result<()> {
    scene.connect(peer, V5, name, json!({}))?.disconnect()
}

/// Lets two seconds pass at the broker.
fn two_seconds(scene: &Scene<'_>, peer: &Peer) -> Result<()> {
    let topic = scene.topic("clock");
    let watching = scene.connect(peer, V5, "clock", json!({}))?;
    watching.subscribe(&topic, 1)?;
    holder(scene, peer, "hand", &topic, [2, LONG])?.cut()?;
    watching.expect(&[Message::new(&topic, "gone", 1)])?;
    watching.disconnect()?;
    discard(scene, peer, "hand")
}

/// A will waits for its delay.
fn delayed(scene: &Scene<'_>, holding: &Peer, watching: &Peer) -> Result<()> {
    let topic = scene.topic("will");
    let watcher = scene.connect(watching, V5, "w", json!({}))?;
    watcher.subscribe(&topic, 1)?;
    let client = holder(scene, holding, "h", &topic, [2, LONG])?;
    let cut = Instant::now();
    client.cut()?;
    watcher.publish(&Message::new(&topic, "before the will", 1))?;
    watcher.expect(&[
        Message::new(&topic, "before the will", 1),
        Message::new(&topic, "gone", 1),
    ])?;
    let took = cut.elapsed();
    ensure!(took >= Duration::from_secs(2), "came after {took:?}");
    discard(scene, holding, "h")
}

/// The end of the session ends the delay.
fn session_ends(scene: &Scene<'_>, holding: &Peer, watching: &Peer) -> Result<()> {
    let topic = scene.topic("will");
    let watcher = scene.connect(watching, V5, "w", json!({}))?;
    watcher.subscribe(&topic, 1)?;
    let gone = [Message::new(&topic, "gone", 1)];
    holder(scene, holding, "h", &topic, [LONG, 0])?.cut()?;
    watcher.expect(&gone)?;
    holder(scene, holding, "h", &topic, [LONG, 1])?.cut()?;
    watcher.expect(&gone)?;
    // A clean start ends the session before.
    holder(scene, holding, "h", &topic, [LONG, LONG])?.cut()?;
    let client = scene.connect(holding, V5, "h", json!({}))?;
    watcher.expect(&gone)?;
    client.disconnect()
}

/// A client that is back in time has no will published.
fn resumed(scene: &Scene<'_>, holding: &Peer, watching: &Peer) -> Result<()> {
    let topic = scene.topic("will");
    let watcher = scene.connect(watching, V5, "w", json!({}))?;
    watcher.subscribe(&topic, 1)?;
    let mut client = holder(scene, holding, "h", &topic, [2, LONG])?;
    client.cut()?;
    client.reconnect()?;
    client.ensure_session(true)?;
    two_seconds(scene, watching)?;
    let marker = Message::new(&topic, "no will before this", 1);
    client.publish(&marker)?;
    watcher.expect(&[marker])?;
    client.disconnect()?;
    discard(scene, holding, "h")
}

/// Messages that wait for a subscriber, or are retained, expire.
fn messages(scene: &Scene<'_>, publisher: &Peer, subscriber: &Peer) -> Result<()> {
    let [queued, retained] = ["queued", "retained"].map(|name| scene.topic(name));
    let session = json!({"clean": false, "properties": {"sessionExpiryInterval": LONG}});
    let receiving = scene.connect(subscriber, V5, "s", session.clone())?;
    receiving.subscribe(&queued, 1)?;
    receiving.disconnect()?;
    let sending = scene.connect(publisher, V5, "p", json!({}))?;
    for (text, expiry) in [("short", 1), ("long", LONG)] {
        let properties = json!({"messageExpiryInterval": expiry});
        let topics = [Message::new(&queued, text, 1), {
            let topic = format!("{retained}/{text}");
            Message::new(&topic, text, 1).retained()
        }];
        for message in &topics {
            sending.publish_with(message, properties.clone())?;
        }
    }
    two_seconds(scene, publisher)?;
    let receiving = scene.connect(subscriber, V5, "s", session)?;
    let delivery = receiving.receive()?;
    let expected = Message::new(&queued, "long", 1);
    ensure!(delivery.message == expected, "{:?}", delivery.message);
    let left = delivery.properties["messageExpiryInterval"].as_u64();
    let most = u64::from(LONG) - 1;
    ensure!(
        left.is_some_and(|left| left <= most),
        "{left:?} s left of {LONG}, after 2 s"
    );
    receiving.subscribe(&format!("{retained}/#"), 1)?;
    let kept = Message::new(&format!("{retained}/long"), "long", 1).retained();
    receiving.expect(&[kept])?;
    sending.publish(&Message::new(&format!("{retained}/long"), "", 1).retained())?;
    receiving.expect(&[Message::new(&format!("{retained}/long"), "", 1)])?;
    receiving.disconnect_with(0, json!({"sessionExpiryInterval": 0}))
}

/// A session lasts as long as its client asked for.
fn session(scene: &Scene<'_>, first: &Peer, second: &Peer) -> Result<()> {
    let connect = |peer, name: &str, expiry| {
        let properties = json!({"sessionExpiryInterval": expiry});
        let options = json!({"clean": false, "properties": properties});
        scene.connect(peer, V5, name, options)
    };
    connect(first, "short", 1)?.disconnect()?;
    connect(first, "long", LONG)?.disconnect()?;
    // An interval that DISCONNECT sets replaces that of CONNECT.
    let changed = json!({"sessionExpiryInterval": 1});
    connect(first, "changed", LONG)?.disconnect_with(0, changed)?;
    two_seconds(scene, second)?;
    for (name, lasts) in [("short", false), ("long", true), ("changed", false)] {
        let client = connect(second, name, 0)?;
        client.ensure_session(lasts).context(name)?;
        client.disconnect()?;
    }
    Ok(())
}
