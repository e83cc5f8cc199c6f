//! What a broker with a data directory still has after it was stopped and started again.

use mqtt_broker::{Broker, Config};
use mqtt_codec::{Packet, PacketType, ProtocolVersion, PublishProperties, QoS, ReasonCode, Will};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::harness::{
    ALL, EVERY_QOS, Peer, V3_1, V3_1_1, V5, filter, hello, lasting, message, name,
};

/// A data directory and the broker that uses it at the moment.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    config: Config,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            config,
            running: None,
        }
    }

    /// A broker without its tasks.
    pub(crate) fn open(&self) -> Broker {
        Broker::open(self.config.clone(), self.directory.path()).unwrap()
    }

    pub(crate) async fn start(&mut self) -> Broker {
        let broker = self.open();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = broker.clone().run(Vec::new(), async move {
            // Stopped or dropped, it ends.
            let _ = stopped.await;
        });
        self.running = Some((stop, tokio::spawn(run)));
        broker
    }

    /// Ends the broker; `peers` are gone before, so that nobody waits for them.
    pub(crate) async fn stop(&mut self, broker: Broker, peers: impl Sized) {
        drop(peers);
        let (stop, running) = self.running.take().unwrap();
        stop.send(()).unwrap();
        running.await.unwrap();
        drop(broker);
    }

    pub(crate) async fn restart_with(
        &mut self,
        broker: Broker,
        peers: impl Sized,
        config: Config,
    ) -> Broker {
        self.config = config;
        self.restart(broker, peers).await
    }

    pub(crate) async fn restart(&mut self, broker: Broker, peers: impl Sized) -> Broker {
        self.stop(broker, peers).await;
        self.start().await
    }
}

pub(crate) async fn resumed(broker: &Broker, version: ProtocolVersion, id: &str) -> Peer {
    let (peer, present) = Peer::lasting(broker, version, id).await;
    assert_eq!(present, version.has_session_present(), "{version} {id}");
    peer
}

/// Messages that were acknowledged to their publisher come to a session that was away, once, in their order.
#[tokio::test]
async fn acknowledged_messages_are_kept() {
    for version in ALL {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut place = Place::new();
            let broker = place.start().await;
            let (mut away, _) = Peer::lasting(&broker, version, "away").await;
            away.subscribe("t/+", QoS::ExactlyOnce).await;
            away.disconnect().await;
            let (mut second, _) = Peer::lasting(&broker, version, "second").await;
            second.subscribe("t/#", QoS::AtLeastOnce).await;
            second.disconnect().await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            for number in 0..20 {
                sender
                    .publish(&message("t/1", &number.to_string(), qos))
                    .await;
            }
            let broker = place.restart(broker, (sender,)).await;
            let mut away = resumed(&broker, version, "away").await;
            let mut second = resumed(&broker, version, "second").await;
            for number in 0..20 {
                away.expect_message("t/1", &number.to_string(), qos).await;
                second
                    .expect_message("t/1", &number.to_string(), QoS::AtLeastOnce)
                    .await;
            }
            away.expect_nothing().await;
            away.disconnect().await;
            second.expect_nothing().await;
            second.disconnect().await;
            // What was acknowledged is gone.
            let broker = place.restart(broker, ()).await;
            resumed(&broker, version, "away")
                .await
                .expect_nothing()
                .await;
            resumed(&broker, version, "second")
                .await
                .expect_nothing()
                .await;
            place.stop(broker, ()).await;
        }
    }
}

/// A QoS 2 message in flight to a client goes on where it was: it keeps its identifier, and once PUBREC came only
/// PUBREL is sent.
#[tokio::test]
async fn a_delivery_at_qos_2_goes_on() {
    for version in ALL {
        let mut place = Place::new();
        let broker = place.start().await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("t", QoS::ExactlyOnce).await;
        sender
            .publish(&message("t", "first", QoS::ExactlyOnce))
            .await;
        let first = receiver
            .expect_publish("t", "first", QoS::ExactlyOnce)
            .await;
        let number = first.publish().packet_id.unwrap();

        let broker = place.restart(broker, (sender, receiver)).await;
        let mut receiver = resumed(&broker, version, "receiver").await;
        let again = receiver
            .expect_publish("t", "first", QoS::ExactlyOnce)
            .await;
        assert_eq!(again.publish().packet_id, Some(number));
        assert!(again.publish().dup);
        receiver
            .send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
            .await;
        receiver
            .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
            .await;

        let broker = place.restart(broker, receiver).await;
        let mut receiver = resumed(&broker, version, "receiver").await;
        receiver
            .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
            .await;
        receiver
            .send_ack(PacketType::PubComp, number, ReasonCode::SUCCESS)
            .await;
        receiver.expect_nothing().await;
        receiver.disconnect().await;

        let broker = place.restart(broker, ()).await;
        let mut receiver = resumed(&broker, version, "receiver").await;
        receiver.expect_nothing().await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender
            .publish(&message("t", "second", QoS::ExactlyOnce))
            .await;
        receiver
            .expect_message("t", "second", QoS::ExactlyOnce)
            .await;
        place.stop(broker, (sender, receiver)).await;
    }
}

