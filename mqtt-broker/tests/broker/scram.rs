//! Enhanced authentication with SCRAM-SHA-256: before CONNACK, and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use mqtt_broker::auth::{Denial, HashKind, set_password};
use mqtt_broker::{Broker, MemoryGauge};
use mqtt_codec::{Auth, Connect, Packet, QoS, ReasonCode};
use sha2::{Digest, Sha256};

use crate::guarded::{Files, denied, user};
use crate::harness::{Peer, V5, advance, broker, broker_with, hello, lasting, message};

pub(crate) const METHOD: &str = "SCRAM-SHA-256";

/// Users whose password is their name with `-scram`; `carl` has one that is no use for SCRAM.
fn files() -> Files {
    let files = Files::without_permissions();
    let passwords = files.settings.password_file.as_ref().unwrap();
    for name in ["anna", "ben"] {
        let password = format!("{name}-scram");
        set_password(passwords, name, password.as_bytes(), HashKind::ScramSha256).unwrap();
    }
    files
}

fn keyed(key: &[u8], message: &str) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}

pub(crate) fn first(user: &str) -> String {
    format!("n,,n={user},r=abc")
}

/// The client's last message, and what the server must say to it.
pub(crate) fn last(user: &str, password: &str, server_first: &str) -> (String, String) {
    let mut parts = server_first.split(',');
    let nonce = parts.next().unwrap();
    assert!(nonce.starts_with("r=abc") && nonce.len() > 20, "{nonce}");
    let salt = parts.next().unwrap().strip_prefix("s=").unwrap();
    let salt = BASE64.decode(salt).unwrap();
    let count = parts.next().unwrap().strip_prefix("i=").unwrap();
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(
        password.as_bytes(),
        &salt,
        count.parse().unwrap(),
        &mut salted,
    );
    let without_proof = format!("c=biws,{nonce}");
    let transcript = format!("n={user},r=abc,{server_first},{without_proof}");
    let mut proof = keyed(&salted, "Client Key");
    let signature = keyed(&Sha256::digest(proof), &transcript);
    for (byte, mask) in proof.iter_mut().zip(signature) {
        *byte ^= mask;
    }
    let server = keyed(&keyed(&salted, "Server Key"), &transcript);
    let message = format!("{without_proof},p={}", BASE64.encode(proof));
    (message, format!("v={}", BASE64.encode(server)))
}

fn auth<'a>(reason: ReasonCode, data: &'a str) -> Auth<'a> {
    let mut auth = Auth::new(reason, METHOD);
    auth.properties.authentication_data = Some(data.as_bytes());
    auth
}

