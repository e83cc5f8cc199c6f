//! Topics that a service decides about, which is asked by HTTP.

use core::num::NonZeroU16;
use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt_broker::Broker;
use mqtt_broker::auth::{AuthSettings, Denial, OnFailure};
use mqtt_broker::settings::Span;
use mqtt_codec::{Packet, PacketType, QoS, ReasonCode, Will};
use serde_json::{Value, json};
use tokio::time::{advance, pause, resume};

use crate::guarded::{Files, denied};
use crate::harness::{
    EVERY_QOS, Peer, V3_1_1, V5, filter, hello, id, lasting, message, name, settle,
};
use crate::service::{Answer, Service, about_topics, asking};

const NOT: ReasonCode = ReasonCode::NOT_AUTHORIZED;
const FAILED: ReasonCode = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;

/// Topics that begin with `no` are denied.
fn usual(asked: &Value) -> Answer {
    match asked["topic"].as_str().unwrap().starts_with("no") {
        true => Answer::status(403),
        false => Answer::status(204),
    }
}

async fn scene() -> (Service, Broker) {
    let service = Service::new(usual).await;
    let broker = asking(&about_topics(&service));
    (service, broker)
}

/// What may be published and subscribed to is what the service allows; of a topic it is asked once.
#[tokio::test]
async fn the_service_decides_about_topics() {
    let (service, broker) = scene().await;
    for version in [V3_1_1, V5] {
        let mut peer = Peer::new(&broker, version, "a").await;
        let no = if version == V5 { NOT } else { ReasonCode(0x80) };
        let wanted = ["yes/#", "no", "$share/g/no/#", "$share/g/other"];
        let wanted = wanted.map(|text| filter(text, QoS::ExactlyOnce));
        let codes = peer.subscribe_with(wanted.to_vec(), None).await;
        assert_eq!(codes, [ReasonCode(2), no, no, ReasonCode(2)]);
        for qos in EVERY_QOS {
            for _ in 0..3 {
                let denied = peer.send_publish(&message("no", "x", qos)).await;
                match (version, qos, denied) {
                    (V5, QoS::AtLeastOnce, Some(id)) => {
                        peer.expect_ack(PacketType::PubAck, id, NOT).await;
                    }
                    (V5, QoS::ExactlyOnce, Some(id)) => {
                        peer.expect_ack(PacketType::PubRec, id, NOT).await;
                    }
                    (_, QoS::AtLeastOnce, Some(id)) => {
                        peer.expect_ack(PacketType::PubAck, id, ReasonCode::SUCCESS)
                            .await;
                    }
                    (_, _, Some(id)) => {
                        let ok = ReasonCode::SUCCESS;
                        peer.expect_ack(PacketType::PubRec, id, ok).await;
                        peer.send_ack(PacketType::PubRel, id, ok).await;
                        peer.expect_ack(PacketType::PubComp, id, ok).await;
                    }
                    (_, _, None) => {}
                }
            }
        }
        peer.disconnect().await;
        let asked = service.asked();
        // Four filters, and one topic at each QoS.
        assert_eq!(asked.len(), 7, "{asked:?}");
        let share = json!({
            "action": "subscribe", "topic": "no/#", "group": "g", "qos": 2, "retain": false,
            "client_id": "a", "user": null, "listener": null,
        });
        assert_eq!(asked[2], share);
        assert_eq!(asked[4]["action"], "publish");
    }
    assert_eq!(denied(&broker, Denial::Publish), 18);
    assert_eq!(denied(&broker, Denial::Subscribe), 4);
    assert_eq!(broker.counters().asked(), 14);
}

