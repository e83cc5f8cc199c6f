//! Hashes of passwords, in the formats of password files.
//!
//! | format | what it is |
//! |---|---|
//! | `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH` | argon2id (also `argon2i`, `argon2d`), base64 without padding |
//! | `$7$ITERATIONS$SALT$HASH` | PBKDF2-HMAC-SHA-512, base64, as mosquitto_passwd writes it |
//! | `$6$SALT$HASH` | one round of SHA-512, base64, of old versions of mosquitto_passwd |
//! | `SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER` | RFC 5803, as PostgreSQL writes it |

use core::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// Written with padding, read with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const BASE64_UNPADDED: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Memory, in KiB, that one check of argon2 may take.
const MOST_MEMORY: u32 = 1024 * 1024;
/// Passes of argon2.
const MOST_PASSES: u32 = 100;
/// Iterations of PBKDF2.
const MOST_ITERATIONS: u32 = 10_000_000;
/// Bytes of a salt or a hash.
const LONGEST: usize = 256;
/// Bytes of a salt that is made here.
const SALT: usize = 16;

/// What new hashes of argon2id cost: the parameters that OWASP recommends.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Bytes of a new hash of argon2id.
const ARGON2_HASH: usize = 32;
/// Iterations of new hashes of PBKDF2, mosquitto_passwd's own number.
const PBKDF2_ITERATIONS: u32 = 101_000;
/// Iterations of new SCRAM keys. The client computes them, however small it is.
const SCRAM_ITERATIONS: u32 = 10_000;

/// How a new password is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashKind {
    /// argon2id.
    Argon2id,
    /// PBKDF2-HMAC-SHA-512, mosquitto_passwd's `$7$`.
    Sha512Pbkdf2,
    /// The keys of SCRAM-SHA-256, which also serve for the password itself.
    ScramSha256,
}

/// Why a text is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HashError {
    #[error("no password hash: none begins like this one")]
    Unknown,
    #[error("damaged password hash: {0}")]
    Damaged(&'static str),
    #[error("password hash beyond what is checked here: {0}")]
    TooCostly(&'static str),
}

/// The keys of a SCRAM user.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ScramKeys {
    pub(crate) iterations: u32,
    pub(crate) salt: Box<[u8]>,
    pub(crate) stored_key: [u8; 32],
    pub(crate) server_key: [u8; 32],
}

/// A hash with all that is needed to compare a password with it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PasswordHash {
    Argon2 {
        algorithm: Algorithm,
        version: Version,
        params: Params,
        salt: Box<[u8]>,
        hash: Box<[u8]>,
    },
    Pbkdf2 {
        iterations: u32,
        salt: Box<[u8]>,
        hash: Box<[u8]>,
    },
    Sha512 {
        salt: Box<[u8]>,
        hash: Box<[u8]>,
    },
    Scram(ScramKeys),
}

