//! Keys of JSON Web Tokens: each algorithm, as PEM and in a set (JWKS), and tokens that try to get past them.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use mqtt_broker::auth::{AuthSettings, Authority, Denial, JwtSettings};
use mqtt_broker::{Broker, Config};
use mqtt_codec::{Connect, ReasonCode};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guarded::denied;
use crate::harness::{Peer, V3_1_1, V5, broker_with, hello};

const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::RS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A key in all its forms.
struct Key {
    algorithm: Algorithm,
    signs: EncodingKey,
    public_pem: String,
    public_der: Vec<u8>,
    jwk: Value,
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::RS256 => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
            }
            Algorithm::ES256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            _ => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        let pair = pair.unwrap();
        let pem = pair.serialize_pem();
        let signs = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        let signs = signs.unwrap();
        let public_der = pair.subject_public_key_info();
        let jwk = if algorithm == Algorithm::EdDSA {
            let x = BASE64.encode(&public_der[public_der.len() - 32..]);
            json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x })
        } else {
            let jwk = Jwk::from_encoding_key(&signs, algorithm).unwrap();
            serde_json::to_value(jwk).unwrap()
        };
        Self {
            algorithm,
            public_pem: pair.public_key_pem(),
            public_der,
            jwk,
            signs,
        }
    }

    fn header(&self, kid: Option<&str>) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(Into::into);
        header
    }

    fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        encode(&self.header(kid), claims, &self.signs).unwrap()
    }

    /// The public key as one of a set.
    fn in_set(&self, kid: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = json!(kid);
        jwk
    }
}

/// One key of each algorithm, and another one that nobody knows.
fn keys() -> &'static [(Key, Key); 4] {
    static KEYS: OnceLock<[(Key, Key); 4]> = OnceLock::new();
    KEYS.get_or_init(|| ALGORITHMS.map(|one| (Key::new(one), Key::new(one))))
}

/// Where a broker has its keys.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    fn settings(&self, text: &str, is_set: bool) -> AuthSettings {
        let file = self.directory.path().join("keys");
        std::fs::write(&file, text).unwrap();
        let mut jwt = JwtSettings::default();
        match is_set {
            true => jwt.jwks_file = Some(file),
            false => jwt.key_file = Some(file),
        }
        let mut settings = AuthSettings::default();
        settings.jwt = Some(jwt);
        settings
    }

    fn broker(&self, text: &str, is_set: bool) -> Broker {
        let mut config = Config::default();
        config.auth = Authority::load(&self.settings(text, is_set)).unwrap();
        broker_with(config)
    }

    fn broker_of(&self, keys: &[Value]) -> Broker {
        self.broker(&json!({ "keys": keys }).to_string(), true)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "sub": "anna", "exp": now() + 3_600 })
}

fn with<'a>(connect: Connect<'a>, token: &'a str) -> Connect<'a> {
    let mut connect = connect;
    connect.username = Some("anna");
    connect.password = Some(token.as_bytes());
    connect
}

async fn accepted(broker: &Broker, token: &str) {
    for version in [V3_1_1, V5] {
        let peer = Peer::accepted(broker, &with(hello(version, "x"), token)).await;
        peer.disconnect().await;
    }
}

/// All of these must get the same answer, and be counted.
async fn refused(broker: &Broker, tokens: &[(&str, String)]) {
    let before = denied(broker, Denial::Login);
    for (what, token) in tokens {
        for version in [V3_1_1, V5] {
            let connect = with(hello(version, "x"), token);
            let (mut peer, received) = Peer::connect(broker, &connect).await;
            let reason = received.connack().reason_code;
            assert_eq!(reason, ReasonCode::BAD_USER_NAME_OR_PASSWORD, "{what}");
            peer.expect_closed().await;
        }
    }
    let count = 2 * tokens.len() as u64;
    assert_eq!(denied(broker, Denial::Login), before + count);
}

