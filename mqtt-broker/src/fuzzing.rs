//! What the fuzz targets need of what is private. No part of the interface: it may change at any time.

use core::net::SocketAddr;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use sha2::{Digest, Sha256};

use crate::auth::hash::{PasswordHash, ScramKeys, hmac_sha256};
use crate::auth::{Passwords, ScramExchange, Tokens, fuzz_answer};
use crate::settings::{Imported, import_text};
use crate::transport::read_proxy_header;

const SECRET: &[u8] = b"of thirty-two bytes, or of more!";
const ITERATIONS: u32 = 1_000;
const SALT: &[u8] = b"of the user";
const PASSWORD: &[u8] = b"pencil";

/// An exchange of SCRAM-SHA-256 with a broker that knows `user`, up to the client's last message.
///
/// `last` is given what the server has said, and returns the client's last message. Returns the server's first
/// message, and whether the client is let in; none: its first message is none.
pub fn scram(first: &[u8], last: impl FnOnce(&str) -> Vec<u8>) -> Option<(String, bool)> {
    static PASSWORDS: OnceLock<Option<Passwords>> = OnceLock::new();
    let passwords = PASSWORDS.get_or_init(|| {
        let keys = ScramKeys::new(ITERATIONS, SALT.into(), PASSWORD);
        Passwords::parse(&format!("user:{}", PasswordHash::Scram(keys))).ok()
    });
    let (exchange, server_first) = ScramExchange::begin(passwords.as_ref()?, first)?;
    let proven = exchange.finish(&last(&server_first));
    Some((server_first, proven.is_some()))
}

/// The last message of a client that knows the password, in an exchange of these first messages, the client's without
/// its header.
#[must_use]
pub fn scram_last(client_first: &str, server_first: &str) -> String {
    static CLIENT_KEY: OnceLock<[u8; 32]> = OnceLock::new();
    let client_key = *CLIENT_KEY.get_or_init(|| ScramKeys::of_client(ITERATIONS, SALT, PASSWORD));
    let nonce = server_first.split(',').next().unwrap_or_default();
    let last = format!("c=biws,{nonce}");
    let transcript = format!("{client_first},{server_first},{last}");
    let stored_key: [u8; 32] = Sha256::digest(client_key).into();
    let signature = hmac_sha256(&stored_key, transcript.as_bytes());
    let mut proof = client_key;
    for (byte, mask) in proof.iter_mut().zip(signature) {
        *byte ^= mask;
    }
    format!("{last},p={}", STANDARD.encode(proof))
}

/// The user that a token names, if it lets anybody in, of a broker that has one secret.
pub fn token(token: &[u8]) -> Option<String> {
    static TOKENS: OnceLock<Option<Tokens>> = OnceLock::new();
    let tokens = TOKENS.get_or_init(|| Tokens::of_secret(SECRET).ok());
    Some(tokens.as_ref()?.check(token)?.user.to_string())
}

/// A token of these parts that is signed with the secret of the broker.
#[must_use]
pub fn signed(header: &[u8], claims: &[u8]) -> String {
    let parts = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = hmac_sha256(SECRET, parts.as_bytes());
    format!("{parts}.{}", BASE64.encode(signature))
}

/// Whether a text is a set of keys (JWKS) of which some can be used; and whether any of these lets in a token.
///
/// # Errors
/// It is none.
pub fn key_set(text: &[u8], token: &[u8]) -> Result<bool, &'static str> {
    Ok(Tokens::of_set(text)?.check(token).is_some())
}

/// What becomes of the text of a mosquitto.conf. Files that it names are not opened.
#[must_use]
pub fn mosquitto(text: &str) -> Imported {
    import_text(text)
}

/// Whether a service that answers so lets a client in, and whether it allows it a topic; none: it has not answered.
#[must_use]
pub fn http_answer(status: u16, body: &[u8]) -> (Option<bool>, Option<bool>) {
    fuzz_answer(status, body)
}

/// Reads a PROXY header; returns the client that it names, if it is one, and how many bytes were left behind it.
///
/// # Errors
/// It is none: why.
pub async fn proxy(mut bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), String> {
    let header = read_proxy_header(&mut bytes).await;
    let address = header.map_err(|error| error.to_string())?;
    Ok((address, bytes.len()))
}
