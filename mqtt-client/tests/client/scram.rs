//! An authenticator of SCRAM-SHA-256 against a broker in this process, which knows the keys alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use mqtt_broker::auth::{AuthSettings, Authority, HashKind, set_password};
use mqtt_broker::{Broker, Config};
use mqtt_client::{AuthenticationError, Authenticator, Client, Error, Options, QoS, ReasonCode};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};

use crate::peer::message;

/// One exchange, as RFC 5802 has it.
struct Scram {
    user: &'static str,
    password: &'static str,
    server_final: String,
}

const NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";

fn keyed(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn text(data: Option<&[u8]>) -> Result<&str, AuthenticationError> {
    Ok(core::str::from_utf8(data.ok_or("no data")?)?)
}

impl Authenticator for Scram {
    fn method(&self) -> &str {
        "SCRAM-SHA-256"
    }

    fn start(&mut self) -> Result<Option<Bytes>, AuthenticationError> {
        let first = format!("n,,n={},r={NONCE}", self.user);
        Ok(Some(first.into()))
    }

    fn proceed(&mut self, data: Option<&[u8]>) -> Result<Option<Bytes>, AuthenticationError> {
        let server_first = text(data)?;
        let mut parts = server_first.split(',');
        let mut part = |name| {
            let part = parts.next().and_then(|part| part.strip_prefix(name));
            part.ok_or(AuthenticationError::from("a part is missing"))
        };
        let (nonce, salt, count) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(NONCE) || nonce.len() == NONCE.len() {
            return Err("the server has no nonce of its own".into());
        }
        let mut salted = [0; 32];
        let password = self.password.as_bytes();
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &BASE64.decode(salt)?, count.parse()?, &mut salted);
        let without_proof = format!("c=biws,r={nonce}");
        let transcript = format!("n={},r={NONCE},{server_first},{without_proof}", self.user);
        let mut proof = keyed(&salted, b"Client Key");
        let signature = keyed(&Sha256::digest(proof), transcript.as_bytes());
        for (byte, mask) in proof.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let server_key = keyed(&salted, b"Server Key");
        let signature = keyed(&server_key, transcript.as_bytes());
        self.server_final = format!("v={}", BASE64.encode(signature));
        let last = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok(Some(last.into()))
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError> {
        if text(data)? != self.server_final {
            return Err("the server does not know the secret".into());
        }
        Ok(())
    }
}

fn options(user: &'static str, password: &'static str) -> Options {
    Options::new("", 0).authenticator(move || {
        Box::new(Scram {
            user,
            password,
            server_final: String::new(),
        })
    })
}

/// A broker that knows `anna`, and its files.
fn broker() -> (Broker, AuthSettings, TempDir) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("passwords");
    set_password(&file, "anna", b"secret", HashKind::ScramSha256).unwrap();
    let mut settings = AuthSettings::default();
    settings.password_file = Some(file);
    let mut config = Config::default();
    config.auth = Authority::load(&settings).unwrap();
    (Broker::new(config), settings, directory)
}

fn stream(broker: &Broker) -> DuplexStream {
    let (near, far) = duplex(1 << 16);
    broker.serve(far, "client");
    near
}

/// Both ends are sure of each other before CONNACK, and again whenever the client wants to be.
#[tokio::test]
async fn client_and_broker_prove_what_they_know() {
    let (broker, settings, _directory) = broker();
    let connected = Client::connect_with(stream(&broker), options("anna", "secret")).await;
    let client = connected.unwrap();
    for _ in 0..3 {
        client.reauthenticate().await.unwrap();
        let receipt = client
            .publish(message(QoS::AtLeastOnce, "x"))
            .await
            .unwrap();
        assert!(!receipt.await.unwrap().is_error());
    }
    // With another password in the file the broker would no longer let it in.
    let file = settings.password_file.as_ref().unwrap();
    set_password(file, "anna", b"other", HashKind::ScramSha256).unwrap();
    broker.reload_auth(&settings).unwrap();
    let error = client.reauthenticate().await.unwrap_err();
    assert!(!matches!(error, Error::Authentication(_)), "{error}");
}

/// Nobody is told whether there is such a user.
#[tokio::test]
async fn who_does_not_know_the_password_is_refused() {
    let (broker, _settings, _directory) = broker();
    for (user, password) in [("anna", "other"), ("nobody", "secret")] {
        let connected = Client::connect_with(stream(&broker), options(user, password)).await;
        match connected.unwrap_err() {
            Error::Refused { reason, .. } => {
                assert_eq!(reason, ReasonCode::BAD_USER_NAME_OR_PASSWORD)
            }
            other => panic!("{other:?}"),
        }
    }
}