/// AUTH with this reason; returns its data.
async fn expect_auth(peer: &mut Peer, reason: ReasonCode) -> String {
    let received = peer.receive().await;
    let Packet::Auth(auth) = received.packet() else {
        panic!("no AUTH: {:?}", received.packet())
    };
    assert_eq!(auth.reason_code, reason);
    assert_eq!(auth.properties.authentication_method, Some(METHOD));
    let data = auth.properties.authentication_data.unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

/// Sends CONNECT with the first message; returns the server's.
async fn begin(broker: &Broker, connect: &Connect<'_>, data: &str) -> (Peer, String) {
    let mut connect = connect.clone();
    connect.properties.authentication_method = Some(METHOD);
    connect.properties.authentication_data = Some(data.as_bytes());
    let mut peer = Peer::open(broker, V5);
    peer.send(&Packet::Connect(Box::new(connect))).await;
    let server_first = expect_auth(&mut peer, ReasonCode::CONTINUE_AUTHENTICATION).await;
    (peer, server_first)
}

/// A client that is let in, with what CONNACK must say.
async fn accepted(broker: &Broker, connect: &Connect<'_>, name: &str) -> Peer {
    let (mut peer, server_first) = begin(broker, connect, &first(name)).await;
    let (data, expected) = last(name, &format!("{name}-scram"), &server_first);
    peer.send(&Packet::Auth(auth(
        ReasonCode::CONTINUE_AUTHENTICATION,
        &data,
    )))
    .await;
    let received = peer.receive().await;
    let connack = received.connack();
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    assert_eq!(connack.properties.authentication_method, Some(METHOD));
    let data = connack.properties.authentication_data.unwrap();
    assert_eq!(data, expected.as_bytes(), "the server knows the secret");
    peer
}

async fn expect_refusal(mut peer: Peer, reason: ReasonCode) {
    let received = peer.receive().await;
    assert_eq!(received.connack().reason_code, reason);
    peer.expect_closed().await;
}

/// Who begins an exchange and does not go on takes no place among those who are connected.
#[tokio::test(start_paused = true)]
async fn unfinished_exchanges_keep_nobody_out() {
    let files = files();
    let mut config = files.config();
    config.max_connections = 1;
    let broker = broker_with(config);
    let mut silent = Vec::new();
    for name in ["a", "b", "c"] {
        silent.push(begin(&broker, &hello(V5, name), &first("anna")).await);
    }
    let anna = accepted(&broker, &hello(V5, "d"), "anna").await;
    // Now it is taken.
    let (mut late, server_first) = begin(&broker, &hello(V5, "e"), &first("ben")).await;
    let (data, _) = last("ben", "ben-scram", &server_first);
    late.send(&Packet::Auth(auth(
        ReasonCode::CONTINUE_AUTHENTICATION,
        &data,
    )))
    .await;
    let answer = late.receive().await;
    assert_eq!(answer.connack().reason_code, ReasonCode::SERVER_BUSY);
    drop(anna);
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-5]: the exchange ends with CONNACK; whom it names owns the session, and what was sent
/// with the last AUTH is handled.
#[tokio::test(start_paused = true)]
async fn who_proves_the_password_is_let_in() {
    let files = files();
    let broker = files.broker();
    let mut anna = accepted(&broker, &lasting(V5, "one"), "anna").await;
    anna.subscribe("a", QoS::AtMostOnce).await;
    let not_valid = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
    Peer::refused(&broker, &user(V5, "carl", "one"), not_valid).await;
    // The keys serve for the password itself as well.
    let mut plain = user(V5, "ben", "two");
    plain.password = Some(b"ben-scram");
    let mut ben = Peer::accepted(&broker, &plain).await;
    ben.publish(&message("a", "text", QoS::AtLeastOnce)).await;
    anna.expect_message("a", "text", QoS::AtMostOnce).await;
}

/// [MQTT-4.12.0-4]: no such user, no such keys, no such password: the same answers, at the same times.
#[tokio::test(start_paused = true)]
async fn who_does_not_prove_it_is_refused() {
    let files = files();
    let broker = files.broker();
    let not = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
    for (name, password) in [("anna", "other"), ("nobody", "x"), ("carl", "carl-secret")] {
        let (mut peer, server_first) = begin(&broker, &hello(V5, "one"), &first(name)).await;
        let (data, _) = last(name, password, &server_first);
        peer.send(&Packet::Auth(auth(
            ReasonCode::CONTINUE_AUTHENTICATION,
            &data,
        )))
        .await;
        expect_refusal(peer, not).await;
    }
    assert_eq!(denied(&broker, Denial::Login), 3);
    let mut connect = hello(V5, "one");
    connect.properties.authentication_method = Some(METHOD);
    for data in [None, Some(&b"n,,n=anna"[..]), Some(&b"\xff"[..])] {
        connect.properties.authentication_data = data;
        Peer::refused(&broker, &connect, not).await;
    }
    assert_eq!(denied(&broker, Denial::Login), 6);
}

/// [MQTT-4.12.0-1]: a method is there only where a user has keys for it.
#[tokio::test(start_paused = true)]
async fn without_keys_there_is_no_method() {
    let mut connect = hello(V5, "one");
    connect.properties.authentication_method = Some(METHOD);
    connect.properties.authentication_data = Some(b"n,,n=anna,r=abc");
    let unknown = ReasonCode::BAD_AUTHENTICATION_METHOD;
    Peer::refused(&broker(), &connect, unknown).await;
    let files = Files::without_permissions();
    Peer::refused(&files.broker(), &connect, unknown).await;
}

/// [MQTT-3.1.4-6]: whatever is not the AUTH that is due ends the exchange, and nothing of it is done.
#[tokio::test(start_paused = true)]
async fn an_exchange_has_an_order() {
    let files = files();
    let broker = files.broker();
    let mut other = auth(ReasonCode::CONTINUE_AUTHENTICATION, "x");
    other.properties.authentication_method = Some("SCRAM-SHA-1");
    for packet in [
        Packet::Auth(auth(ReasonCode::REAUTHENTICATE, "x")),
        Packet::Auth(auth(ReasonCode::SUCCESS, "x")),
        Packet::Auth(other),
        Packet::PingReq,
        Packet::Publish(message("a", "x", QoS::AtMostOnce)),
        Packet::Connect(Box::new(hello(V5, "one"))),
    ] {
        let (mut peer, _) = begin(&broker, &hello(V5, "one"), &first("anna")).await;
        peer.send(&packet).await;
        expect_refusal(peer, ReasonCode::PROTOCOL_ERROR).await;
    }
    let (mut peer, _) = begin(&broker, &hello(V5, "one"), &first("anna")).await;
    peer.send(&Packet::Disconnect(mqtt_codec::Disconnect::new(
        ReasonCode(0),
    )))
    .await;
    peer.expect_closed().await;
    // Who says nothing has no more time than others.
    let (mut peer, _) = begin(&broker, &hello(V5, "one"), &first("anna")).await;
    advance(11).await;
    peer.expect_closed().await;
}

/// [MQTT-4.12.1-2]: a client shows again who it is, while messages flow; who fails is disconnected.
#[tokio::test(start_paused = true)]
async fn a_client_may_show_again_who_it_is() {
    let files = files();
    let broker = files.broker();
    let mut anna = accepted(&broker, &hello(V5, "one"), "anna").await;
    anna.subscribe("a", QoS::AtMostOnce).await;
    for (name, password, reason) in [
        ("anna", "anna-scram", ReasonCode::SUCCESS),
        ("anna", "anna-scram", ReasonCode::SUCCESS),
        ("anna", "other", ReasonCode::NOT_AUTHORIZED),
    ] {
        anna.send(&Packet::Auth(auth(
            ReasonCode::REAUTHENTICATE,
            &first(name),
        )))
        .await;
        let server_first = expect_auth(&mut anna, ReasonCode::CONTINUE_AUTHENTICATION).await;
        anna.send_publish(&message("a", "text", QoS::AtMostOnce))
            .await;
        anna.expect_message("a", "text", QoS::AtMostOnce).await;
        let (data, expected) = last(name, password, &server_first);
        anna.send(&Packet::Auth(auth(
            ReasonCode::CONTINUE_AUTHENTICATION,
            &data,
        )))
        .await;
        if reason == ReasonCode::SUCCESS {
            let said = expect_auth(&mut anna, reason).await;
            assert_eq!(said, expected);
        } else {
            anna.expect_disconnect(reason).await;
            return;
        }
    }
}

/// Who begins to show again who it is, and does not come to the end of it in the time that CONNECT has, is
/// disconnected, though it does everything else; who does stays.
#[tokio::test(start_paused = true)]
async fn showing_again_has_its_time() {
    let files = files();
    let broker = files.broker();
    let mut anna = accepted(&broker, &hello(V5, "one"), "anna").await;
    for finishes in [true, false] {
        let again = first("anna");
        let begun = auth(ReasonCode::REAUTHENTICATE, &again);
        anna.send(&Packet::Auth(begun)).await;
        let server_first = expect_auth(&mut anna, ReasonCode::CONTINUE_AUTHENTICATION).await;
        advance(9).await;
        anna.expect_nothing().await;
        if finishes {
            let (data, _) = last("anna", "anna-scram", &server_first);
            let ended = auth(ReasonCode::CONTINUE_AUTHENTICATION, &data);
            anna.send(&Packet::Auth(ended)).await;
            expect_auth(&mut anna, ReasonCode::SUCCESS).await;
        }
        advance(1).await;
        if finishes {
            anna.expect_nothing().await;
        }
    }
    anna.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
}

/// While memory is short a client is let wait, and its time stands still: it is not its fault.
#[tokio::test(start_paused = true)]
async fn showing_again_has_its_time_beside_what_the_broker_takes() {
    let files = files();
    let used = Arc::new(AtomicU64::new(0));
    let gauge = Arc::clone(&used);
    let mut config = files.config();
    config.memory = 1_000;
    config.memory_gauge = MemoryGauge::new(move || Some(gauge.load(Ordering::Relaxed)));
    let broker = broker_with(config);
    let mut anna = accepted(&broker, &hello(V5, "one"), "anna").await;
    used.store(900, Ordering::Relaxed);
    advance(1).await;
    let again = first("anna");
    anna.send(&Packet::Auth(auth(ReasonCode::REAUTHENTICATE, &again)))
        .await;
    let server_first = expect_auth(&mut anna, ReasonCode::CONTINUE_AUTHENTICATION).await;
    for _ in 0..20 {
        anna.send_publish(&message("a", "text", QoS::AtMostOnce))
            .await;
    }
    let (data, _) = last("anna", "anna-scram", &server_first);
    anna.send(&Packet::Auth(auth(
        ReasonCode::CONTINUE_AUTHENTICATION,
        &data,
    )))
    .await;
    expect_auth(&mut anna, ReasonCode::SUCCESS).await;
    // Its own time goes on where it stood.
    anna.send(&Packet::Auth(auth(ReasonCode::REAUTHENTICATE, &again)))
        .await;
    expect_auth(&mut anna, ReasonCode::CONTINUE_AUTHENTICATION).await;
    for _ in 0..5 {
        anna.send_publish(&message("a", "text", QoS::AtMostOnce))
            .await;
    }
    advance(13).await;
    anna.expect_nothing().await;
    advance(3).await;
    anna.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
}

/// The session does not change hands, and after CONNACK there is an order as well.
#[tokio::test(start_paused = true)]
async fn showing_again_is_no_way_to_be_another() {
    let files = files();
    let broker = files.broker();
    let mut anna = accepted(&broker, &hello(V5, "one"), "anna").await;
    anna.send(&Packet::Auth(auth(
        ReasonCode::REAUTHENTICATE,
        &first("ben"),
    )))
    .await;
    let server_first = expect_auth(&mut anna, ReasonCode::CONTINUE_AUTHENTICATION).await;
    let (data, _) = last("ben", "ben-scram", &server_first);
    anna.send(&Packet::Auth(auth(
        ReasonCode::CONTINUE_AUTHENTICATION,
        &data,
    )))
    .await;
    anna.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;

    let mut other = auth(ReasonCode::REAUTHENTICATE, "x");
    other.properties.authentication_method = Some("SCRAM-SHA-1");
    let again = first("anna");
    for packets in [
        vec![auth(ReasonCode::CONTINUE_AUTHENTICATION, "x")],
        vec![auth(ReasonCode::SUCCESS, "x")],
        vec![other],
        vec![auth(ReasonCode::REAUTHENTICATE, &again); 2],
    ] {
        let mut anna = accepted(&broker, &hello(V5, "one"), "anna").await;
        let count = packets.len();
        for packet in packets {
            anna.send(&Packet::Auth(packet)).await;
        }
        if count == 2 {
            expect_auth(&mut anna, ReasonCode::CONTINUE_AUTHENTICATION).await;
        }
        anna.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
    }
}

/// A user whose password changes is disconnected by a reload, however it was shown.
#[tokio::test(start_paused = true)]
async fn a_new_password_ends_the_connections_of_the_old_one() {
    let files = files();
    let broker = files.broker();
    let mut anna = accepted(&broker, &hello(V5, "one"), "anna").await;
    let mut ben = accepted(&broker, &hello(V5, "two"), "ben").await;
    let passwords = files.settings.password_file.as_ref().unwrap();
    set_password(passwords, "anna", b"new", HashKind::ScramSha256).unwrap();
    broker.reload_auth(&files.settings).unwrap();
    anna.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    ben.expect_nothing().await;
}

/// A client that takes no packets of the size of AUTH or CONNACK is refused before it comes to that.
#[tokio::test(start_paused = true)]
async fn packets_fit_the_client() {
    let files = files();
    let broker = files.broker();
    for size in [20, 100] {
        let mut connect = hello(V5, "one");
        connect.properties.maximum_packet_size = core::num::NonZeroU32::new(size);
        connect.properties.authentication_method = Some(METHOD);
        connect.properties.authentication_data =
            Some(b"n,,n=anna,r=abcabcabcabcabcabcabcabcabcabcabcabc");
        Peer::refused(&broker, &connect, ReasonCode::PACKET_TOO_LARGE).await;
    }
}
