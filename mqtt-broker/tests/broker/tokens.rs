//! Tokens in place of passwords.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use mqtt_broker::auth::{AuthSettings, Authority, Denial, JwtSettings};
use mqtt_broker::settings::Span;
use mqtt_broker::{Broker, Config};
use mqtt_codec::{Connect, PacketType, QoS, ReasonCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guarded::denied;
use crate::harness::{ALL, Peer, V5, advance, broker_with, filter, hello, message};

const SECRET: &[u8] = b"of thirty-two bytes, or of more!";

/// A broker that takes tokens of one key, and where the key is.
struct Scene {
    directory: TempDir,
    settings: AuthSettings,
}

impl Scene {
    fn new(change: impl FnOnce(&mut JwtSettings)) -> Self {
        let directory = TempDir::new().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let mut jwt = JwtSettings::default();
        jwt.secret_file = Some(secret);
        change(&mut jwt);
        let mut settings = AuthSettings::default();
        settings.jwt = Some(jwt);
        Self {
            directory,
            settings,
        }
    }

    fn broker(&self) -> Broker {
        let mut config = Config::default();
        config.auth = Authority::load(&self.settings).unwrap();
        broker_with(config)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET);
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// What a token of `anna` says that holds for an hour.
fn anna() -> Value {
    json!({ "sub": "anna", "exp": now() + 3_600 })
}

fn with<'a>(connect: Connect<'a>, token: &'a str) -> Connect<'a> {
    let mut connect = connect;
    connect.username = Some("whoever");
    connect.password = Some(token.as_bytes());
    connect
}

async fn refused(broker: &Broker, token: &str) {
    let wrong = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
    Peer::refused(broker, &with(hello(V5, "x"), token), wrong).await;
}

/// The token names the user, whatever CONNECT says, and clients without one are not let in.
#[tokio::test(start_paused = true)]
async fn a_token_is_the_user() {
    let scene = Scene::new(|_| {});
    let broker = scene.broker();
    for version in ALL {
        let token = token(&anna());
        let mut lasting = with(hello(version, "session"), &token);
        lasting.clean_start = false;
        lasting.properties.session_expiry_interval = version.has_properties().then_some(600);
        let anna = Peer::accepted(&broker, &lasting).await;
        let ben = self::token(&json!({ "sub": "ben", "exp": now() + 3_600 }));
        let other = with(hello(version, "session"), &ben);
        let not_valid = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
        Peer::refused(&broker, &other, not_valid).await;
        anna.disconnect().await;
        let mut last = lasting.clone();
        last.clean_start = true;
        last.properties.session_expiry_interval = None;
        Peer::accepted(&broker, &last).await.disconnect().await;
        Peer::refused(&broker, &hello(version, "y"), ReasonCode::NOT_AUTHORIZED).await;
    }
    let mut connect = hello(V5, "x");
    connect.username = Some("anna");
    connect.password = Some(b"no token");
    let wrong = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
    Peer::refused(&broker, &connect, wrong).await;
}

/// Whatever is wrong with a token, the answer is the same.
#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_hold_lets_nobody_in() {
    let scene = Scene::new(|jwt| {
        jwt.audience = vec!["broker".to_owned()];
        jwt.issuer = vec!["works".to_owned()];
    });
    let broker = scene.broker();
    let good = json!({ "sub": "anna", "exp": now() + 60, "aud": "broker", "iss": "works" });
    Peer::accepted(&broker, &with(hello(V5, "x"), &token(&good))).await;
    let change = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        token(&claims)
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(key);
        token(&claims)
    };
    let mut cases = vec![
        change("exp", json!(now() - 1)),
        change("exp", json!("tomorrow")),
        change("nbf", json!(now() + 60)),
        change("aud", json!("another")),
        change("iss", json!("another")),
        change("sub", json!("")),
        change("sub", json!("a\nb")),
        change("sub", json!(5)),
        change("mqtt", json!("all")),
        change("mqtt", json!({ "publish": ["a/#/b"] })),
        change("mqtt", json!({ "publishes": ["a"] })),
    ];
    cases.extend(["exp", "aud", "iss", "sub"].map(without));
    // Signed by another, changed after it was signed, and not signed at all.
    let key = EncodingKey::from_secret(b"another one of thirty-two bytes!");
    cases.push(encode(&Header::default(), &good, &key).unwrap());
    let signed = token(&good);
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let other =
        token(&json!({ "sub": "root", "exp": now() + 60, "aud": "broker", "iss": "works" }));
    let (other, _) = other.rsplit_once('.').unwrap();
    cases.push(format!("{other}.{signature}"));
    cases.push(format!("{head}."));
    let (_, body) = head.split_once('.').unwrap();
    for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
        cases.push(format!("{none}.{body}."));
        cases.push(format!("{none}.{body}.{signature}"));
    }
    let key = EncodingKey::from_secret(SECRET);
    cases.push(encode(&Header::new(Algorithm::HS512), &good, &key).unwrap());
    cases.push("ey..".to_owned());
    cases.push(format!("ey{}..", "A".repeat(40_000)));
    let count = cases.len() as u64;
    for token in cases {
        refused(&broker, &token).await;
    }
    assert_eq!(denied(&broker, Denial::Login), count);
}

