//! Clients that a service lets in, which is asked by HTTP.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mqtt_broker::auth::{Authority, Denial, OnFailure};
use mqtt_broker::settings::Span;
use mqtt_broker::{Broker, Config, ListenerOptions};
use mqtt_codec::{Connect, Packet, PacketType, ProtocolVersion, QoS, ReasonCode};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{advance, pause, resume};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::guarded::{Files, denied, user};
use crate::harness::{ALL, Peer, V3_1_1, V5, broker_with, filter, hello, lasting, message, settle};
use crate::service::{Answer, Service, asking};

const WRONG: ReasonCode = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
const DOWN: ReasonCode = ReasonCode::SERVER_UNAVAILABLE;

fn allow() -> Answer {
    Answer::json(&json!({ "result": "allow" }))
}

fn someone(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    let mut connect = hello(version, client_id);
    connect.username = Some("anna");
    connect.password = Some(b"word");
    connect
}

/// It is told who comes, and its word decides, in each version.
#[tokio::test]
async fn the_service_decides() {
    let service = Service::new(|asked| match asked["user"].as_str() {
        Some("anna") => allow(),
        Some("ben") => Answer::status(204),
        Some("carl") => Answer::json(&json!({ "result": "deny" })),
        _ => Answer::status(403),
    })
    .await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Bearer ours\n").unwrap();
    let file = secret.path().to_owned();
    let broker = asking(&service.settings(|http| http.authorization_file = Some(file)));
    for version in ALL {
        for good in ["anna", "ben"] {
            Peer::accepted(&broker, &user(version, good, "x")).await;
        }
        for bad in ["carl", "dora"] {
            Peer::refused(&broker, &user(version, bad, "x"), WRONG).await;
        }
        Peer::refused(&broker, &hello(version, "nobody"), WRONG).await;
    }
    assert_eq!(denied(&broker, Denial::Login), 9);
    assert_eq!(broker.counters().asked(), 15);
    let expected = json!({
        "client_id": "x", "user": "anna", "password": "anna-secret", "certificate": null,
        "address": null, "listener": null, "version": "3.1",
    });
    assert_eq!(service.asked()[0], expected);
    let head = service.head().to_lowercase();
    assert!(
        head.starts_with("post /asked?for=test http/1.1\r\n"),
        "{head}"
    );
    for line in [
        "authorization: bearer ours\r\n",
        "content-type: application/json\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    assert_eq!(service.connections(), 1, "a connection is used again");
}

/// The same question has the same answer for a while, be it yes or no; a failure is not remembered.
#[tokio::test]
async fn an_answer_is_remembered() {
    let service = Service::new(|_| Answer::status(500)).await;
    let broker = asking(&service.settings(|_| {}));
    Peer::refused(&broker, &someone(V5, "a"), DOWN).await;
    service.now(|_| allow());
    for _ in 0..3 {
        Peer::accepted(&broker, &someone(V5, "a")).await;
    }
    assert_eq!(service.asked().len(), 2);
    let mut other = someone(V5, "a");
    other.password = Some(b"another");
    service.now(|_| Answer::status(401));
    for _ in 0..3 {
        Peer::refused(&broker, &other, WRONG).await;
        Peer::accepted(&broker, &someone(V5, "a")).await;
    }
    assert_eq!(service.asked().len(), 1);
    pause();
    advance(Duration::from_secs(30)).await;
    resume();
    Peer::refused(&broker, &someone(V5, "a"), WRONG).await;
    assert_eq!(service.asked().len(), 1);
    // Another service, or the same again, is asked anew.
    service.now(|_| allow());
    broker.reload_auth(&service.settings(|_| {})).unwrap();
    Peer::accepted(&broker, &someone(V5, "a")).await;
    assert_eq!(service.asked().len(), 1);
}

/// What comes with "allow": another name, the end of the connection, and permissions.
#[tokio::test]
async fn an_answer_says_more() {
    let service = Service::new(|asked| match asked["client_id"].as_str() {
        Some("root") => Answer::json(&json!({ "result": "allow", "superuser": true })),
        Some("late") => Answer::json(&json!({ "result": "allow", "expires": 1 })),
        Some("short") => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let end = now.as_secs() + 2;
            Answer::json(&json!({ "result": "allow", "expires": end }))
        }
        _ => Answer::json(&json!({
            "result": "allow", "user": "device",
            "permissions": { "publish": ["up/%u/#"], "subscribe": ["down"] },
        })),
    })
    .await;
    let files = Files::new("topic read both\n");
    let mut settings = service.settings(|_| {});
    settings.acl_file.clone_from(&files.settings.acl_file);
    let broker = asking(&settings);
    let mut root = Peer::accepted(&broker, &someone(V5, "root")).await;
    root.subscribe("#", QoS::AtMostOnce).await;
    let mut one = Peer::accepted(&broker, &someone(V5, "one")).await;
    let not = ReasonCode::NOT_AUTHORIZED;
    let wanted = ["down", "both", "up/device/a"].map(|text| filter(text, QoS::AtMostOnce));
    let codes = one.subscribe_with(wanted.to_vec(), None).await;
    assert_eq!(codes[0], ReasonCode(0));
    assert_eq!(codes[2], not);
    let id = one
        .send_publish(&message("up/anna/a", "x", QoS::AtLeastOnce))
        .await;
    one.expect_ack(PacketType::PubAck, id.unwrap(), not).await;
    one.publish(&message("up/device/a", "y", QoS::AtLeastOnce))
        .await;
    root.expect_message("up/device/a", "y", QoS::AtMostOnce)
        .await;
    Peer::refused(&broker, &someone(V5, "late"), WRONG).await;
    let mut short = Peer::accepted(&broker, &someone(V5, "short")).await;
    short.expect_disconnect(not).await;
    // The session is that of the user whom the service named.
    let mut stay = lasting(V5, "kept");
    stay.username = Some("anna");
    Peer::accepted(&broker, &stay).await.abort().await;
    service.now(|_| Answer::json(&json!({ "result": "allow", "user": "other" })));
    stay.username = Some("ben");
    Peer::refused(&broker, &stay, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID).await;
}

