//! JSON Web Tokens (RFC 7519) in place of a password.
//!
//! A key is of one algorithm, and a token is checked by the keys of the algorithm that it names: so a public key
//! never serves as the secret of another, and a token without a signature meets no key.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::auth::access::Access;
use crate::auth::acl::claimed_rules;
use crate::auth::rule::RuleSet;
use crate::auth::secret::Secret;
use crate::auth::settings::JwtSettings;

/// Bytes of the longest token that is looked at.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Bytes of the shortest secret: as many as its hash has.
const SHORTEST_SECRET: usize = 32;
/// Keys that are tried on one token which does not name its key.
const MOST_TRIED: usize = 8;

/// Why tokens cannot be checked as the settings say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenKeyError {
    /// What the system says of a file.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// It is no key of an algorithm that is spoken.
    #[error("{}: {problem}", .file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// Without anything of the key.
        problem: &'static str,
    },
    /// No key is named.
    #[error("tokens need a `secret_file`, a `key_file` or a `jwks_file`")]
    None,
}

/// Tells keys apart without showing them.
type Fingerprint = [u8; 32];

struct Key {
    algorithm: Algorithm,
    id: Option<String>,
    key: DecodingKey,
    fingerprint: Fingerprint,
}

/// Checks tokens.
pub(crate) struct Tokens {
    keys: Vec<Key>,
    user_claim: String,
    permissions_claim: String,
    audience: Vec<String>,
    issuer: Vec<String>,
    leeway: u64,
    source: Arc<str>,
    /// Of all of this: others with the same say the same of a token.
    digest: Fingerprint,
}

/// A token that has let a client in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    token: Secret,
    /// Who has checked it.
    by: Fingerprint,
}

/// What a token says.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    pub(crate) user: Arc<str>,
    /// The second since 1970 from which on it is worth nothing.
    pub(crate) ends: u64,
    /// What it allows; none: it says nothing about that.
    pub(crate) rules: Option<Arc<RuleSet>>,
}

/// Whether a password is meant as a token.
pub(crate) fn is_token(password: &[u8]) -> bool {
    let dots = password.iter().filter(|byte| **byte == b'.').count();
    // `{"` in base64.
    password.starts_with(b"ey") && dots == 2
}

impl Tokens {
    /// Reads the keys. Blocks.
    pub(crate) fn load(settings: &JwtSettings) -> Result<Self, TokenKeyError> {
        let mut keys = Vec::new();
        if let Some(file) = &settings.secret_file {
            let bytes = read(file)?;
            let secret = bytes.trim_ascii_end();
            keys.push(Key::secret(secret, None).map_err(|problem| wrong(file, problem))?);
        }
        if let Some(file) = &settings.key_file {
            let pem = read(file)?;
            keys.push(Key::public(&pem).map_err(|problem| wrong(file, problem))?);
        }
        if let Some(file) = &settings.jwks_file {
            let set = Key::of_set(&read(file)?).map_err(|problem| wrong(file, problem))?;
            keys.extend(set);
        }
        if keys.is_empty() {
            return Err(TokenKeyError::None);
        }
        Ok(Self::with_keys(keys, settings))
    }

    fn with_keys(keys: Vec<Key>, settings: &JwtSettings) -> Self {
        let mut digest = Sha256::new();
        for key in &keys {
            let parts = (key.algorithm, &key.id, key.fingerprint);
            digest.update(format!("{parts:?}"));
        }
        digest.update(format!(
            "{:?}",
            (
                &settings.user_claim,
                &settings.permissions_claim,
                &settings.audience,
                &settings.issuer,
                settings.leeway
            )
        ));
        Self {
            digest: digest.finalize().into(),
            keys,
            user_claim: settings.user_claim.clone(),
            permissions_claim: settings.permissions_claim.clone(),
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            leeway: settings.leeway.0.as_secs(),
            source: "token".into(),
        }
    }