/// While the service thinks, the client is not read, and everybody else is; then all of it comes in order.
#[tokio::test]
async fn who_waits_waits_alone() {
    let (service, broker) = scene().await;
    let mut reader = Peer::new(&broker, V5, "reader").await;
    reader.subscribe("#", QoS::ExactlyOnce).await;
    let mut other = Peer::new(&broker, V5, "other").await;
    other
        .publish(&message("known", "x", QoS::AtLeastOnce))
        .await;
    reader.expect_message("known", "x", QoS::AtLeastOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    writer.subscribe("to/writer", QoS::AtMostOnce).await;
    service.came().await;
    service.now(|_| Answer::Wait);

    let first = writer
        .send_publish(&message("slow", "1", QoS::AtLeastOnce))
        .await
        .unwrap();
    let second = writer
        .send_publish(&message("known", "2", QoS::AtLeastOnce))
        .await
        .unwrap();
    writer.send(&Packet::PingReq).await;
    service.came().await;
    // What was allowed before goes on.
    other
        .publish(&message("known", "y", QoS::AtLeastOnce))
        .await;
    reader.expect_message("known", "y", QoS::AtLeastOnce).await;
    service.now(usual);
    other
        .publish(&message("to/writer", "z", QoS::AtLeastOnce))
        .await;
    // Who waits still gets what others send it.
    writer
        .expect_message("to/writer", "z", QoS::AtMostOnce)
        .await;
    reader
        .expect_message("to/writer", "z", QoS::AtLeastOnce)
        .await;
    service.go_on();
    writer
        .expect_ack(PacketType::PubAck, first, ReasonCode::SUCCESS)
        .await;
    writer
        .expect_ack(PacketType::PubAck, second, ReasonCode::SUCCESS)
        .await;
    writer.expect(&Packet::PingResp).await;
    reader.expect_message("slow", "1", QoS::AtLeastOnce).await;
    reader.expect_message("known", "2", QoS::AtLeastOnce).await;
}

/// A client that goes while its message waits has published nothing that was to be acknowledged.
#[tokio::test]
async fn what_waits_ends_with_its_connection() {
    let (service, broker) = scene().await;
    let mut reader = Peer::new(&broker, V5, "reader").await;
    reader.subscribe("#", QoS::ExactlyOnce).await;
    service.came().await;
    service.now(|_| Answer::Wait);
    let mut writer = Peer::lasting(&broker, V5, "writer").await.0;
    writer
        .send_publish(&message("slow", "1", QoS::ExactlyOnce))
        .await;
    service.came().await;
    let (mut writer_again, present) = Peer::lasting(&broker, V5, "writer").await;
    assert!(present);
    writer
        .expect_disconnect(ReasonCode::SESSION_TAKEN_OVER)
        .await;
    service.now(usual);
    service.go_on();
    reader.expect_nothing().await;
    let mut again = message("slow", "1", QoS::ExactlyOnce);
    again.dup = true;
    again.packet_id = Some(id(1));
    writer_again.publish(&again).await;
    reader.expect_message("slow", "1", QoS::ExactlyOnce).await;
}

/// An alias stands for its topic, also while its message waits, and the topic of a mount point is whole.
#[tokio::test]
async fn a_topic_alias_is_resolved() {
    let (service, broker) = scene().await;
    let mut reader = Peer::new(&broker, V5, "reader").await;
    reader.subscribe("#", QoS::AtMostOnce).await;
    let mut options = mqtt_broker::ListenerOptions::default();
    options.mount_point = Some("m/".into());
    let options = std::sync::Arc::new(options);
    let (mut writer, _) = Peer::connect_through(&broker, &options, &hello(V5, "w")).await;
    let mut publish = message("a", "1", QoS::AtMostOnce);
    publish.properties.topic_alias = NonZeroU16::new(1);
    publish.properties.response_topic = Some(name("r"));
    writer.send(&Packet::Publish(publish.clone())).await;
    publish.topic = None;
    publish.qos = QoS::AtLeastOnce;
    publish.packet_id = Some(id(1));
    writer.send(&Packet::Publish(publish)).await;
    for _ in 0..2 {
        let received = reader.expect_message("m/a", "1", QoS::AtMostOnce).await;
        assert_eq!(
            received.publish().properties.response_topic,
            Some(name("m/r"))
        );
    }
    let topics: Vec<Value> = service
        .asked()
        .into_iter()
        .map(|it| it["topic"].clone())
        .collect();
    assert_eq!(topics, ["#", "m/a", "m/a"]);
}

/// If the service fails, nothing that is acknowledged is lost: who cannot be told why has to come again.
#[tokio::test]
async fn a_failure_denies_for_now() {
    let (service, broker) = scene().await;
    service.now(|_| Answer::status(500));
    let mut peer = Peer::new(&broker, V5, "a").await;
    let wanted = ["a", "b"].map(|text| filter(text, QoS::AtMostOnce));
    let codes = peer.subscribe_with(wanted.to_vec(), None).await;
    assert_eq!(codes, [FAILED, FAILED]);
    assert_eq!(
        service.asked().len(),
        1,
        "who failed once is not asked for each filter"
    );
    let sent = peer
        .send_publish(&message("a", "x", QoS::AtLeastOnce))
        .await;
    peer.expect_ack(PacketType::PubAck, sent.unwrap(), FAILED)
        .await;
    peer.send_publish(&message("a", "x", QoS::AtMostOnce)).await;
    peer.expect_nothing().await;
    let mut old = Peer::new(&broker, V3_1_1, "b").await;
    old.send_publish(&message("a", "x", QoS::AtLeastOnce)).await;
    old.expect_closed().await;
    assert_eq!(denied(&broker, Denial::Service), 5);
    // It is asked again as soon as it is wanted again.
    service.now(usual);
    peer.publish(&message("a", "x", QoS::AtLeastOnce)).await;

    let mut settings = about_topics(&service);
    settings.http.as_mut().unwrap().on_failure = OnFailure::Next;
    settings.http.as_mut().unwrap().timeout = Span(Duration::from_millis(20));
    let files = Files::new("topic read a\ntopic write c\n");
    settings.acl_file.clone_from(&files.settings.acl_file);
    let broker = asking(&settings);
    service.now(|_| Answer::Wait);
    let mut peer = Peer::new(&broker, V5, "a").await;
    service.asked();
    let wanted = ["a", "b"].map(|text| filter(text, QoS::AtMostOnce));
    let codes = peer.subscribe_with(wanted.to_vec(), None).await;
    assert_eq!(codes, [ReasonCode(0), NOT]);
    assert_eq!(service.asked().len(), 1, "what the rules deny is not asked");
    peer.publish(&message("c", "x", QoS::AtLeastOnce)).await;
}

/// Where a failure lets pass, a client cannot bring about that nobody is asked: neither by a question that the service
/// has no answer to, nor by so many that the time is over before all are asked.
#[tokio::test]
async fn nobody_makes_the_service_fail_for_more_than_one_question() {
    let service = Service::new(usual).await;
    let mut settings = about_topics(&service);
    settings.http.as_mut().unwrap().on_failure = OnFailure::Allow;
    let broker = asking(&settings);
    let mut peer = Peer::new(&broker, V5, "a").await;
    service.now(|asked| match asked["topic"].as_str() {
        Some("odd") => Answer::status(500),
        _ => usual(asked),
    });
    let wanted = ["odd", "no/a", "b"].map(|text| filter(text, QoS::AtMostOnce));
    let codes = peer.subscribe_with(wanted.to_vec(), None).await;
    assert_eq!(codes, [ReasonCode(0), NOT, ReasonCode(0)]);

    service.now(|_| Answer::Wait);
    settings.http.as_mut().unwrap().timeout = Span(Duration::from_millis(20));
    let hasty = asking(&settings);
    let mut hurried = Peer::new(&hasty, V5, "a").await;
    let wanted = ["1", "2", "3", "4", "no/5"].map(|text| filter(text, QoS::AtMostOnce));
    let codes = hurried.subscribe_with(wanted.to_vec(), None).await;
    assert_eq!(codes[0], ReasonCode(0));
    // The time that is there in all is that of two answers.
    assert_eq!(codes[2..], [FAILED; 3]);
}

/// An answer holds for its time and until the next reload.
#[tokio::test]
async fn an_answer_holds_for_a_while() {
    let (service, broker) = scene().await;
    let mut peer = Peer::new(&broker, V5, "a").await;
    for _ in 0..3 {
        peer.publish(&message("a", "x", QoS::AtLeastOnce)).await;
    }
    assert_eq!(service.asked().len(), 1);
    pause();
    advance(Duration::from_secs(30)).await;
    resume();
    peer.publish(&message("a", "x", QoS::AtLeastOnce)).await;
    assert_eq!(service.asked().len(), 1);
    broker.reload_auth(&about_topics(&service)).unwrap();
    peer.publish(&message("a", "x", QoS::AtLeastOnce)).await;
    assert_eq!(service.asked().len(), 1);
    let mut settings = about_topics(&service);
    settings.http.as_mut().unwrap().topic_cache = Span(Duration::ZERO);
    broker.reload_auth(&settings).unwrap();
    for _ in 0..3 {
        peer.publish(&message("a", "x", QoS::AtLeastOnce)).await;
        peer.subscribe("a/b", QoS::AtMostOnce).await;
    }
    assert_eq!(service.asked().len(), 6);
    let mut open = AuthSettings::default();
    open.allow_anonymous = Some(true);
    broker.reload_auth(&open).unwrap();
    peer.publish(&message("no", "x", QoS::AtLeastOnce)).await;
    assert_eq!(service.asked().len(), 0);
}

/// The rules of now count, though a packet waited while they changed; and who is to be asked now is asked.
#[tokio::test]
async fn a_reload_counts_for_what_waits() {
    for version in [V3_1_1, V5] {
        let service = Service::new(usual).await;
        let mut settings = about_topics(&service);
        let files = Files::new("topic readwrite #\n");
        settings.acl_file.clone_from(&files.settings.acl_file);
        let broker = asking(&settings);
        let mut reader = Peer::new(&broker, V5, "reader").await;
        reader.subscribe("#", QoS::AtLeastOnce).await;
        let mut peer = Peer::new(&broker, version, "a").await;
        let narrow = "topic readwrite b\ntopic read #\ntopic deny c\n";
        for (acl, topic, allowed) in [(narrow, "a", false), ("topic readwrite #\n", "b", true)] {
            service.asked();
            service.now(|_| Answer::Wait);
            let sent = peer
                .send_publish(&message(topic, "1", QoS::AtLeastOnce))
                .await
                .unwrap();
            service.asked_so_often(1).await;
            files.permit_with(&broker, acl, &settings);
            service.now(usual);
            service.go_on();
            let reason = match (allowed, version) {
                (false, V5) => NOT,
                _ => ReasonCode::SUCCESS,
            };
            peer.expect_ack(PacketType::PubAck, sent, reason).await;
            // Where the rules deny it, nobody is asked any more.
            assert_eq!(service.asked().len(), usize::from(allowed));
            if allowed {
                reader.expect_message(topic, "1", QoS::AtLeastOnce).await;
            } else {
                reader.expect_nothing().await;
            }
        }
        service.now(|_| Answer::Wait);
        let wanted = ["b", "c"].map(|text| filter(text, QoS::AtMostOnce));
        let number = peer.fresh_id();
        let subscribe = mqtt_codec::Subscribe::new(number, wanted.to_vec());
        peer.send(&Packet::Subscribe(subscribe)).await;
        service.asked_so_often(1).await;
        files.permit_with(&broker, narrow, &settings);
        service.now(usual);
        service.go_on();
        let no = if version == V5 { NOT } else { ReasonCode(0x80) };
        let received = peer.receive().await;
        assert_eq!(received.subscribed(), [ReasonCode(0), no]);
    }
}

/// What was known when a SUBSCRIBE came is still known when the service has said the rest.
#[tokio::test]
async fn what_is_known_does_not_expire_meanwhile() {
    let (service, broker) = scene().await;
    let mut peer = Peer::new(&broker, V5, "a").await;
    peer.subscribe("a", QoS::AtMostOnce).await;
    service.asked();
    service.now(|_| Answer::Wait);
    let wanted = ["a", "b"].map(|text| filter(text, QoS::AtMostOnce));
    let number = peer.fresh_id();
    peer.send(&Packet::Subscribe(mqtt_codec::Subscribe::new(
        number,
        wanted.to_vec(),
    )))
    .await;
    let asked = service.asked_so_often(1).await;
    assert_eq!(asked[0]["topic"], "b");
    pause();
    advance(Duration::from_secs(31)).await;
    resume();
    service.now(usual);
    service.go_on();
    let received = peer.receive().await;
    assert_eq!(received.subscribed(), [ReasonCode(0); 2]);
}

/// As long as there are answers, more is asked at once, within a bound.
#[tokio::test]
async fn many_filters_are_asked_about_at_once() {
    let (service, broker) = scene().await;
    let mut peer = Peer::new(&broker, V5, "a").await;
    let count = AtomicUsize::new(0);
    service.now(move |asked| match count.fetch_add(1, Ordering::Relaxed) {
        0..7 => usual(asked),
        _ => Answer::Wait,
    });
    let names: Vec<String> = (0..20).map(|number| format!("a/{number}")).collect();
    let wanted = names.iter().map(|text| filter(text, QoS::AtMostOnce));
    let number = peer.fresh_id();
    let subscribe = mqtt_codec::Subscribe::new(number, wanted.collect());
    peer.send(&Packet::Subscribe(subscribe)).await;
    service.asked_so_often(15).await;
    settle().await;
    assert_eq!(service.asked().len(), 0);
    service.now(usual);
    for _ in 0..8 {
        service.go_on();
    }
    let received = peer.receive().await;
    assert_eq!(received.subscribed(), [ReasonCode(0); 20]);
}

/// A will is asked about before the client is let in, and the subscriptions of a session when it is resumed.
#[tokio::test]
async fn wills_and_sessions_are_asked_about() {
    let (service, broker) = scene().await;
    let mut connect = hello(V5, "a");
    connect.will = Some(Will::new(name("no/will"), b"x"));
    Peer::refused(&broker, &connect, NOT).await;
    assert_eq!(denied(&broker, Denial::Will), 1);
    connect.will = Some(Will::new(name("will"), b"x"));
    Peer::accepted(&broker, &connect).await;
    service.now(|_| Answer::status(500));
    let down = ReasonCode::SERVER_UNAVAILABLE;
    Peer::refused(&broker, &connect, down).await;

    service.now(usual);
    let mut peer = Peer::lasting(&broker, V5, "session").await.0;
    peer.subscribe("kept", QoS::AtLeastOnce).await;
    peer.subscribe("taken", QoS::AtLeastOnce).await;
    peer.abort().await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    writer
        .publish(&message("kept", "1", QoS::AtLeastOnce))
        .await;
    // The service fails: nobody gets in, and the session stays whatever the CONNECT said.
    service.now(|_| Answer::status(500));
    let mut short = lasting(V5, "session");
    short.properties.session_expiry_interval = None;
    Peer::refused(&broker, &short, down).await;
    settle().await;
    service.now(|asked| match asked["topic"].as_str() {
        Some("taken") => Answer::status(403),
        _ => Answer::status(204),
    });
    let (mut peer, present) = Peer::lasting(&broker, V5, "session").await;
    assert!(present);
    peer.expect_message("kept", "1", QoS::AtLeastOnce).await;
    service.now(|_| Answer::status(204));
    writer
        .publish(&message("taken", "2", QoS::AtLeastOnce))
        .await;
    writer
        .publish(&message("kept", "3", QoS::AtLeastOnce))
        .await;
    peer.expect_message("kept", "3", QoS::AtLeastOnce).await;
}
