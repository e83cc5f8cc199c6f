//! JSON Web Tokens (RFC 7519) in place of a password.
//!
//! A key is of one family of algorithms, or of one algorithm where a set says so, and a token is checked by the keys of
//! the algorithm that it names: so a public key never serves as the secret of another, and a token without a signature
//! meets no key.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
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
/// Algorithms with a secret, and the bytes of its shortest: as many as the hash has (RFC 7518, section 3.2).
const HMAC: [(Algorithm, usize); 3] = [
    (Algorithm::HS256, 32),
    (Algorithm::HS384, 48),
    (Algorithm::HS512, 64),
];
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// Bytes of a point of P-256, as keys of it are kept, and of P-384.
const POINTS: [(usize, Algorithm); 2] = [(65, Algorithm::ES256), (97, Algorithm::ES384)];
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
    algorithms: Vec<Algorithm>,
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
            keys.push(Key::secret(secret, None, None).map_err(|problem| wrong(file, problem))?);
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
            let parts = (&key.algorithms, &key.id, key.fingerprint);
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
        let keys = vec![Key::secret(secret, None, None)?];
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
            key.algorithms.contains(&header.alg) && is_named
        };
        let tried = self.keys.iter().filter(fits).take(MOST_TRIED);
        tried
            .filter_map(|key| self.check_with(token, header.alg, key))
            .next()
    }

    fn check_with(&self, token: &[u8], algorithm: Algorithm, key: &Key) -> Option<Claims> {
        let mut validation = Validation::new(algorithm);
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
    fn new(
        algorithms: Vec<Algorithm>,
        key: DecodingKey,
        id: Option<String>,
        material: &[&[u8]],
    ) -> Self {
        let mut hash = Sha256::new();
        for part in material {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self {
            algorithms,
            id,
            key,
            fingerprint: hash.finalize().into(),
        }
    }

    /// A secret, for the algorithms whose hashes have no more bytes, or for one.
    fn secret(
        secret: &[u8],
        id: Option<String>,
        only: Option<Algorithm>,
    ) -> Result<Self, &'static str> {
        if secret.len() < HMAC[0].1 {
            return Err("a secret of less than 32 bytes is guessed: use a longer one");
        }
        if secret.starts_with(b"-----BEGIN") {
            return Err("a key in PEM is no secret: name it in `key_file`");
        }
        let fitting = HMAC.iter().filter(|(_, least)| secret.len() >= *least);
        let algorithms = only_of(fitting.map(|(algorithm, _)| *algorithm), only);
        if algorithms.is_empty() {
            return Err("a secret has fewer bytes than the hash of its `alg`: use a longer one");
        }
        let key = DecodingKey::from_secret(secret);
        Ok(Self::new(algorithms, key, id, &[b"HS", secret]))
    }

    /// A public key in PEM: its kind says which algorithms it is for.
    fn public(pem: &[u8]) -> Result<Self, &'static str> {
        if pem.windows(7).any(|part| part == b"PRIVATE") {
            return Err("this is a private key: the broker needs the public one only");
        }
        let material: [&[u8]; 2] = [b"PEM", pem.trim_ascii()];
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            return Ok(Self::new(RSA.to_vec(), key, None, &material));
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return Ok(Self::new(vec![Algorithm::EdDSA], key, None, &material));
        }
        let key = DecodingKey::from_ec_pem(pem).ok();
        let curve = key.and_then(|key| Some((of_point(&key)?, key)));
        let (algorithm, key) =
            curve.ok_or("no public key of RSA, P-256, P-384 or Ed25519 in PEM")?;
        Ok(Self::new(vec![algorithm], key, None, &material))
    }

    /// The keys of a set (JWKS) that are of use here.
    fn of_set(text: &[u8]) -> Result<Vec<Self>, &'static str> {
        let set: JwkSet = serde_json::from_slice(text).map_err(|_| "not a set of keys (JWKS)")?;
        let keys = set.keys.iter().filter_map(|jwk| Self::of(jwk).transpose());
        let keys: Vec<Self> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("no key of HMAC, RSA, P-256, P-384 or Ed25519 for signatures in it");
        }
        Ok(keys)
    }

    /// A key of a set; none if it is for something else.
    fn of(jwk: &Jwk) -> Result<Option<Self>, &'static str> {
        const DAMAGED: &str = "a key of the set is damaged";
        if jwk
            .common
            .public_key_use
            .as_ref()
            .is_some_and(|use_| *use_ != PublicKeyUse::Signature)
        {
            return Ok(None);
        }
        let family = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) => HMAC.map(|(algorithm, _)| algorithm).to_vec(),
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return Ok(None),
            },
            AlgorithmParameters::OctetKeyPair(curve) if curve.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            _ => return Ok(None),
        };
        let only = match &jwk.common.key_algorithm {
            None => None,
            Some(named) => match named.to_string().parse::<Algorithm>() {
                Ok(algorithm) if family.contains(&algorithm) => Some(algorithm),
                _ => return Ok(None),
            },
        };
        let id = jwk.common.key_id.clone();
        let key = DecodingKey::from_jwk(jwk).map_err(|_| DAMAGED)?;
        if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
            let secret = key.try_get_as_bytes().map_err(|_| DAMAGED)?;
            return Self::secret(secret, id, only).map(Some);
        }
        if matches!(jwk.algorithm, AlgorithmParameters::EllipticCurve(_))
            && of_point(&key).is_none_or(|algorithm| !family.contains(&algorithm))
        {
            return Err(DAMAGED);
        }
        let algorithms = only_of(family.into_iter(), only);
        let material = serde_json::to_vec(&jwk.algorithm).unwrap_or_default();
        Ok(Some(Self::new(algorithms, key, id, &[b"JWK", &material])))
    }
}

/// Which curve a key is of, by the length of its point.
fn of_point(key: &DecodingKey) -> Option<Algorithm> {
    let length = key.try_get_as_bytes().ok()?.len();
    let found = POINTS.iter().find(|(bytes, _)| *bytes == length);
    found.map(|(_, algorithm)| *algorithm)
}

fn only_of(family: impl Iterator<Item = Algorithm>, only: Option<Algorithm>) -> Vec<Algorithm> {
    family
        .filter(|algorithm| only.is_none_or(|only| only == *algorithm))
        .collect()
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