/// A public key never serves as a secret: a token that was made so is not even compared.
#[tokio::test(start_paused = true)]
async fn a_public_key_is_no_secret() {
    for (algorithm, signed) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let pem = key.public_key_pem();
        let scene = Scene::new(|jwt| jwt.secret_file = None);
        let mut settings = scene.settings.clone();
        let file = scene.directory.path().join("key.pem");
        std::fs::write(&file, &pem).unwrap();
        settings.jwt.as_mut().unwrap().key_file = Some(file.clone());
        let mut config = Config::default();
        config.auth = Authority::load(&settings).unwrap();
        let broker = broker_with(config);
        let private = key.serialize_pem();
        let own = match signed {
            Algorithm::ES256 => EncodingKey::from_ec_pem(private.as_bytes()),
            _ => EncodingKey::from_ed_pem(private.as_bytes()),
        };
        let good = encode(&Header::new(signed), &anna(), &own.unwrap()).unwrap();
        Peer::accepted(&broker, &with(hello(V5, "x"), &good)).await;
        let confused = EncodingKey::from_secret(pem.as_bytes());
        let confused = encode(&Header::new(Algorithm::HS256), &anna(), &confused).unwrap();
        refused(&broker, &confused).await;
        // Nor is a private key taken for a public one, nor PEM for a secret.
        std::fs::write(&file, private).unwrap();
        assert!(Authority::load(&settings).is_err());
        std::fs::write(&file, &pem).unwrap();
        let jwt = settings.jwt.as_mut().unwrap();
        jwt.secret_file = jwt.key_file.take();
        assert!(Authority::load(&settings).is_err());
    }
}

/// The connection ends when its token does, be it idle or busy.
#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_token() {
    let scene = Scene::new(|_| {});
    let broker = scene.broker();
    let short = token(&json!({ "sub": "anna", "exp": now() + 100 }));
    let long = token(&json!({ "sub": "anna", "exp": now() + 1_000_000_000_000_u64 }));
    let mut idle = Peer::accepted(&broker, &with(hello(V5, "idle"), &short)).await;
    let mut stays = Peer::accepted(&broker, &with(hello(V5, "stays"), &long)).await;
    advance(90).await;
    idle.publish(&message("a", "x", QoS::AtLeastOnce)).await;
    idle.expect_nothing().await;
    advance(10).await;
    idle.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    stays.publish(&message("a", "x", QoS::AtLeastOnce)).await;
}

/// What a token says about permissions is all that its client may do, where there is no file.
#[tokio::test(start_paused = true)]
async fn a_token_may_carry_permissions() {
    let scene = Scene::new(|_| {});
    let broker = scene.broker();
    let mut claims = anna();
    claims["mqtt"] = json!({
        "publish": ["up/%u/#", { "topic": "once", "qos": 1, "retain": false }],
        "subscribe": ["down/#"],
        "deny_publish": ["up/anna/secret"],
    });
    let limited = token(&claims);
    let free = token(&json!({ "sub": "ben", "exp": now() + 3_600 }));
    let mut ben = Peer::accepted(&broker, &with(hello(V5, "ben"), &free)).await;
    ben.subscribe("#", QoS::AtMostOnce).await;
    let mut anna = Peer::accepted(&broker, &with(hello(V5, "anna"), &limited)).await;
    let not = ReasonCode::NOT_AUTHORIZED;
    let wanted = vec![
        filter("down/a", QoS::AtMostOnce),
        filter("up/#", QoS::AtMostOnce),
    ];
    assert_eq!(
        anna.subscribe_with(wanted, None).await,
        [ReasonCode(0), not]
    );
    for topic in ["up/ben/a", "up/anna/secret", "down/a"] {
        let id = anna
            .send_publish(&message(topic, "x", QoS::AtLeastOnce))
            .await;
        anna.expect_ack(PacketType::PubAck, id.unwrap(), not).await;
    }
    ben.expect_nothing().await;
    for topic in ["up/anna/a", "once"] {
        anna.publish(&message(topic, "x", QoS::AtLeastOnce)).await;
        ben.expect_message(topic, "x", QoS::AtMostOnce).await;
    }
}