/// However the service fails, it lets nobody in, and everybody hears that it is not their fault.
#[tokio::test]
async fn a_service_that_fails_lets_nobody_in() {
    let huge = format!(
        "{{\"result\": \"allow\", \"user\": \"{}\"}}",
        "a".repeat(70_000)
    );
    let huge_head = format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(100_000));
    let failures = [
        Answer::Http(200, huge),
        Answer::Http(200, "allow".to_owned()),
        Answer::Http(200, String::new()),
        Answer::Http(302, String::new()),
        Answer::Http(404, "{\"result\": \"allow\"}".to_owned()),
        Answer::Raw(Vec::new()),
        Answer::Raw(b"SSH-2.0-x\r\n\r\n".to_vec()),
        Answer::Raw(
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"result\": \"allow\"}".to_vec(),
        ),
        Answer::Raw(huge_head.into_bytes()),
    ];
    let service = Service::new(|_| allow()).await;
    let broker = asking(&service.settings(|_| {}));
    let count = failures.len() as u64;
    for (number, failure) in failures.into_iter().enumerate() {
        service.now(move |_| failure.clone());
        let version = if number % 2 == 0 { V5 } else { V3_1_1 };
        Peer::refused(&broker, &someone(version, "a"), DOWN).await;
    }
    service.stop();
    assert_eq!(broker.counters().asks_failed(), count);
    assert_eq!(denied(&broker, Denial::Service), count);
    assert_eq!(denied(&broker, Denial::Login), 0);
}

/// A service that does not answer is not waited for, nor one that is not there.
#[tokio::test]
async fn a_service_that_is_slow_or_gone_is_not_waited_for() {
    let service = Service::new(|_| Answer::Wait).await;
    let broker = asking(&service.settings(|http| http.timeout = Span(Duration::from_millis(20))));
    Peer::refused(&broker, &someone(V5, "a"), DOWN).await;
    service.stop();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let settings = service.settings(|http| http.url = Some(url));
    Peer::refused(&asking(&settings), &someone(V5, "a"), DOWN).await;
}

/// A connection on which nothing is asked is closed before others forget it, and one that the service has closed
/// meanwhile is no failure: the question is asked once more, on a new one.
#[tokio::test]
async fn idle_connections_age() {
    let service = Service::new(|_| allow()).await;
    let broker = asking(&service.settings(|http| http.cache = Span(Duration::ZERO)));
    Peer::accepted(&broker, &someone(V5, "a")).await;
    pause();
    advance(Duration::from_secs(14)).await;
    resume();
    Peer::accepted(&broker, &someone(V5, "a")).await;
    assert_eq!(service.connections(), 1);
    pause();
    advance(Duration::from_secs(15)).await;
    resume();
    service.left_alone().await;
    Peer::accepted(&broker, &someone(V5, "a")).await;
    assert_eq!(service.connections(), 2);

    service.asked();
    let answers = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answers);
    service.now(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::Raw(Vec::new()),
        _ => allow(),
    });
    Peer::accepted(&broker, &someone(V5, "a")).await;
    assert_eq!(service.connections(), 3);
    assert_eq!(service.asked().len(), 2);
    assert_eq!(broker.counters().asks_failed(), 0);
    // Once more, and not again.
    answers.store(0, Ordering::Relaxed);
    service.now(|_| Answer::Raw(Vec::new()));
    Peer::refused(&broker, &someone(V5, "a"), DOWN).await;
    assert_eq!(service.asked().len(), 2);
}

