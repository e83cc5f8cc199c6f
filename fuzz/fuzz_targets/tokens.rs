//! JSON Web Tokens and sets of keys: no token lets anybody in that is not signed, and one that is signed does only if
//! its header and its claims say so by another reading of them.
#![no_main]

use std::time::{SystemTime, UNIX_EPOCH};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mqtt_broker::fuzzing::{key_set, signed, token};
use serde_json::Value;

const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;
/// A set with one key of each kind that is spoken, into which bytes are put.
const KEYS: [&str; 4] = [
    r#"{"keys":[{"kty":"oct","k":"#,
    r#"{"keys":[{"kty":"RSA","alg":"RS256","e":"AQAB","n":"#,
    r#"{"keys":[{"kty":"EC","crv":"P-256","x":"#,
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"#,
];

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    /// Any bytes as a token.
    Bytes(&'a [u8]),
    /// A token that is signed, with a header and claims that may be anything.
    Signed {
        usual_header: bool,
        header: &'a [u8],
        /// Whether the claims begin with what is needed.
        begun: bool,
        claims: &'a [u8],
        /// Whether they end as an object does.
        ended: bool,
    },
    /// A set of keys, and a token for it.
    Set {
        begun: Option<u8>,
        text: &'a [u8],
        token: &'a [u8],
    },
}

/// Whether a signed token may let somebody in, and whom.
fn user(header: &[u8], claims: &[u8]) -> Option<String> {
    let header: Value = serde_json::from_slice(header).ok()?;
    if header.get("alg")? != "HS256" {
        return None;
    }
    let claims: Value = serde_json::from_slice(claims).ok()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()?
        .as_secs_f64();
    // A second that passes between the two readings is no difference.
    let ends = claims.get("exp")?.as_f64()? + 2.0;
    let user = claims.get("sub")?.as_str()?;
    (ends > now && !user.is_empty() && !user.contains(char::is_control)).then(|| user.to_owned())
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Bytes(bytes) => assert_eq!(token(bytes), None),
        Input::Signed {
            usual_header,
            header,
            begun,
            claims,
            ended,
        } => {
            let header = if usual_header { HEADER } else { header };
            let begin: &[u8] = match begun {
                true => br#"{"sub":"anna","exp":99999999999,"#,
                false => b"",
            };
            let end: &[u8] = if ended { br#""end":0}"# } else { b"" };
            let plain = begun && claims.is_empty() && ended;
            let claims = [begin, claims, end].concat();
            let found = token(signed(header, &claims).as_bytes());
            if found.is_some() {
                assert_eq!(found, user(header, &claims));
            }
            // Not all of them are refused.
            assert!(!plain || !usual_header || found.as_deref() == Some("anna"));
        }
        Input::Set { begun, text, token } => {
            let begin = begun.and_then(|number| KEYS.get(usize::from(number) % KEYS.len()));
            let text = [begin.map_or("", |it| it).as_bytes(), text].concat();
            if let Ok(let_in) = key_set(&text, token) {
                // Without the keys nobody signs, unless the secret is in the set.
                let has_secret = text.windows(3).any(|part| part == b"oct");
                assert!(!let_in || has_secret);
            }
        }
    }
});