/// A token that does not hold for a new configuration does not keep its connection; where nothing of it changes, or
/// where it holds for the new one as well, its client notices nothing.
#[tokio::test(start_paused = true)]
async fn a_reload_looks_at_tokens_again() {
    type Change = fn(&mut JwtSettings);
    let claims = json!({
        "sub": "anna", "name": "anna", "other": "ben", "exp": now() + 3_600, "aud": "broker", "iss": "works",
        "mqtt": { "publish": ["a"] }, "same": { "publish": ["a"] }, "more": { "publish": ["#"] },
    });
    let token = token(&claims);
    let cases: [(&str, Change, bool); 9] = [
        ("nothing", |_| {}, true),
        (
            "audience",
            |jwt| jwt.audience = vec!["another".into()],
            false,
        ),
        (
            "one of them",
            |jwt| jwt.audience = vec!["another".into(), "broker".into()],
            true,
        ),
        ("issuer", |jwt| jwt.issuer = vec!["another".into()], false),
        ("another name", |jwt| jwt.user_claim = "other".into(), false),
        ("the same name", |jwt| jwt.user_claim = "name".into(), true),
        (
            "other permissions",
            |jwt| jwt.permissions_claim = "more".into(),
            false,
        ),
        (
            "the same permissions",
            |jwt| jwt.permissions_claim = "same".into(),
            true,
        ),
        (
            "more time",
            |jwt| jwt.leeway = Span(Duration::from_secs(60)),
            true,
        ),
    ];
    for (what, change, stays) in cases {
        let mut scene = Scene::new(|jwt| jwt.audience = vec!["broker".to_owned()]);
        let broker = scene.broker();
        let mut lasting = with(hello(V5, "lasting"), &token);
        lasting.properties.session_expiry_interval = Some(600);
        let mut gone = Peer::accepted(&broker, &lasting).await;
        gone.publish(&message("a", "x", QoS::AtLeastOnce)).await;
        gone.disconnect().await;
        let mut peer = Peer::accepted(&broker, &with(hello(V5, "x"), &token)).await;
        change(scene.settings.jwt.as_mut().unwrap());
        broker.reload_auth(&scene.settings).unwrap();
        if stays {
            peer.publish(&message("a", what, QoS::AtLeastOnce)).await;
        } else {
            peer.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
        }
    }
}

/// A reload without the key disconnects whom it let in; a set of keys lets in whom its keys have signed for.
#[tokio::test(start_paused = true)]
async fn keys_change_with_a_reload() {
    let mut scene = Scene::new(|_| {});
    let broker = scene.broker();
    let own = token(&anna());
    let mut old = Peer::accepted(&broker, &with(hello(V5, "old"), &own)).await;
    let other = b"another secret of 32 bytes: good";
    let jwks = json!({ "keys": [
        { "kty": "oct", "kid": "b", "alg": "HS256", "k": "YW5vdGhlciBzZWNyZXQgb2YgMzIgYnl0ZXM6IGdvb2Q" },
        { "kty": "EC", "crv": "P-521", "x": "", "y": "" },
    ] });
    let file = scene.directory.path().join("jwks.json");
    std::fs::write(&file, jwks.to_string()).unwrap();
    scene.settings.jwt.as_mut().unwrap().jwks_file = Some(file.clone());
    broker.reload_auth(&scene.settings).unwrap();
    old.expect_nothing().await;
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("b".to_owned());
    let key = EncodingKey::from_secret(other);
    let named = encode(&header, &anna(), &key).unwrap();
    Peer::accepted(&broker, &with(hello(V5, "new"), &named)).await;
    header.kid = Some("c".to_owned());
    refused(&broker, &encode(&header, &anna(), &key).unwrap()).await;
    scene.settings.jwt.as_mut().unwrap().secret_file = None;
    broker.reload_auth(&scene.settings).unwrap();
    old.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    refused(&broker, &own).await;
    std::fs::write(&file, "{\"keys\": []}").unwrap();
    assert!(broker.reload_auth(&scene.settings).is_err());
}
