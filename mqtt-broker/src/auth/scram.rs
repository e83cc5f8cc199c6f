//! The server's side of SCRAM-SHA-256 (RFC 5802 and RFC 7677), without channel binding.
//!
//! Each step is a handful of HMACs: what is slow about a password the client has computed. So nothing here needs
//! a thread of its own, and an unknown user costs exactly what a known one does.

use core::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::password::file::Passwords;
use crate::auth::password::hash::{ScramKeys, hmac_sha256};

/// The Authentication Method.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";

/// Bytes of `v=` and a signature in base64.
pub(crate) const SERVER_FINAL: usize = 2 + 44;
/// Random bytes of our part of the nonce.
const NONCE: usize = 18;
/// Bytes of the longest nonce that a client may have: it goes back to it.
const LONGEST_NONCE: usize = 256;
/// Bytes of the longest message: a user name may have 65,535, each of which is escaped with three.
const LONGEST_MESSAGE: usize = 200_000;

/// An exchange that waits for the client's last message.
pub(crate) struct ScramExchange {
    user: Arc<str>,
    keys: ScramKeys,
    /// The entry of the password file as it is written; none: there is no such user.
    entry: Option<Arc<str>>,
    /// The messages so far, with the comma after them.
    transcript: String,
    nonce: String,
    /// What `c=` must say: the header of the client's first message.
    binding: String,
}

/// Who has shown to know the secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) user: Arc<str>,
    /// The entry of the password file.
    pub(crate) entry: Arc<str>,
    /// The last message, by which the client knows that we know it as well.
    pub(crate) server_final: String,
}

impl ScramExchange {
    /// Takes the client's first message; returns our first one as well. None: it is no such message.
    pub(crate) fn begin(passwords: &Passwords, client_first: &[u8]) -> Option<(Self, String)> {
        let mut random = [0; NONCE];
        getrandom::fill(&mut random).ok()?;
        Self::begin_with(passwords, client_first, &BASE64.encode(random))
    }

    fn begin_with(
        passwords: &Passwords,
        client_first: &[u8],
        ours: &str,
    ) -> Option<(Self, String)> {
        let message = text(client_first)?;
        let (flag, rest) = message.split_once(',')?;
        // `y`: the client could bind to a channel and believes that we cannot, which is true.
        if flag != "n" && flag != "y" {
            return None;
        }
        let (authorized, bare) = rest.split_once(',')?;
        let header = message.get(..message.len() - bare.len())?;
        let mut attributes = bare.split(',');
        let user = user_name(attributes.next()?.strip_prefix("n=")?)?;
        let theirs = attributes.next()?.strip_prefix("r=")?;
        let is_nonce = !theirs.is_empty()
            && theirs.len() <= LONGEST_NONCE
            && theirs.bytes().all(|byte| byte.is_ascii_graphic());
        // Nobody acts for somebody else.
        let is_own = match authorized.strip_prefix("a=") {
            Some(name) => user_name(name)? == user,
            None => authorized.is_empty(),
        };
        if !is_nonce || !is_own {
            return None;
        }
        let (keys, entry) = passwords.scram(&user);
        let nonce = format!("{theirs}{ours}");
        let salt = BASE64.encode(&keys.salt);
        let server_first = format!("r={nonce},s={salt},i={}", keys.iterations);
        let exchange = Self {
            user: user.into(),
            keys,
            entry,
            transcript: format!("{bare},{server_first},"),
            nonce,
            binding: BASE64.encode(header),
        };
        Some((exchange, server_first))
    }

    /// Takes the client's last message. None: it does not know the secret, there is no such user, or it is no
    /// such message.
    pub(crate) fn finish(mut self, client_final: &[u8]) -> Option<Proven> {
        let message = text(client_final)?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        if binding != self.binding || nonce != self.nonce {
            return None;
        }
        let proof = <[u8; 32]>::try_from(BASE64.decode(proof).ok()?).ok()?;
        self.transcript.push_str(without_proof);
        let signature = hmac_sha256(&self.keys.stored_key, self.transcript.as_bytes());
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let computed: [u8; 32] = Sha256::digest(client_key).into();
        let signature = hmac_sha256(&self.keys.server_key, self.transcript.as_bytes());
        let knows: bool = computed.ct_eq(&self.keys.stored_key).into();
        match (self.entry, knows) {
            (Some(entry), true) => Some(Proven {
                user: self.user,
                entry,
                server_final: format!("v={}", BASE64.encode(signature)),
            }),
            _ => None,
        }
    }
}

impl fmt::Debug for ScramExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramExchange")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