/// A token of any parts, signed by whoever signs.
fn put_together(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let parts = [header.to_string(), claims.to_string()].map(|part| BASE64.encode(part));
    format!("{}.{}.{}", parts[0], parts[1], BASE64.encode(signature))
}

/// A token of HS256 whose secret is what everybody may know.
fn confused(secret: &[u8], kid: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = kid.map(Into::into);
    encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
}

/// Tokens that a key must not let in, whatever form it came in.
fn attempts(own: &Key, stranger: &Key, kid: Option<&str>) -> Vec<(&'static str, String)> {
    let good = own.token(kid, &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let signature = BASE64.decode(signature).unwrap();
    let mut changed = signature.clone();
    changed[5] ^= 1;
    let (head, _) = signed.split_once('.').unwrap();
    let root = BASE64.encode(json!({ "sub": "root", "exp": now() + 3_600 }).to_string());
    let mut own_key = own.header(kid);
    own_key.jwk = Some(serde_json::from_value(stranger.jwk.clone()).unwrap());
    let mut elsewhere = own.header(kid);
    elsewhere.jku = Some("http://127.0.0.1:1/keys".to_owned());
    let sign = |header: &Header| encode(header, &claims(), &stranger.signs).unwrap();
    let none = |alg: &str| put_together(&json!({ "alg": alg, "kid": kid }), &claims(), &signature);
    let mut attempts = vec![
        (
            "expired",
            own.token(kid, &json!({ "sub": "anna", "exp": now() - 1 })),
        ),
        ("no end", own.token(kid, &json!({ "sub": "anna" }))),
        (
            "not yet",
            own.token(
                kid,
                &json!({ "sub": "anna", "exp": now() + 99, "nbf": now() + 60 }),
            ),
        ),
        (
            "huge",
            own.token(
                kid,
                &json!({ "sub": "anna", "exp": now() + 99, "x": "y".repeat(20_000) }),
            ),
        ),
        ("nobody", own.token(kid, &json!({ "exp": now() + 99 }))),
        ("signed by a stranger", stranger.token(kid, &claims())),
        ("brings its own key", sign(&own_key)),
        ("names a place for its key", sign(&elsewhere)),
        (
            "signature changed",
            format!("{signed}.{}", BASE64.encode(&changed)),
        ),
        (
            "signature cut",
            format!(
                "{signed}.{}",
                BASE64.encode(&signature[..signature.len() - 1])
            ),
        ),
        ("no signature", format!("{signed}.")),
        (
            "claims changed",
            format!("{head}.{root}.{}", BASE64.encode(&signature)),
        ),
        (
            "of no algorithm",
            put_together(&json!({ "kid": kid }), &claims(), &signature),
        ),
        ("none", none("none")),
        ("None", none("None")),
        ("nOnE", none("nOnE")),
        ("an algorithm that there is none of", none("RS1")),
        (
            "none, and nothing",
            put_together(&json!({ "alg": "none" }), &claims(), b""),
        ),
        (
            "what must be understood is not",
            put_together(
                &json!({ "alg": own.header(None).alg, "crit": ["b64"], "b64": false }),
                &claims(),
                &signature,
            ),
        ),
        (
            "its secret is the PEM",
            confused(own.public_pem.as_bytes(), kid),
        ),
        (
            "its secret is the PEM, trimmed",
            confused(own.public_pem.trim().as_bytes(), kid),
        ),
        ("its secret is the DER", confused(&own.public_der, kid)),
        (
            "its secret is the JWK",
            confused(own.jwk.to_string().as_bytes(), kid),
        ),
        ("its secret is empty", confused(b"", kid)),
        ("header is no JSON", format!("ey!{good}")),
        ("claims are no JSON", {
            let parts = [own_header_text(own), "no JSON".to_owned()].map(|it| BASE64.encode(it));
            format!("{}.{}.{}", parts[0], parts[1], BASE64.encode(&signature))
        }),
        ("header is deep", {
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000));
            format!(
                "{}.{root}.{}",
                BASE64.encode(deep),
                BASE64.encode(&signature)
            )
        }),
    ];
    for (other, _) in keys() {
        if other.algorithm != own.algorithm {
            attempts.push((
                "signed by a key of another algorithm",
                other.token(kid, &claims()),
            ));
            let mut header = own.header(kid);
            header.alg = other.algorithm;
            let text = serde_json::to_value(&header).unwrap();
            attempts.push((
                "says another algorithm",
                put_together(&text, &claims(), &signature),
            ));
        }
    }
    attempts
}

