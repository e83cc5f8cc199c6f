//! What every two clients are tried with, in all versions.

use anyhow::Result;

use super::{
    super::{
        message::{Message, compare},
        peer::{Payload, Peer, Version, Will},
        scene::Scene,
    },
    Pair, QOS, messages, numbered,
};

/// Messages of a burst.
const BURST: usize = 100;
/// Messages that a session misses before it resumes.
const MISSED: usize = 10;
/// Bytes of a large payload.
const LARGE: usize = 1 << 20;

impl Pair<'_> {
    /// Adds the cases that every two clients have.
    pub(super) fn basics(&mut self) {
        for from in Version::ALL {
            for to in Version::ALL {
                self.exchange(from, to);
            }
        }
        for version in Version::ALL {
            self.payloads(version);
            self.wildcards(version);
            self.wills(version);
            for qos in QOS {
                self.burst(version, qos);
                self.retained(version, qos);
            }
            for qos in [1, 2] {
                self.resume(version, qos);
            }
        }
    }

    /// One message, delivered at the lower of both QoS.
    fn exchange(&mut self, from: Version, to: Version) {
        for sent in QOS {
            for granted in QOS {
                let how = format!("{from} -> {to}, QoS {sent} -> {granted}");
                self.add("exchange", how, move |scene, publisher, subscriber| {
                    let topic = scene.topic("exchange");
                    let mut wanted = scene.subscription(to, &topic);
                    wanted.qos = granted;
                    wanted.count = Some(1);
                    let mut receiving = scene.subscribe(subscriber, &wanted)?;
                    let mut publication = scene.publication(from, &topic, "21.5 °C");
                    publication.qos = sent;
                    scene.publish(publisher, publication)?;
                    receiving.expect(&[Message::new(&topic, "21.5 °C", sent.min(granted))])?;
                    receiving.end()
                });
            }
        }
    }

    /// Large, empty and binary payloads, and a topic beyond ASCII.
    fn payloads(&mut self, version: Version) {
        for qos in QOS {
            let how = format!("{version}, QoS {qos}, 1 MiB");
            self.add("payload", how, move |scene, publisher, subscriber| {
                let bytes: Vec<u8> = (0..LARGE).map(|i| (i * 7 + i / 251) as u8).collect();
                let payload = Payload::Bytes(bytes.clone());
                let topic = scene.topic("large");
                one(
                    scene,
                    [publisher, subscriber],
                    version,
                    &topic,
                    payload,
                    bytes,
                    qos,
                )
            });
            let how = format!("{version}, QoS {qos}, empty");
            self.add("payload", how, move |scene, publisher, subscriber| {
                let topic = scene.topic("empty");
                let peers = [publisher, subscriber];
                one(
                    scene,
                    peers,
                    version,
                    &topic,
                    Payload::Empty,
                    Vec::new(),
                    qos,
                )
            });
        }
        let how = format!("{version}, UTF-8 topic");
        self.add("payload", how, move |scene, publisher, subscriber| {
            let topic = scene.topic("räume/温度/🌡 °C");
            let payload = Payload::Text("21".to_owned());
            one(
                scene,
                [publisher, subscriber],
                version,
                &topic,
                payload,
                b"21".to_vec(),
                1,
            )
        });
    }

    /// Many messages from one publisher arrive once each, in order.
    fn burst(&mut self, version: Version, qos: u8) {
        let how = format!("{version}, QoS {qos}, {BURST} messages");
        self.add("burst", how, move |scene, publisher, subscriber| {
            let topic = scene.topic("burst");
            let mut wanted = scene.subscription(version, &topic);
            wanted.count = Some(BURST);
            let mut receiving = scene.subscribe(subscriber, &wanted)?;
            let lines = numbered(BURST);
            let mut publication = scene.publication(version, &topic, "");
            publication.payload = Payload::Lines(lines.clone());
            publication.qos = qos;
            scene.publish(publisher, publication)?;
            receiving.expect(&messages(&topic, &lines, qos))?;
            receiving.end()
        });
    }

    /// `+` and `#` reach what they should, and nothing else.
    fn wildcards(&mut self, version: Version) {
        let how = format!("{version}, + and #");
        self.add("wildcards", how, move |scene, publisher, subscriber| {
            let topic = |name: &str| scene.topic(name);
            let mut wanted = scene.subscription(version, &topic("+/state"));
            wanted.filters.push(topic("deep/#"));
            wanted.filters.push(topic("end"));
            wanted.count = Some(5);
            let mut receiving = scene.subscribe(subscriber, &wanted)?;
            let mut expected = Vec::new();
            for (name, reached) in [
                ("lamp/state", true),
                ("state", false),
                ("lamp/one/state", false),
                ("deep", true),
                ("deep/1/2/3", true),
                ("deeper/1", false),
                ("/state", true),
                ("end", true),
            ] {
                let mut publication = scene.publication(version, &topic(name), name);
                publication.qos = 1;
                scene.publish(publisher, publication)?;
                if reached {
                    expected.push(Message::new(&topic(name), name, 1));
                }
            }
            receiving.expect(&expected)?;
            receiving.end()
        });
    }

    /// A retained message meets later subscribers until it is replaced, then cleared.
    fn retained(&mut self, version: Version, qos: u8) {
        let how = format!("{version}, QoS {qos}");
        self.add("retained", how, move |scene, publisher, subscriber| {
            let topic = scene.topic("retained");
            let publish = |payload: Payload, retain: bool| {
                let mut publication = scene.publication(version, &topic, "");
                publication.payload = payload;
                publication.qos = qos;
                publication.retain = retain;
                scene.publish(publisher, publication)
            };
            let text = |text: &str| Payload::Text(text.to_owned());
            let subscribe = |count: usize| {
                let mut wanted = scene.subscription(version, &topic);
                wanted.count = Some(count);
                scene.subscribe(subscriber, &wanted)
            };
            publish(text("old"), true)?;
            publish(text("new"), true)?;
            publish(text("not retained"), false)?;
            let mut receiving = subscribe(2)?;
            receiving.expect(&[Message::new(&topic, "new", qos).retained()])?;
            // To a subscription that exists already it is a message like any other.
            publish(text("live"), true)?;
            receiving.expect(&[Message::new(&topic, "live", qos)])?;
            receiving.end()?;
            publish(Payload::Empty, true)?;
            let mut receiving = subscribe(2)?;
            publish(text("first"), false)?;
            publish(text("second"), false)?;
            receiving.expect(&messages(&topic, &["first", "second"], qos))?;
            receiving.end()
        });
    }

    /// The publisher's side is the client with the will.
    fn wills(&mut self, version: Version) {
        for qos in QOS {
            for retain in [false, true] {
                let kind = if retain { ", retained" } else { "" };
                let how = format!("{version}, QoS {qos}, connection lost{kind}");
                self.add("will", how, move |scene, holder, watcher| {
                    lost(scene, [holder, watcher], version, qos, retain)
                });
            }
        }
        let how = format!("{version}, clean disconnect");
        self.add("will", how, move |scene, holder, watcher| {
            let (topic, own) = (scene.topic("will"), scene.topic("own"));
            let mut watching = scene.subscribe(watcher, &scene.subscription(version, &topic))?;
            let mut leaving = scene.subscription(version, &own);
            leaving.client_id = scene.client_id("h");
            leaving.count = Some(1);
            leaving.will = Some(will(&topic, 1, false));
            let holding = scene.subscribe(holder, &leaving)?;
            scene.publish(watcher, scene.publication(version, &own, "end"))?;
            holding.end()?;
            // The broker serves the same client identifier again only when it has done with the
            // connection before, so a will would come first.
            let mut marker = scene.publication(version, &topic, "marker");
            marker.client_id = scene.client_id("h");
            marker.qos = 1;
            scene.publish(holder, marker)?;
            watching.expect(&[Message::new(&topic, "marker", 1)])
        });
    }

    /// A session that outlives its connection gets what it missed, once and in order.
    fn resume(&mut self, version: Version, qos: u8) {
        for crash in [false, true] {
            let end = if crash { "crash" } else { "disconnect" };
            let how = format!("{version}, QoS {qos}, after a {end}");
            self.add("resume", how, move |scene, publisher, subscriber| {
                let topic = scene.topic("resume");
                let publish = |lines: Vec<String>| {
                    let mut publication = scene.publication(version, &topic, "");
                    publication.payload = Payload::Lines(lines);
                    publication.qos = qos;
                    scene.publish(publisher, publication)
                };
                let mut wanted = scene.subscription(version, &topic);
                wanted.persistent = true;
                wanted.count = (!crash).then_some(1);
                let mut receiving = scene.subscribe(subscriber, &wanted)?;
                publish(vec!["before".to_owned()])?;
                receiving.expect(&[Message::new(&topic, "before", qos)])?;
                if crash {
                    receiving.crash()?;
                } else {
                    receiving.end()?;
                }
                let mut missed = numbered(MISSED);
                publish(missed.clone())?;
                wanted.count = Some(MISSED + 1);
                // Another filter: what arrives can only be the session's.
                wanted.filters = vec![scene.topic("another")];
                let mut receiving = scene.subscribe(subscriber, &wanted)?;
                missed.push("after".to_owned());
                publish(vec!["after".to_owned()])?;
                // After a crash the client may not have acknowledged the last message it printed,
                // which the broker then sends again.
                let first = receiving.receive()?;
                let expected = messages(&topic, &missed, qos);
                if crash && first == Message::new(&topic, "before", qos) {
                    receiving.expect(&expected[..MISSED])?;
                    receiving.end()?;
                } else {
                    compare(&[first], &expected[..1])?;
                    receiving.expect(&expected[1..])?;
                    receiving.end()?;
                }
                // A clean start ends the session, so that none is left behind.
                let mut farewell = scene.publication(version, &scene.topic("farewell"), "");
                farewell.client_id = wanted.client_id;
                scene.publish(subscriber, farewell)
            });
        }
    }
}