fn text(message: &[u8]) -> Option<&str> {
    if message.len() > LONGEST_MESSAGE {
        return None;
    }
    core::str::from_utf8(message).ok()
}

/// `=2C` stands for a comma and `=3D` for an equals sign.
fn user_name(text: &str) -> Option<String> {
    let mut name = String::new();
    let mut parts = text.split('=');
    name.push_str(parts.next()?);
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    let is_name = !name.is_empty() && name.len() <= usize::from(u16::MAX);
    (is_name && !name.contains(char::is_control)).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const OURS: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    /// The user of section 3 of RFC 7677, whose password is `pencil`.
    fn passwords() -> Passwords {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = ScramKeys::new(4_096, salt.into(), b"pencil");
        let hash = crate::auth::password::hash::PasswordHash::Scram(keys);
        Passwords::parse(&format!("user:{hash}")).unwrap()
    }

    #[test]
    fn the_example_of_the_standard() {
        let passwords = passwords();
        let begun = ScramExchange::begin_with(&passwords, CLIENT_FIRST.as_bytes(), OURS);
        let (exchange, server_first) = begun.unwrap();
        assert_eq!(
            server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let proven = exchange.finish(CLIENT_FINAL.as_bytes()).unwrap();
        assert_eq!(&*proven.user, "user");
        assert_eq!(
            proven.server_final,
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        assert_eq!(proven.server_final.len(), SERVER_FINAL);
    }

    #[test]
    fn what_is_not_the_proof_is_refused() {
        let passwords = passwords();
        let finish = |text: &str| {
            let begun = ScramExchange::begin_with(&passwords, CLIENT_FIRST.as_bytes(), OURS);
            begun.unwrap().0.finish(text.as_bytes())
        };
        assert!(finish(CLIENT_FINAL).is_some());
        for wrong in [
            CLIENT_FINAL.replace("p=d", "p=e"),
            CLIENT_FINAL.replace("c=biws", "c=eSws"),
            CLIENT_FINAL.replace("$k0", "$k1"),
            CLIENT_FINAL.replace(",p=", ",x=1,p="),
            CLIENT_FINAL.replace("VQ=", "VQ"),
            CLIENT_FINAL.replace(",p=", ",q="),
            String::new(),
        ] {
            assert_eq!(finish(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_first_message_is_read_strictly() {
        let passwords = passwords();
        let begins = |text: &str| ScramExchange::begin(&passwords, text.as_bytes()).is_some();
        for text in [
            "n,,n=user,r=x",
            "y,,n=user,r=x",
            "n,a=user,n=user,r=x",
            "n,,n=a=2Cb=3D,r=x,ext=1",
        ] {
            assert!(begins(text), "{text}");
        }
        for text in [
            "",
            "n",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=\u{e9}",
            "n,,n=,r=x",
            "n,,n=a=2,r=x",
            "n,,n=a=41,r=x",
            "n,,m=1,n=user,r=x",
            "n,a=other,n=user,r=x",
            "p=tls-unique,,n=user,r=x",
        ] {
            assert!(!begins(text), "{text}");
        }
    }

    /// Nobody is told that there is no such user: the answer looks like others, and stays what it is.
    #[test]
    fn an_unknown_user_is_answered_like_a_known_one() {
        let passwords = passwords();
        let answer = |name: &str| {
            let first = format!("n,,n={name},r=x");
            let begun = ScramExchange::begin_with(&passwords, first.as_bytes(), OURS);
            begun.unwrap().1
        };
        let known = answer("user");
        let unknown = answer("nobody");
        assert_eq!(known.len(), unknown.len());
        assert!(unknown.ends_with(",i=4096"));
        assert_ne!(unknown, known);
        assert_eq!(unknown, answer("nobody"));
        assert_ne!(unknown, answer("another"));
        assert_eq!(passwords.scram("nobody").1, None);
    }

    proptest! {
        #[test]
        fn any_messages_are_taken_or_refused(first in any::<Vec<u8>>(), name in ".{0,9}", last in any::<Vec<u8>>(), text in "(c=biws,|r=xy,|p=|[a-z=,]){0,9}") {
            let passwords = passwords();
            let _ = ScramExchange::begin(&passwords, &first);
            let first = format!("n,,n={name},r=x");
            for last in [last.as_slice(), text.as_bytes()] {
                if let Some((exchange, _)) = ScramExchange::begin_with(&passwords, first.as_bytes(), "y") {
                    prop_assert_eq!(exchange.finish(last), None);
                }
            }
        }
    }
}
