//! Tokens (JWT) as passwords of mosquitto's clients, signed by openssl, so that no library of the broker has a hand in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    UNKNOWN, let_in, refused,
    stage::{Door, Stage},
    with,
};
use crate::{
    interop::transports::{
        mosquitto::{Subscriber, VERSIONS, client, port, publish},
        stage::PATIENCE,
    },
    process::Running,
    step,
};

const SECRET: &[u8; 32] = b"a secret that only we two know!!";
/// How long the token of a connection that is to end holds; whole seconds, and enough to come in with it.
const SHORT: Duration = Duration::from_secs(3);
/// What mosquitto_sub says about DISCONNECT, with the code that the client is not authorized.
const DISCONNECT: &str = "Received DISCONNECT (135)";

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// What openssl makes its key with; none for the secret.
    fn generate(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Hs256 => None,
            Self::Rs256 => Some(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
            Self::Es256 => Some(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
            Self::EdDsa => Some(&["ED25519"]),
        }
    }
}

/// A key of each kind, of which `jwks.json` has the public part.
pub(super) struct Keys {
    folder: PathBuf,
}

impl Keys {
    /// Makes them in the folder.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let keys = Self {
            folder: folder.to_owned(),
        };
        let mut set = Vec::new();
        for algorithm in Algorithm::ALL {
            let name = algorithm.name();
            if let Some(how) = algorithm.generate() {
                let mut command = keys.openssl();
                command.args(["genpkey", "-out", &format!("{name}.key"), "-algorithm"]);
                step::quiet(command.args(how))?;
            }
            let mut key = keys.public(algorithm)?;
            key["alg"] = name.into();
            key["kid"] = name.into();
            set.push(key);
        }
        fs::write(folder.join("jwks.json"), json!({ "keys": set }).to_string())?;
        Ok(keys)
    }

    fn openssl(&self) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(&self.folder);
        command
    }

    /// The public part of a key, as RFC 7517 has it.
    fn public(&self, algorithm: Algorithm) -> Result<Value> {
        let file = format!("{}.key", algorithm.name());
        let last = |count: usize| -> Result<Vec<u8>> {
            let mut command = self.openssl();
            command.args(["pkey", "-pubout", "-outform", "DER", "-in", &file]);
            let der = command.output()?.stdout;
            let start = der.len().checked_sub(count).context("a short key")?;
            Ok(der[start..].to_vec())
        };
        Ok(match algorithm {
            Algorithm::Hs256 => json!({ "kty": "oct", "k": encode(SECRET) }),
            Algorithm::Rs256 => {
                let mut command = self.openssl();
                let output = command
                    .args(["rsa", "-noout", "-modulus", "-in", &file])
                    .output()?;
                let text = String::from_utf8(output.stdout)?;
                let digits = text.trim().strip_prefix("Modulus=").context("no modulus")?;
                json!({ "kty": "RSA", "n": encode(&from_hex(digits)?), "e": "AQAB" })
            }
            Algorithm::Es256 => {
                let point = last(64)?;
                let (x, y) = point.split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Algorithm::EdDsa => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&last(32)?) }),
        })
    }

    /// A token with these claims; signed with the key of `algorithm`, and said to be signed with it.
    fn token(&self, algorithm: Algorithm, claims: &Value) -> Result<String> {
        let name = algorithm.name();
        let header = json!({ "typ": "JWT", "alg": name, "kid": name });
        let encoded = |part: &Value| encode(part.to_string().as_bytes());
        let text = format!("{}.{}", encoded(&header), encoded(claims));
        fs::write(self.folder.join("token"), &text)?;
        let key = format!("{name}.key");
        let mut command = self.openssl();
        match algorithm {
            Algorithm::Hs256 => command
                .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt"])
                .arg(format!("hexkey:{}", to_hex(SECRET)))
                .args(["-binary", "token"]),
            Algorithm::EdDsa => {
                command.args(["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", "token"])
            }
            Algorithm::Rs256 | Algorithm::Es256 => {
                command.args(["dgst", "-sha256", "-sign", &key, "token"])
            }
        };
        let output = command.output().context("openssl")?;
        ensure!(output.status.success(), "openssl: {output:?}");
        let signature = match algorithm {
            Algorithm::Es256 => {
                two_numbers(&output.stdout).context("no signature of two numbers")?
            }
            _ => output.stdout,
        };
        Ok(format!("{text}.{}", encode(&signature)))
    }
}

/// Of SEQUENCE { INTEGER, INTEGER } in DER, the two numbers in 32 bytes each, as tokens have them.
fn two_numbers(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.get(2..)?;
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        numbers.resize(numbers.len() + 32_usize.checked_sub(digits.len())?, 0);
        numbers.extend_from_slice(digits);
        rest = rest.get(2 + length..)?;
    }
    Some(numbers)
}