/// A QoS 2 message that a client sends again after the restart, because it saw no PUBCOMP, is passed on once.
#[tokio::test]
async fn a_qos_2_publish_is_known_again() {
    for version in ALL {
        let mut place = Place::new();
        let broker = place.start().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("t", QoS::AtLeastOnce).await;
        receiver.disconnect().await;
        let (mut sender, _) = Peer::lasting(&broker, version, "sender").await;
        let mut publish = message("t", "once", QoS::ExactlyOnce);
        publish.packet_id = Some(crate::harness::id(7));
        sender.send(&Packet::Publish(publish.clone())).await;
        sender
            .expect_ack(
                PacketType::PubRec,
                crate::harness::id(7),
                ReasonCode::SUCCESS,
            )
            .await;

        let broker = place.restart(broker, sender).await;
        let mut sender = resumed(&broker, version, "sender").await;
        publish.dup = true;
        sender.publish(&publish).await;
        sender.disconnect().await;

        let broker = place.restart(broker, ()).await;
        let mut sender = resumed(&broker, version, "sender").await;
        publish.dup = false;
        publish.payload = b"another";
        sender.publish(&publish).await;
        let mut receiver = resumed(&broker, version, "receiver").await;
        receiver.expect_message("t", "once", QoS::AtLeastOnce).await;
        receiver
            .expect_message("t", "another", QoS::AtLeastOnce)
            .await;
        receiver.expect_nothing().await;
        place.stop(broker, (sender, receiver)).await;
    }
}

/// Retained messages of every QoS are there with their properties; those that were cleared are not.
#[tokio::test]
async fn retained_messages_are_kept() {
    for version in ALL {
        for qos in EVERY_QOS {
            let mut place = Place::new();
            let broker = place.start().await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            for (topic, text) in [
                ("a", "old"),
                ("a", "new"),
                ("b", "gone"),
                ("b", ""),
                ("c/d", "kept"),
            ] {
                let mut publish = message(topic, text, qos);
                publish.retain = true;
                if version.has_properties() {
                    publish.properties = PublishProperties {
                        content_type: Some("text"),
                        ..PublishProperties::default()
                    };
                }
                sender.publish(&publish).await;
            }
            sender.disconnect().await;
            let broker = place.restart(broker, ()).await;
            let mut receiver = Peer::new(&broker, version, "receiver").await;
            for (text, topic, payload) in [("a", "a", "new"), ("+/d", "c/d", "kept")] {
                receiver.subscribe(text, qos).await;
                let received = receiver.expect_message(topic, payload, qos).await;
                assert!(received.publish().retain);
                let content_type = received.publish().properties.content_type;
                assert_eq!(content_type, version.has_properties().then_some("text"));
            }
            receiver.subscribe("b", qos).await;
            receiver.expect_nothing().await;
            place.stop(broker, receiver).await;
        }
    }
}

/// Subscriptions are there with all their options; those that were ended are not.
#[tokio::test]
async fn subscriptions_are_kept_with_their_options() {
    let mut place = Place::new();
    let broker = place.start().await;
    let (mut client, _) = Peer::lasting(&broker, V5, "client").await;
    let mut own = filter("own", QoS::AtMostOnce);
    own.options.no_local = true;
    let mut published = filter("published", QoS::AtLeastOnce);
    published.options.retain_as_published = true;
    let filters = vec![
        own,
        published,
        filter("$share/group/shared", QoS::AtLeastOnce),
    ];
    client.subscribe_with(filters, Some(300)).await;
    client.subscribe("ended", QoS::AtLeastOnce).await;
    client.unsubscribe("ended").await;
    client.disconnect().await;

    let broker = place.restart(broker, ()).await;
    let mut client = resumed(&broker, V5, "client").await;
    client
        .publish(&message("own", "mine", QoS::AtMostOnce))
        .await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut retained = message("published", "retained", QoS::AtLeastOnce);
    retained.retain = true;
    for publish in [
        message("ended", "nobody", QoS::AtLeastOnce),
        message("own", "yours", QoS::AtMostOnce),
        retained,
        message("shared", "shared", QoS::AtLeastOnce),
    ] {
        sender.publish(&publish).await;
    }
    let received = client.expect_message("own", "yours", QoS::AtMostOnce).await;
    assert_eq!(received.identifiers(), [300]);
    let received = client
        .expect_message("published", "retained", QoS::AtLeastOnce)
        .await;
    assert!(received.publish().retain);
    client
        .expect_message("shared", "shared", QoS::AtLeastOnce)
        .await;
    client.expect_nothing().await;
    place.stop(broker, (sender, client)).await;
}