impl PasswordHash {
    /// Reads a hash.
    pub(crate) fn parse(text: &str) -> Result<Self, HashError> {
        if let Some(rest) = text.strip_prefix("$7$") {
            return pbkdf2(rest);
        }
        if let Some(rest) = text.strip_prefix("$6$") {
            let [salt, hash] = parts(rest, '$')?;
            let (salt, hash) = (bytes(salt)?, bytes(hash)?);
            return match hash.len() {
                64 => Ok(Self::Sha512 { salt, hash }),
                _ => Err(HashError::Damaged("hash of SHA-512 not of 64 bytes")),
            };
        }
        if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
            return ScramKeys::parse(rest).map(Self::Scram);
        }
        for algorithm in [Algorithm::Argon2id, Algorithm::Argon2i, Algorithm::Argon2d] {
            if let Some(rest) = text
                .strip_prefix('$')
                .and_then(|text| text.strip_prefix(algorithm.as_str()))
                .and_then(|text| text.strip_prefix('$'))
            {
                return argon2(algorithm, rest);
            }
        }
        Err(HashError::Unknown)
    }

    /// Hashes a password with a new salt.
    ///
    /// # Errors
    /// What the system says when it has no random bytes, and of argon2.
    pub(crate) fn new(kind: HashKind, password: &[u8]) -> Result<Self, String> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
        let salt: Box<[u8]> = salt.into();
        match kind {
            HashKind::Argon2id => {
                let params = Params::new(MEMORY, PASSES, LANES, Some(ARGON2_HASH))
                    .map_err(|error| error.to_string())?;
                let empty = Self::Argon2 {
                    algorithm: Algorithm::Argon2id,
                    version: Version::V0x13,
                    params,
                    salt,
                    hash: [0; ARGON2_HASH].into(),
                };
                empty.with_password(password)
            }
            HashKind::Sha512Pbkdf2 => Self::Pbkdf2 {
                iterations: PBKDF2_ITERATIONS,
                salt,
                hash: [0; 64].into(),
            }
            .with_password(password),
            HashKind::ScramSha256 => Ok(Self::Scram(ScramKeys::new(
                SCRAM_ITERATIONS,
                salt,
                password,
            ))),
        }
    }

    /// The same with the hash of this password.
    fn with_password(mut self, password: &[u8]) -> Result<Self, String> {
        let computed = self.compute(password)?;
        match &mut self {
            Self::Argon2 { hash, .. } | Self::Pbkdf2 { hash, .. } | Self::Sha512 { hash, .. } => {
                *hash = computed.into();
            }
            Self::Scram(_) => {}
        }
        Ok(self)
    }

    /// Whether the password is the one that was hashed. Takes as long whether it is or not.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        let own: &[u8] = match self {
            Self::Argon2 { hash, .. } | Self::Pbkdf2 { hash, .. } | Self::Sha512 { hash, .. } => {
                hash
            }
            Self::Scram(keys) => &keys.stored_key,
        };
        self.compute(password)
            .is_ok_and(|computed| computed.ct_eq(own).into())
    }

    /// The hash of a password with this salt and these parameters.
    fn compute(&self, password: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Argon2 {
                algorithm,
                version,
                params,
                salt,
                hash,
            } => {
                let mut out = vec![0; hash.len()];
                let argon2 = Argon2::new(*algorithm, *version, params.clone());
                argon2
                    .hash_password_into(password, salt, &mut out)
                    .map_err(|error| error.to_string())?;
                Ok(out)
            }
            Self::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => {
                let mut out = vec![0; hash.len()];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, *iterations, &mut out);
                Ok(out)
            }
            Self::Sha512 { salt, .. } => {
                let digest = Sha512::new().chain_update(password).chain_update(salt);
                Ok(digest.finalize().to_vec())
            }
            Self::Scram(keys) => {
                let computed = ScramKeys::new(keys.iterations, keys.salt.clone(), password);
                Ok(computed.stored_key.to_vec())
            }
        }
    }

    /// The same parameters with a hash that no password has. It is the same one for all hashes whose check costs the
    /// same.
    pub(crate) fn of_nobody(&self) -> Self {
        let mut nobody = self.clone();
        match &mut nobody {
            Self::Argon2 { salt, hash, .. }
            | Self::Pbkdf2 { salt, hash, .. }
            | Self::Sha512 { salt, hash } => {
                salt.fill(0);
                hash.fill(0);
            }
            Self::Scram(keys) => {
                keys.salt.fill(0);
                keys.stored_key = [0; 32];
                keys.server_key = [0; 32];
            }
        }
        nobody
    }
}

impl fmt::Display for PasswordHash {
    /// As it stands in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argon2 {
                algorithm,
                version,
                params,
                salt,
                hash,
            } => write!(
                f,
                "${}$v={}$m={},t={},p={}${}${}",
                algorithm.as_str(),
                u32::from(*version),
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                BASE64_UNPADDED.encode(salt),
                BASE64_UNPADDED.encode(hash),
            ),
            Self::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => write!(
                f,
                "$7${iterations}${}${}",
                BASE64.encode(salt),
                BASE64.encode(hash)
            ),
            Self::Sha512 { salt, hash } => {
                write!(f, "$6${}${}", BASE64.encode(salt), BASE64.encode(hash))
            }
            Self::Scram(keys) => write!(
                f,
                "SCRAM-SHA-256${}:{}${}:{}",
                keys.iterations,
                BASE64.encode(&keys.salt),
                BASE64.encode(keys.stored_key),
                BASE64.encode(keys.server_key),
            ),
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(...)")
    }
}