/// A client that goes while the service thinks gives its place back, and so does one that has to.
#[tokio::test]
async fn who_goes_meanwhile_gives_the_place_back() {
    let service = Service::new(|_| Answer::Wait).await;
    let mut config = Config::default();
    config.auth = Authority::load(&service.settings(|_| {})).unwrap();
    config.max_connections = 1;
    config.shutdown_timeout = Duration::from_secs(10_000);
    let broker = Broker::new(config);
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(broker.clone().run(Vec::new(), async { _ = stopped.await }));
    let mut first = Peer::open(&broker, V5);
    first
        .send(&Packet::Connect(Box::new(someone(V5, "first"))))
        .await;
    service.came().await;
    first.abort().await;
    service.now(|_| allow());
    Peer::accepted(&broker, &someone(V5, "second"))
        .await
        .disconnect()
        .await;

    // Who has said all before it closed is heard.
    service.now(|_| Answer::Wait);
    let mut third = Peer::open(&broker, V5);
    third
        .send(&Packet::Connect(Box::new(someone(V5, "third"))))
        .await;
    third.send(&Packet::PingReq).await;
    service.came().await;
    third.close_half().await;
    settle().await;
    service.now(|_| allow());
    // The question of the first is still there.
    service.go_on();
    service.go_on();
    assert_eq!(
        third.receive().await.connack().reason_code,
        ReasonCode::SUCCESS
    );
    third.expect(&Packet::PingResp).await;
    third.expect_closed().await;
    settle().await;

    service.now(|_| Answer::Wait);
    let mut last = Peer::open(&broker, V5);
    last.send(&Packet::Connect(Box::new(someone(V5, "last"))))
        .await;
    service.came().await;
    drop(broker);
    stop.send(()).unwrap();
    last.expect_closed().await;
    running.await.unwrap();
}

/// The other choices: whoever comes is let in, or the password file is asked.
#[tokio::test]
async fn what_a_failure_means_is_a_choice() {
    let service = Service::new(|_| Answer::status(500)).await;
    let settings = service.settings(|http| http.on_failure = OnFailure::Allow);
    let broker = asking(&settings);
    Peer::accepted(&broker, &someone(V5, "a")).await;
    assert_eq!(broker.counters().asks_failed(), 1);

    let files = Files::without_permissions();
    let mut settings = service.settings(|http| http.on_failure = OnFailure::Next);
    settings
        .password_file
        .clone_from(&files.settings.password_file);
    let broker = asking(&settings);
    Peer::accepted(&broker, &user(V5, "anna", "a")).await;
    Peer::refused(&broker, &someone(V5, "a"), WRONG).await;
    // It may say so itself; and who it denies is not asked for a password.
    service.now(|_| Answer::json(&json!({ "result": "next" })));
    Peer::accepted(&broker, &user(V5, "ben", "a")).await;
    service.now(|_| Answer::status(403));
    Peer::refused(&broker, &user(V5, "carl", "a"), WRONG).await;
    assert_eq!(broker.counters().asks_failed(), 2);
}

/// So many requests run, and so many wait; who comes beyond is told so, even where a failure lets all in.
#[tokio::test]
async fn what_is_beyond_the_bound_is_refused() {
    let service = Service::new(|_| Answer::Wait).await;
    let settings = service.settings(|http| {
        http.requests = 1;
        http.waiting_requests = 1;
        http.on_failure = OnFailure::Allow;
    });
    let broker = asking(&settings);
    let first = tokio::spawn({
        let broker = broker.clone();
        async move { Peer::accepted(&broker, &someone(V5, "first")).await }
    });
    service.came().await;
    let mut second = Peer::open(&broker, V5);
    second
        .send(&Packet::Connect(Box::new(someone(V5, "second"))))
        .await;
    settle().await;
    // 3.1.1 has one code for both.
    for (version, reason) in [(V5, ReasonCode::QUOTA_EXCEEDED), (V3_1_1, DOWN)] {
        Peer::refused(&broker, &someone(version, "third"), reason).await;
    }
    assert_eq!(denied(&broker, Denial::LoginQueue), 2);
    service.now(|_| allow());
    service.go_on();
    first.await.unwrap();
    assert_eq!(
        second.receive().await.connack().reason_code,
        ReasonCode::SUCCESS
    );
}