/// One message at the same QoS on both sides.
fn one(
    scene: &Scene<'_>,
    [publisher, subscriber]: [&Peer; 2],
    version: Version,
    topic: &str,
    payload: Payload,
    bytes: Vec<u8>,
    qos: u8,
) -> Result<()> {
    let mut wanted = scene.subscription(version, topic);
    wanted.count = Some(1);
    let mut receiving = scene.subscribe(subscriber, &wanted)?;
    let mut publication = scene.publication(version, topic, "");
    publication.payload = payload;
    publication.qos = qos;
    scene.publish(publisher, publication)?;
    receiving.expect(&[Message::new(topic, bytes, qos)])?;
    receiving.end()
}

/// The connection of a client with a will breaks.
fn lost(
    scene: &Scene<'_>,
    [holder, watcher]: [&Peer; 2],
    version: Version,
    qos: u8,
    retain: bool,
) -> Result<()> {
    let topic = scene.topic("will");
    let watch = || {
        let mut wanted = scene.subscription(version, &topic);
        wanted.count = Some(1);
        scene.subscribe(watcher, &wanted)
    };
    let mut watching = watch()?;
    let mut leaving = scene.subscription(version, &scene.topic("own"));
    leaving.client_id = scene.client_id("h");
    leaving.will = Some(will(&topic, qos, retain));
    scene.subscribe(holder, &leaving)?.crash()?;
    let expected = Message::new(&topic, "gone", qos);
    watching.expect(std::slice::from_ref(&expected))?;
    watching.end()?;
    if retain {
        let mut watching = watch()?;
        watching.expect(&[expected.retained()])?;
        watching.end()?;
        let mut clear = scene.publication(version, &topic, "");
        clear.payload = Payload::Empty;
        clear.retain = true;
        scene.publish(holder, clear)?;
    }
    Ok(())
}

fn will(topic: &str, qos: u8, retain: bool) -> Will {
    Will {
        topic: topic.to_owned(),
        payload: "gone".to_owned(),
        qos,
        retain,
    }
}
