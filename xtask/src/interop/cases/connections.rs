//! How connections begin and end: takeover, sessions, reconnection at once.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    super::{
        message::Message,
        peer::{Peer, Version},
        scene::{Scene, will_options},
    },
    Pair,
};

/// How often a client disconnects and is back at once.
const ROUNDS: usize = 20;
/// DISCONNECT with Will Message.
const WITH_WILL: u8 = 0x04;
/// Session taken over.
const TAKEN_OVER: u8 = 0x8E;

impl Pair<'_> {
    /// Adds the cases of two libraries in one version.
    pub(super) fn connections(&mut self, version: Version) {
        let how = format!("{version}");
        self.add("takeover", how, move |scene, publisher, subscriber| {
            takeover(scene, [publisher, subscriber], version)
        });
        let how = format!("{version}, {ROUNDS} times at once");
        self.add("return", how, move |scene, publisher, subscriber| {
            return_at_once(scene, [publisher, subscriber], version)
        });
        let how = format!("{version}, clean start");
        self.add("session", how, move |scene, publisher, subscriber| {
            clean_start(scene, [publisher, subscriber], version)
        });
        if version == Version::V5 {
            self.add("will", "5, DISCONNECT with will", disconnect_with_will);
            self.add("session", "5, ended by DISCONNECT", ended_by_disconnect);
            self.add("connect", "5, assigned client identifier", assigned);
        }
    }
}

/// A second client with the same identifier gets the session, the first is told so.
fn takeover(scene: &Scene<'_>, [first, second]: [&Peer; 2], version: Version) -> Result<()> {
    let topic = scene.topic("takeover");
    let session = json!({"clean": false, "properties": {"sessionExpiryInterval": 300}});
    let old = scene.connect(first, version, "same", session.clone())?;
    old.ensure_session(false)?;
    old.subscribe(&topic, 1)?;
    let new = scene.connect(second, version, "same", session)?;
    new.ensure_session(true)?;
    let told = (version == Version::V5).then_some(TAKEN_OVER);
    let code = old.closed()?;
    ensure!(code == told, "closed with {code:x?}, expected {told:x?}");
    let message = Message::new(&topic, "to the new one", 1);
    new.publish(&message)?;
    new.expect(&[message])?;
    new.disconnect()?;
    let last = scene.connect(first, version, "same", json!({}))?;
    last.ensure_session(false)?;
    last.disconnect()
}

/// A client sends, disconnects and is back before the broker may have read that: no message is
/// lost, and no will is published.
fn return_at_once(
    scene: &Scene<'_>,
    [publisher, subscriber]: [&Peer; 2],
    version: Version,
) -> Result<()> {
    let [topic, will] = ["return", "will"].map(|name| scene.topic(name));
    let receiving = scene.connect(subscriber, version, "s", json!({}))?;
    receiving.subscribe(&topic, 1)?;
    receiving.subscribe(&will, 1)?;
    let options = json!({"will": will_options(&will, "gone", 1, false)});
    for round in 0..ROUNDS {
        let sending = scene.connect(publisher, version, "p", options.clone())?;
        let message = Message::new(&topic, round.to_string(), 0);
        sending.publish(&message)?;
        sending.disconnect()?;
    }
    let sending = scene.connect(publisher, version, "p", json!({}))?;
    sending.publish(&Message::new(&topic, "end", 1))?;
    for round in 0..ROUNDS {
        receiving.expect(&[Message::new(&topic, round.to_string(), 0)])?;
    }
    receiving.expect(&[Message::new(&topic, "end", 1)])
}

/// A clean start forgets the subscriptions and what was missed.
fn clean_start(
    scene: &Scene<'_>,
    [publisher, subscriber]: [&Peer; 2],
    version: Version,
) -> Result<()> {
    let topic = scene.topic("session");
    let session = json!({"clean": false, "properties": {"sessionExpiryInterval": 300}});
    let receiving = scene.connect(subscriber, version, "s", session.clone())?;
    receiving.subscribe(&topic, 1)?;
    receiving.disconnect()?;
    let sending = scene.connect(publisher, version, "p", json!({}))?;
    sending.publish(&Message::new(&topic, "missed", 1))?;
    let receiving = scene.connect(subscriber, version, "s", json!({}))?;
    receiving.ensure_session(false)?;
    sending.publish(&Message::new(&topic, "not subscribed", 1))?;
    receiving.subscribe(&topic, 1)?;
    sending.publish(&Message::new(&topic, "subscribed", 1))?;
    receiving.expect(&[Message::new(&topic, "subscribed", 1)])?;
    receiving.disconnect()?;
    let again = scene.connect(subscriber, version, "s", session)?;
    again.ensure_session(false)?;
    again.disconnect_with(0, json!({"sessionExpiryInterval": 0}))?;
    scene
        .connect(subscriber, version, "s", json!({}))?
        .disconnect()
}

fn disconnect_with_will(scene: &Scene<'_>, holder: &Peer, watcher: &Peer) -> Result<()> {
    let topic = scene.topic("will");
    let watching = scene.connect(watcher, Version::V5, "w", json!({}))?;
    watching.subscribe(&topic, 2)?;
    let options = json!({"will": will_options(&topic, "gone", 2, false)});
    let holding = scene.connect(holder, Version::V5, "h", options)?;
    holding.disconnect_with(WITH_WILL, json!({}))?;
    watching.expect(&[Message::new(&topic, "gone", 2)])
}

/// The Session Expiry Interval of DISCONNECT counts.
fn ended_by_disconnect(scene: &Scene<'_>, first: &Peer, second: &Peer) -> Result<()> {
    let session = json!({"clean": false, "properties": {"sessionExpiryInterval": 300}});
    let connect = |peer| scene.connect(peer, Version::V5, "s", session.clone());
    connect(first)?.disconnect()?;
    let client = connect(second)?;
    client.ensure_session(true)?;
    client.disconnect_with(0, json!({"sessionExpiryInterval": 0}))?;
    let client = connect(first)?;
    client.ensure_session(false)?;
    client.disconnect_with(0, json!({"sessionExpiryInterval": 0}))
}

/// A client without an identifier is told the one it has, and others can use that.
fn assigned(scene: &Scene<'_>, nameless: &Peer, other: &Peer) -> Result<()> {
    let client = scene.connect(nameless, Version::V5, "", json!({"clientId": ""}))?;
    let name = &client.connack_properties()["assignedClientIdentifier"];
    ensure!(
        name.as_str().is_some_and(|name| !name.is_empty()),
        "CONNACK assigns {name}"
    );
    let _taking = scene.connect(other, Version::V5, "", json!({"clientId": name}))?;
    let code = client.closed()?;
    ensure!(code == Some(TAKEN_OVER), "closed with {code:x?}");
    Ok(())
}