    /// With one secret, and everything else as by default.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of_secret(secret: &[u8]) -> Result<Self, &'static str> {
        let keys = vec![Key::secret(secret, None)?];
        Ok(Self::with_keys(keys, &JwtSettings::default()))
    }

    /// With the keys of a set.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of_set(set: &[u8]) -> Result<Self, &'static str> {
        let keys = Key::of_set(set)?;
        Ok(Self::with_keys(keys, &JwtSettings::default()))
    }

    /// What a token says that is to let a client in, and what is kept of it.
    pub(crate) fn accept(&self, token: Secret) -> Option<(Claims, Accepted)> {
        let claims = self.check(token.bytes())?;
        let by = self.digest;
        Some((claims, Accepted { token, by }))
    }

    /// Whether a token that has let this client in, whoever had checked it, would let it in now: as the same user, with
    /// the same permissions, and as long as it did.
    pub(crate) fn still_accepts(&self, access: &Access, accepted: &Accepted) -> bool {
        if accepted.by == self.digest {
            return true;
        }
        self.check(accepted.token.bytes()).is_some_and(|claims| {
            access.owner.user() == Some(&claims.user)
                && access.claims == claims.rules
                && access.ends.is_some_and(|ends| ends <= claims.ends)
        })
    }

    /// What a token says, if one of the keys has signed it and it holds now.
    pub(crate) fn check(&self, token: &[u8]) -> Option<Claims> {
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        // An algorithm that there is none of, as `none`, is no header.
        let header = decode_header(token).ok()?;
        // What must be understood is not understood here.
        if header.crit.is_some() {
            return None;
        }
        let fits = |key: &&Key| {
            let is_named = match (&header.kid, &key.id) {
                (Some(named), Some(own)) => named == own,
                _ => true,
            };
            key.algorithm == header.alg && is_named
        };
        let tried = self.keys.iter().filter(fits).take(MOST_TRIED);
        tried.filter_map(|key| self.check_with(token, key)).next()
    }

    fn check_with(&self, token: &[u8], key: &Key) -> Option<Claims> {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = self.leeway;
        validation.validate_nbf = true;
        validation.validate_aud = !self.audience.is_empty();
        let mut required = vec!["exp"];
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.push("aud");
        }
        if !self.issuer.is_empty() {
            validation.set_issuer(&self.issuer);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let claims = decode::<Map<String, Value>>(token, &key.key, &validation).ok()?;
        let claims = claims.claims;
        let user = claims.get(&self.user_claim)?.as_str()?;
        let is_name = !user.is_empty() && user.len() <= usize::from(u16::MAX);
        if !is_name || user.contains(char::is_control) {
            return None;
        }
        let exp = claims.get("exp")?;
        // A time may have a fraction; what ends within a second has ended before it.
        let exp = exp
            .as_u64()
            .or_else(|| exp.as_f64().map(|exp| exp as u64))?;
        let rules = match claims.get(&self.permissions_claim) {
            None => None,
            // What cannot be understood allows nothing, and may deny something.
            Some(claim) => Some(Arc::new(claimed_rules(claim, &self.source)?)),
        };
        Some(Claims {
            user: user.into(),
            ends: exp.saturating_add(self.leeway),
            rules,
        })
    }
}

impl Key {
    fn new(algorithm: Algorithm, key: DecodingKey, id: Option<String>, material: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in material {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self {
            algorithm,
            id,
            key,
            fingerprint: hash.finalize().into(),
        }
    }

    fn secret(secret: &[u8], id: Option<String>) -> Result<Self, &'static str> {
        if secret.len() < SHORTEST_SECRET {
            return Err("a secret of less than 32 bytes is guessed: use a longer one");
        }
        if secret.starts_with(b"-----BEGIN") {
            return Err("a key in PEM is no secret: name it in `key_file`");
        }
        let key = DecodingKey::from_secret(secret);
        Ok(Self::new(Algorithm::HS256, key, id, &[b"HS256", secret]))
    }

    /// A public key in PEM: its kind says which algorithm it is for.
    fn public(pem: &[u8]) -> Result<Self, &'static str> {
        if pem.windows(7).any(|part| part == b"PRIVATE") {
            return Err("this is a private key: the broker needs the public one only");
        }
        let read = [
            DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)),
            DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)),
            DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)),
        ];
        let (algorithm, key) = read
            .into_iter()
            .find_map(Result::ok)
            .ok_or("no public key of RSA, P-256 or Ed25519 in PEM")?;
        let material: [&[u8]; 2] = [b"PEM", pem.trim_ascii()];
        Ok(Self::new(algorithm, key, None, &material))
    }

    /// The keys of a set (JWKS) that are of use here.
    fn of_set(text: &[u8]) -> Result<Vec<Self>, &'static str> {
        let set: JwkSet = serde_json::from_slice(text).map_err(|_| "not a set of keys (JWKS)")?;
        let keys = set.keys.iter().filter_map(|jwk| Self::of(jwk).transpose());
        let keys: Vec<Self> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("no key of HS256, RS256, ES256 or EdDSA in it");
        }
        Ok(keys)
    }

    /// A key of a set; none if it is for something else.
    fn of(jwk: &Jwk) -> Result<Option<Self>, &'static str> {
        if jwk
            .common
            .public_key_use
            .as_ref()
            .is_some_and(|use_| *use_ != PublicKeyUse::Signature)
        {
            return Ok(None);
        }
        let (algorithm, name) = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(curve) if curve.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return Ok(None),
        };
        if jwk.common.key_algorithm.is_some_and(|own| own != name) {
            return Ok(None);
        }
        let id = jwk.common.key_id.clone();
        let key = DecodingKey::from_jwk(jwk).map_err(|_| "a key of the set is damaged")?;
        if algorithm == Algorithm::HS256 {
            let secret = key
                .try_get_as_bytes()
                .map_err(|_| "a key of the set is damaged")?;
            return Self::secret(secret, id).map(Some);
        }
        let material = serde_json::to_vec(&jwk.algorithm).unwrap_or_default();
        Ok(Some(Self::new(algorithm, key, id, &[b"JWK", &material])))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TokenKeyError> {
    fs::read(file).map_err(|source| TokenKeyError::Io {
        file: file.to_owned(),
        source,
    })
}

fn wrong(file: &Path, problem: &'static str) -> TokenKeyError {
    TokenKeyError::Key {
        file: file.to_owned(),
        problem,
    }
}