/// A reload without the service, or with another one, disconnects whom it let in.
#[tokio::test]
async fn a_reload_ends_what_the_service_let_in() {
    let service = Service::new(|_| allow()).await;
    let settings = service.settings(|_| {});
    let broker = asking(&settings);
    let mut anna = Peer::accepted(&broker, &someone(V5, "a")).await;
    broker.reload_auth(&settings).unwrap();
    anna.expect_nothing().await;
    let mut bad = settings.clone();
    bad.http.as_mut().unwrap().url = Some("ftp://x".to_owned());
    assert!(broker.reload_auth(&bad).is_err());
    anna.expect_nothing().await;
    let other = Service::new(|_| Answer::status(403)).await;
    broker.reload_auth(&other.settings(|_| {})).unwrap();
    anna.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    Peer::refused(&broker, &someone(V5, "a"), WRONG).await;
}

/// A listener with a service of its own asks that one, and says where the client came.
#[tokio::test]
async fn each_listener_asks_its_own() {
    let service = Service::new(|_| Answer::status(403)).await;
    let own = Service::new(|_| allow()).await;
    let mut plan = mqtt_broker::auth::AuthPlan::new(service.settings(|_| {}));
    plan.realms.insert("hall".into(), own.settings(|_| {}));
    let mut config = Config::default();
    config.auth = Authority::load_plan(&plan).unwrap();
    let broker = broker_with(config);
    let mut options = ListenerOptions::default();
    options.realm = Some("hall".into());
    let (_peer, answer) =
        Peer::connect_through(&broker, &Arc::new(options), &someone(V5, "a")).await;
    assert_eq!(answer.connack().reason_code, ReasonCode::SUCCESS);
    Peer::refused(&broker, &someone(V5, "a"), WRONG).await;
    assert_eq!(own.asked()[0]["listener"], "hall");
    assert_eq!(service.asked().len(), 1);
}

/// What cannot be asked is a mistake of the configuration, and its message shows no secret.
#[tokio::test]
async fn mistakes_are_told() {
    let service = Service::new(|_| allow()).await;
    for (url, expected) in [
        ("auth.example.org", "not a whole URL"),
        ("http://", "not a URL"),
        ("ftp://x/", "http or https"),
        ("http://me:secret@x/", "authorization_file"),
        ("https://exa mple/", "not a URL"),
    ] {
        let settings = service.settings(|http| http.url = Some(url.to_owned()));
        let error = Authority::load(&settings).unwrap_err().to_string();
        assert!(
            error.contains(expected) && !error.contains("secret@"),
            "{url}: {error}"
        );
    }
    let missing = service.settings(|http| http.authorization_file = Some("/nowhere".into()));
    assert!(
        Authority::load(&missing)
            .unwrap_err()
            .to_string()
            .contains("/nowhere")
    );
    let nothing = service.settings(|http| http.url = None);
    assert!(Authority::load(&nothing).is_err());
}

/// A service behind TLS is asked if its certificate comes from where it should, and only then.
#[tokio::test]
async fn a_service_behind_tls_shows_a_certificate() {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let service = Service::behind(Some(acceptor), |_| allow()).await;
    let files = Files::without_permissions();
    let own = files.write("own.pem", &signed.cert.pem());
    let broker = asking(&service.settings(|http| http.authorities = Some(own)));
    Peer::accepted(&broker, &someone(V5, "a")).await;
    let stranger = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = files.write("other.pem", &stranger.cert.pem());
    for authorities in [Some(other), None] {
        let settings = service.settings(|http| http.authorities = authorities);
        Peer::refused(&asking(&settings), &someone(V5, "a"), DOWN).await;
    }
    assert_eq!(service.asked().len(), 1);
    let empty = files.write("empty.pem", "");
    let settings = service.settings(|http| http.authorities = Some(empty));
    let error = Authority::load(&settings).unwrap_err().to_string();
    assert!(error.contains("empty.pem: no certificate"), "{error}");
}