/// Base 64 for URLs, without padding (RFC 4648, section 5).
fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0;
        for place in 0..3 {
            bits = bits << 8 | usize::from(group.get(place).copied().unwrap_or(0));
        }
        for place in 0..=group.len() {
            text.push(char::from(DIGITS[bits >> (18 - 6 * place) & 63]));
        }
    }
    text
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Result<Vec<u8>> {
    let pair = |at: usize| digits.get(at..at + 2).context("an odd number of digits");
    (0..digits.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(pair(at)?, 16)?))
        .collect()
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

pub(super) fn check(stage: &mut Stage) -> Result<()> {
    let way = port(stage.address(Door::Token)?);
    let later = now()? + 3_600;
    let claims = json!({ "sub": "anna", "exp": later });
    let come = |token: &str| with(&way, "x", token);
    for algorithm in Algorithm::ALL {
        let token = stage.keys.token(algorithm, &claims)?;
        let_in(&come(&token), "anna").with_context(|| algorithm.name())?;
        let expired = json!({ "sub": "anna", "exp": now()? - 60 });
        let expired = stage.keys.token(algorithm, &expired)?;
        refused(&come(&expired), UNKNOWN, "a token that has ended")?;
        // Another name, under the signature of the first.
        let (_, signature) = token.rsplit_once('.').context("no signature")?;
        let other = stage
            .keys
            .token(algorithm, &json!({ "sub": "ben", "exp": later }))?;
        let (said, _) = other.rsplit_once('.').context("no signature")?;
        let forged = format!("{said}.{signature}");
        refused(&come(&forged), UNKNOWN, "a signature of something else")?;
    }
    let unsigned = format!(
        "{}.{}.",
        encode(br#"{"typ":"JWT","alg":"none"}"#),
        encode(claims.to_string().as_bytes())
    );
    refused(&come(&unsigned), UNKNOWN, "no signature")?;
    let forever = stage
        .keys
        .token(Algorithm::Hs256, &json!({ "sub": "anna" }))?;
    refused(&come(&forever), UNKNOWN, "a token without an end")?;
    refused(&with(&way, "anna", "a password"), UNKNOWN, "no token")?;
    // What a token allows beside the file of permissions.
    let more = json!({ "sub": "anna", "exp": later, "mqtt": { "publish": ["more/#"], "subscribe": ["more/#"] } });
    let more = come(&stage.keys.token(Algorithm::Rs256, &more)?);
    let less = come(&stage.keys.token(Algorithm::Rs256, &claims)?);
    for version in VERSIONS {
        let mut subscriber = Subscriber::new(&more, version, "more/x", 1)?;
        publish(&more, version, "more/x", "claimed", &[])?;
        subscriber.expect("more/x", "claimed")?;
        subscriber.end()?;
        super::denied(&less, version, "more/x")?;
    }
    Ok(())
}

/// A connection ends with its token, and with the same token nobody comes back.
pub(super) fn check_expiry(stage: &mut Stage) -> Result<()> {
    let way = port(stage.address(Door::Token)?);
    for version in VERSIONS {
        let end = now()? + SHORT.as_secs();
        let claims = json!({ "sub": "anna", "exp": end });
        let token = stage.keys.token(Algorithm::EdDsa, &claims)?;
        let name = format!("ends-{version}");
        let mut command = client("mosquitto_sub", &with(&way, "x", &token), version);
        command.args(["-d", "-i", &name, "-t", "own/anna/#"]);
        let mut subscriber = Running::start(&mut command, None)?;
        let wanted = format!("client_id={name} ");
        stage.logged(&["connected", &wanted])?;
        stage.logged(&["disconnected", &wanted, "expired"])?;
        ensure!(now()? >= end, "{version}: it was ended before its token");
        // One of 5.0 ends when it is told; the others try once more, and end with the code that they are refused with.
        let deadline = Instant::now() + PATIENCE;
        let lines = subscriber.last_lines(deadline);
        let expected = if version == "5" { 0 } else { UNKNOWN.v3 };
        let status = subscriber.end(deadline)?;
        ensure!(
            status.code() == Some(expected),
            "{version}: it ended with {status}: {lines:?}"
        );
        let is_told = lines.iter().any(|line| line.contains(DISCONNECT));
        ensure!(is_told == (version == "5"), "{version}: {lines:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"\xff\xef\xfe", "_-_-"),
        ] {
            assert_eq!(encode(bytes), text);
        }
    }

    #[test]
    fn signatures_are_two_numbers_of_a_fixed_length() {
        let numbers = two_numbers(&[0x30, 7, 2, 2, 0, 0x80, 2, 1, 5]).unwrap();
        assert_eq!(numbers.len(), 64);
        assert_eq!((numbers[31], numbers[63]), (0x80, 5));
        assert_eq!(two_numbers(&[0x30, 7, 2, 9]), None);
    }
}