fn own_header_text(key: &Key) -> String {
    serde_json::to_string(&key.header(None)).unwrap()
}

/// A key in PEM lets in whom it has signed for, and nobody else.
#[tokio::test(start_paused = true)]
async fn keys_in_pem() {
    for (own, stranger) in keys() {
        let place = Place::new();
        let broker = place.broker(&own.public_pem, false);
        for kid in [None, Some("any")] {
            accepted(&broker, &own.token(kid, &claims())).await;
            refused(&broker, &attempts(own, stranger, kid)).await;
        }
    }
}

/// The same of a key in a set, by its name or without.
#[tokio::test(start_paused = true)]
async fn keys_in_a_set() {
    for (own, stranger) in keys() {
        let place = Place::new();
        let broker = place.broker_of(&[own.in_set("own")]);
        for kid in [None, Some("own")] {
            accepted(&broker, &own.token(kid, &claims())).await;
            refused(&broker, &attempts(own, stranger, kid)).await;
        }
        let other = own.token(Some("other"), &claims());
        let similar = own.token(Some("OWN"), &claims());
        let empty = own.token(Some(""), &claims());
        let cases = [
            ("other name", other),
            ("other case", similar),
            ("no name", empty),
        ];
        refused(&broker, &cases).await;
    }
}

/// Of a set with keys of all algorithms each token is checked by those of its own, whatever they are called.
#[tokio::test(start_paused = true)]
async fn a_set_of_all_algorithms() {
    let secret = b"of thirty-two bytes, or of more!";
    let mut set: Vec<Value> = keys().iter().map(|(key, _)| key.in_set("same")).collect();
    set.push(json!({ "kty": "oct", "kid": "same", "k": BASE64.encode(secret) }));
    // Not for tokens, not of a kind that is spoken, and for another algorithm than is spoken.
    let (rsa, stranger) = &keys()[0];
    let mut encrypts = stranger.in_set("encrypts");
    encrypts["use"] = json!("enc");
    encrypts.as_object_mut().unwrap().remove("alg");
    let mut longer = stranger.in_set("longer");
    longer["alg"] = json!("RS512");
    set.extend([
        encrypts,
        longer,
        json!({ "kty": "EC", "crv": "P-521", "kid": "curve", "x": "", "y": "" }),
    ]);
    let place = Place::new();
    let broker = place.broker_of(&set);
    for kid in [None, Some("same")] {
        for (key, _) in keys() {
            accepted(&broker, &key.token(kid, &claims())).await;
        }
        accepted(&broker, &confused(secret, kid)).await;
    }
    let mut cases: Vec<(&str, String)> = ["encrypts", "longer", "curve"]
        .map(|kid| ("not taken", stranger.token(Some(kid), &claims())))
        .into();
    let longer = |algorithm| {
        let mut header = Header::new(algorithm);
        header.kid = Some("longer".to_owned());
        encode(&header, &claims(), &stranger.signs).unwrap()
    };
    accepted(&broker, &longer(Algorithm::RS512)).await;
    cases.push(("RS384", longer(Algorithm::RS384)));
    cases.push(("PS512", longer(Algorithm::PS512)));
    cases.push((
        "confused",
        confused(rsa.public_pem.as_bytes(), Some("same")),
    ));
    refused(&broker, &cases).await;
}