impl ScramKeys {
    /// The keys of a password.
    pub(crate) fn new(iterations: u32, salt: Box<[u8]>, password: &[u8]) -> Self {
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, iterations, &mut salted);
        let stored_key = Sha256::digest(hmac_sha256(&salted, b"Client Key")).into();
        Self {
            iterations,
            salt,
            stored_key,
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }

    /// What a client computes of its password to prove that it has it.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of_client(iterations: u32, salt: &[u8], password: &[u8]) -> [u8; 32] {
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted);
        hmac_sha256(&salted, b"Client Key")
    }

    fn parse(text: &str) -> Result<Self, HashError> {
        let [head, keys] = parts(text, '$')?;
        let [iterations, salt] = parts(head, ':')?;
        let [stored_key, server_key] = parts(keys, ':')?;
        let key = |text| {
            let key = <[u8; 32]>::try_from(&*bytes(text)?);
            key.map_err(|_| HashError::Damaged("key of SCRAM-SHA-256 not of 32 bytes"))
        };
        Ok(Self {
            iterations: self::iterations(iterations)?,
            salt: bytes(salt)?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

/// HMAC-SHA-256.
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn pbkdf2(text: &str) -> Result<PasswordHash, HashError> {
    let [iterations, salt, hash] = parts(text, '$')?;
    let hash = bytes(hash)?;
    if hash.is_empty() {
        return Err(HashError::Damaged("empty hash"));
    }
    Ok(PasswordHash::Pbkdf2 {
        iterations: self::iterations(iterations)?,
        salt: bytes(salt)?,
        hash,
    })
}

fn argon2(algorithm: Algorithm, text: &str) -> Result<PasswordHash, HashError> {
    let [version, costs, salt, hash] = parts(text, '$')?;
    let version = version
        .strip_prefix("v=")
        .and_then(|v| v.parse::<u32>().ok());
    let version = version
        .and_then(|version| Version::try_from(version).ok())
        .ok_or(HashError::Damaged("unknown version of argon2"))?;
    let mut values = [None; 3];
    for cost in costs.split(',') {
        let (name, value) = cost
            .split_once('=')
            .ok_or(HashError::Damaged("parameter of argon2 without a value"))?;
        let place = ["m", "t", "p"].iter().position(|known| *known == name);
        let value = value
            .parse::<u32>()
            .map_err(|_| HashError::Damaged("parameter of argon2 is no number"))?;
        place
            .and_then(|place| values.get_mut(place))
            .ok_or(HashError::Damaged("unknown parameter of argon2"))?
            .replace(value);
    }
    let [Some(memory), Some(passes), Some(lanes)] = values else {
        return Err(HashError::Damaged("parameter of argon2 missing"));
    };
    if memory > MOST_MEMORY {
        return Err(HashError::TooCostly("more than 1 GiB of memory"));
    }
    if passes > MOST_PASSES || lanes > MOST_PASSES {
        return Err(HashError::TooCostly("more than 100 passes or lanes"));
    }
    let (salt, hash) = (bytes(salt)?, bytes(hash)?);
    let params = Params::new(memory, passes, lanes, Some(hash.len()))
        .map_err(|_| HashError::Damaged("parameters that argon2 does not have"))?;
    if salt.len() < argon2::MIN_SALT_LEN {
        return Err(HashError::Damaged("salt of argon2 too short"));
    }
    Ok(PasswordHash::Argon2 {
        algorithm,
        version,
        params,
        salt,
        hash,
    })
}

fn iterations(text: &str) -> Result<u32, HashError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(HashError::Damaged("iterations are no number above 0")),
        Ok(iterations) if iterations > MOST_ITERATIONS => {
            Err(HashError::TooCostly("more than 10,000,000 iterations"))
        }
        Ok(iterations) => Ok(iterations),
    }
}

fn bytes(text: &str) -> Result<Box<[u8]>, HashError> {
    match BASE64.decode(text) {
        Ok(bytes) if bytes.len() <= LONGEST => Ok(bytes.into()),
        Ok(_) => Err(HashError::Damaged("salt or hash too long")),
        Err(_) => Err(HashError::Damaged("not base64")),
    }
}

/// Exactly N parts.
fn parts<const N: usize>(text: &str, separator: char) -> Result<[&str; N], HashError> {
    let parts: Vec<&str> = text.splitn(N + 1, separator).collect();
    parts
        .try_into()
        .map_err(|_| HashError::Damaged("a part is missing or too many"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hash: &str, password: &str) {
        let parsed = PasswordHash::parse(hash).unwrap();
        assert!(parsed.verify(password.as_bytes()), "{hash}");
        assert!(!parsed.verify(b"other"));
        assert!(!parsed.verify(b""));
        assert!(!parsed.of_nobody().verify(password.as_bytes()));
        assert_ne!(parsed.of_nobody(), parsed);
        assert_eq!(parsed.of_nobody(), parsed.of_nobody().of_nobody());
        assert_eq!(PasswordHash::parse(&parsed.to_string()), Ok(parsed));
    }

    #[test]
    fn new_hashes_are_read_back() {
        for kind in [
            HashKind::Argon2id,
            HashKind::Sha512Pbkdf2,
            HashKind::ScramSha256,
        ] {
            let hash = PasswordHash::new(kind, b"open sesame").unwrap();
            check(&hash.to_string(), "open sesame");
            let again = PasswordHash::new(kind, b"open sesame").unwrap();
            assert_ne!(hash.to_string(), again.to_string(), "each has its own salt");
            assert!(!format!("{hash:?}").contains('$'), "hashes are not shown");
        }
    }

    /// Written by mosquitto_passwd 2.0.11.
    #[test]
    fn hashes_of_mosquitto_are_read() {
        for hash in [
            "$7$101$8ERJtUNIYcGLX8Ke$/gnjyFALvz9CEJ86q12tdnrR1p0le+qLTIZRdFH5yK3jEI51oetCqAoKpwbxMShmBZaY1To5TkcVGvICC0jbAg==",
            "$6$oggIxgqo+Tdf5gSu$ufpFiXPFqOAwyFV/GZ8nn3aV/kWxYJBNTTMHkp8VE1Jrn4TocS7jaUd66Vmx7OHyNl4KrkXXNapFIkVcWiEQzg==",
        ] {
            check(hash, "open sesame");
        }
    }

    /// Written by the reference implementation of argon2.
    #[test]
    fn hashes_of_argon2_are_read() {
        check(
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "password",
        );
    }

    /// The example of RFC 7677.
    #[test]
    fn scram_keys_are_those_of_the_standard() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = ScramKeys::new(4_096, salt.into(), b"pencil");
        let text = PasswordHash::Scram(keys).to_string();
        assert_eq!(
            text,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn damaged_hashes_are_refused() {
        for text in [
            "",
            "plain",
            "$",
            "$5$a$b",
            "$6$a",
            "$6$YQ==$YQ==",
            "$6$YQ==$YQ==$YQ==",
            "$7$",
            "$7$0$YQ==$YQ==",
            "$7$-1$YQ==$YQ==",
            "$7$1$YQ==$",
            "$7$1$YQ==$!",
            "$7$99999999999999$YQ==$YQ==",
            "$argon2id$",
            "$argon2id$v=19$m=8$c2FsdHNhbHQ$aGFzaGhhc2g",
            "$argon2id$v=18$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
            "$argon2id$v=19$m=8,t=1,p=0$c2FsdHNhbHQ$aGFzaGhhc2g",
            "$argon2id$v=19$m=8,t=1,p=1$c2Fs$aGFzaGhhc2g",
            "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$",
            "$argon2x$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
            "SCRAM-SHA-256$4096:YQ==$YQ==:YQ==",
        ] {
            assert!(PasswordHash::parse(text).is_err(), "{text}");
        }
        let greedy = "$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g";
        assert!(matches!(
            PasswordHash::parse(greedy),
            Err(HashError::TooCostly(_))
        ));
        assert!(matches!(
            PasswordHash::parse("$7$10000001$YQ==$YQ=="),
            Err(HashError::TooCostly(_))
        ));
    }
}