/// A session that was discarded, or that ended with its connection, is not there after a restart either.
#[tokio::test]
async fn sessions_that_ended_are_gone() {
    for version in ALL {
        let mut place = Place::new();
        let broker = place.start().await;
        for id in ["kept", "discarded"] {
            let (mut client, _) = Peer::lasting(&broker, version, id).await;
            client.subscribe("t", QoS::AtLeastOnce).await;
            client.disconnect().await;
        }
        Peer::new(&broker, version, "discarded")
            .await
            .disconnect()
            .await;
        let mut short = Peer::new(&broker, version, "short").await;
        short.subscribe("t", QoS::AtLeastOnce).await;
        let broker = place.restart(broker, short).await;
        for id in ["discarded", "short"] {
            let (mut client, present) = Peer::lasting(&broker, version, id).await;
            assert!(!present, "{version} {id}");
            let mut sender = Peer::new(&broker, version, "sender").await;
            sender.publish(&message("t", id, QoS::AtLeastOnce)).await;
            client.expect_nothing().await;
        }
        let mut kept = resumed(&broker, version, "kept").await;
        for id in ["discarded", "short"] {
            kept.expect_message("t", id, QoS::AtLeastOnce).await;
        }
        place.stop(broker, kept).await;
    }
}

/// A will whose delay runs is published by the broker that comes after.
#[tokio::test]
async fn a_delayed_will_is_kept() {
    let mut place = Place::new();
    let broker = place.start().await;
    let mut connect = lasting(V5, "client");
    let mut will = Will::new(name("will"), b"gone");
    will.qos = QoS::AtLeastOnce;
    will.properties.delay_interval = Some(1);
    will.properties.content_type = Some("text");
    connect.will = Some(will);
    Peer::accepted(&broker, &connect).await.abort().await;
    let (mut watcher, _) = Peer::lasting(&broker, V5, "watcher").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let broker = place.restart(broker, watcher).await;
    let mut watcher = resumed(&broker, V5, "watcher").await;
    let received = watcher
        .expect_message("will", "gone", QoS::AtLeastOnce)
        .await;
    assert_eq!(received.publish().properties.content_type, Some("text"));
    place.stop(broker, watcher).await;
}

/// A session of one version goes on with another; what was stored with properties comes without to those before 5.0.
#[tokio::test]
async fn a_session_changes_its_version_on_disk() {
    let mut place = Place::new();
    let broker = place.start().await;
    let (mut client, _) = Peer::lasting(&broker, V5, "client").await;
    client
        .subscribe_with(vec![filter("t", QoS::AtLeastOnce)], Some(5))
        .await;
    client.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut publish = message("t", "text", QoS::AtLeastOnce);
    publish.properties.content_type = Some("text");
    publish.properties.message_expiry_interval = Some(1_000);
    sender.publish(&publish).await;
    sender.publish(&publish).await;
    let broker = place.restart(broker, sender).await;
    let mut client = resumed(&broker, V3_1_1, "client").await;
    client.expect_message("t", "text", QoS::AtLeastOnce).await;
    client.expect_message("t", "text", QoS::AtLeastOnce).await;
    client.expect_nothing().await;
    client.disconnect().await;
    let broker = place.restart(broker, ()).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    sender.publish(&publish).await;
    let mut client = resumed(&broker, V5, "client").await;
    let received = client.expect_message("t", "text", QoS::AtLeastOnce).await;
    assert_eq!(received.identifiers(), [5]);
    assert!(
        received
            .publish()
            .properties
            .message_expiry_interval
            .unwrap()
            > 900
    );
    let broker = place.restart(broker, (sender, client)).await;
    let (_, present) = Peer::resumed(&broker, &hello(V3_1, "nobody")).await;
    assert!(!present);
    place.stop(broker, ()).await;
}