/// One key of RSA is for all of its algorithms, unless a set says for which.
#[tokio::test(start_paused = true)]
async fn a_key_of_rsa_is_for_its_family() {
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    let (own, stranger) = &keys()[0];
    let place = Place::new();
    let mut free = own.in_set("own");
    free.as_object_mut().unwrap().remove("alg");
    let brokers = [
        place.broker(&own.public_pem, false),
        place.broker_of(&[free]),
    ];
    let mut bound = own.in_set("own");
    bound["alg"] = json!("PS384");
    let only = place.broker_of(&[bound]);
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        let sign = |key: &Key| encode(&Header::new(algorithm), &claims(), &key.signs).unwrap();
        for broker in &brokers {
            accepted(broker, &sign(own)).await;
            refused(broker, &[("signed by a stranger", sign(stranger))]).await;
        }
        match algorithm {
            PS384 => accepted(&only, &sign(own)).await,
            _ => refused(&only, &[("another algorithm", sign(own))]).await,
        }
    }
}

/// A secret is for the algorithms whose hashes are no longer than it, and in a set for one if that says so.
#[tokio::test(start_paused = true)]
async fn a_secret_is_as_long_as_its_hash() {
    use Algorithm::{HS256, HS384, HS512};
    for (bytes, fitting) in [(32, 1), (47, 1), (48, 2), (63, 2), (64, 3), (200, 3)] {
        let secret: Vec<u8> = (0..bytes).collect();
        let place = Place::new();
        let jwk = json!({ "kty": "oct", "k": BASE64.encode(&secret) });
        let broker = place.broker_of(std::slice::from_ref(&jwk));
        for (number, algorithm) in [HS256, HS384, HS512].into_iter().enumerate() {
            let sign = |secret: &[u8]| {
                let key = EncodingKey::from_secret(secret);
                encode(&Header::new(algorithm), &claims(), &key).unwrap()
            };
            let (own, other) = (sign(&secret), sign(&[7; 64]));
            match number < fitting {
                true => accepted(&broker, &own).await,
                false => refused(&broker, &[("a short secret", own.clone())]).await,
            }
            refused(&broker, &[("another secret", other)]).await;

            let mut bound = jwk.clone();
            bound["alg"] = json!(format!("{algorithm:?}"));
            let text = json!({ "keys": [bound] }).to_string();
            let loaded = Authority::load(&place.settings(&text, true));
            assert_eq!(
                loaded.is_ok(),
                number < fitting,
                "{bytes} bytes, {algorithm:?}"
            );
            if number == fitting - 1 {
                let only = place.broker(&text, true);
                accepted(&only, &own).await;
                let shorter = encode(
                    &Header::new(HS256),
                    &claims(),
                    &EncodingKey::from_secret(&secret),
                );
                if number > 0 {
                    refused(&only, &[("another algorithm", shorter.unwrap())]).await;
                }
            }
        }
    }
}

/// A set that is none, or of which nothing can be used, is an error that names the file and nothing of a key.
#[test]
fn sets_that_are_no_use() {
    let place = Place::new();
    let short = json!({ "kty": "oct", "k": BASE64.encode("short and secret") });
    for (text, what) in [
        ("".to_owned(), "not a set of keys"),
        ("{}".to_owned(), "not a set of keys"),
        ("{\"keys\": 5}".to_owned(), "not a set of keys"),
        ("[".repeat(100_000), "not a set of keys"),
        (
            "{\"keys\": []}".to_owned(),
            "no key of HMAC, RSA, P-256, P-384 or Ed25519",
        ),
        (
            json!({ "keys": [{ "kty": "EC", "crv": "P-521", "x": "", "y": "" }] }).to_string(),
            "no key",
        ),
        (
            json!({ "keys": [{ "kty": "EC", "crv": "P-384", "x": "", "y": "" }] }).to_string(),
            "damaged",
        ),
        (json!({ "keys": [short] }).to_string(), "32 bytes"),
    ] {
        let error = Authority::load(&place.settings(&text, true))
            .unwrap_err()
            .to_string();
        assert!(error.contains("keys: "), "{error}");
        assert!(error.contains(what), "{error}");
        assert!(!error.contains("short and"), "{error}");
    }
}
