//! Who is let in, and what they may do, as of now: the configuration in force, which a reload swaps.

use core::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mqtt_codec::ReasonCode;

use crate::auth::access::{Access, Owner, Proof};
use crate::auth::acl::{Acl, AclError};
use crate::auth::certificate::CertificateIdentity;
use crate::auth::password::file::{PasswordFileError, Passwords};
use crate::auth::password::pool::HashPool;
use crate::auth::rule::RuleSet;
use crate::auth::secret::Secret;
use crate::auth::settings::{AuthSettings, DeniedPublish};

/// Why a configuration of authentication cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The password file.
    #[error(transparent)]
    Passwords(#[from] PasswordFileError),
    /// The file of permissions.
    #[error(transparent)]
    Acl(#[from] AclError),
}

/// Decides who is let in, and what they may do. Clones are handles of the same one.
///
/// The default lets everybody in and allows everything.
#[derive(Clone, Default)]
pub struct Authority {
    policy: Arc<ArcSwap<Policy>>,
}

/// One configuration with all that its files say.
pub(crate) struct Policy {
    pub(crate) allow_anonymous: bool,
    /// Nothing is asked and everything is allowed.
    is_open: bool,
    pub(crate) passwords: Option<Passwords>,
    certificate: Option<CertificateIdentity>,
    pub(crate) acl: Option<Acl>,
    pub(crate) denied_publish: DeniedPublish,
    pool: HashPool,
}

/// What CONNECT says of its client.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) client_id: Arc<str>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) password: Option<Secret>,
    /// What the client proved to own, in DER.
    pub(crate) certificate: Option<Arc<[u8]>>,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginError {
    /// No such user, or another password: nobody is told which.
    Credentials,
    /// Its certificate names no user.
    Certificate,
    /// It did not say who it is.
    Anonymous,
    /// Too many logins wait.
    Busy,
}

impl LoginError {
    pub(crate) fn reason(self) -> ReasonCode {
        match self {
            Self::Credentials => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            Self::Anonymous | Self::Certificate => ReasonCode::NOT_AUTHORIZED,
            Self::Busy => ReasonCode::QUOTA_EXCEEDED,
        }
    }

    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Credentials => "wrong user name or password",
            Self::Certificate => "the certificate names no user",
            Self::Anonymous => "clients without a user name are not let in",
            Self::Busy => "too many logins wait",
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow_anonymous: true,
            is_open: true,
            passwords: None,
            certificate: None,
            acl: None,
            denied_publish: DeniedPublish::default(),
            pool: HashPool::new(1, 0),
        }
    }
}

impl Policy {
    /// Reads what the settings name. Blocks.
    fn load(settings: &AuthSettings) -> Result<Self, AuthError> {
        let passwords = settings.password_file.as_deref().map(Passwords::read);
        let passwords = passwords.transpose()?;
        let acl = settings.acl_file.as_deref().map(Acl::read).transpose()?;
        let certificate = settings.certificate_identity;
        let asks = passwords.is_some() || certificate.is_some();
        let allow_anonymous = settings.allow_anonymous.unwrap_or(!asks);
        let checks = match settings.password_checks {
            0 => std::thread::available_parallelism().map_or(1, |count| count.get() / 2),
            count => count,
        };
        Ok(Self {
            is_open: !asks && acl.is_none() && allow_anonymous,
            allow_anonymous,
            passwords,
            certificate,
            acl,
            denied_publish: settings.denied_publish,
            pool: HashPool::new(checks, settings.waiting_logins),
        })
    }

    /// Lets a client in, or says why not.
    async fn admit(&self, login: Login) -> Result<Access, LoginError> {
        let Login {
            client_id,
            user,
            password,
            certificate,
        } = login;
        if let (Some(identity), Some(certificate)) = (self.certificate, certificate) {
            let user = identity.user(&certificate).ok_or(LoginError::Certificate)?;
            let owner = Owner::User(user.into());
            return Ok(self.access(owner, client_id, Proof::Certificate, None));
        }
        let (owner, proof) = match (user, &self.passwords) {
            (Some(user), Some(passwords)) => {
                let password = password.unwrap_or_else(|| Secret::new([]));
                let entry = passwords.get(&user);
                let hash = entry.map_or(passwords.nobody(), |entry| &entry.hash);
                let same = self.pool.verify(Arc::clone(hash), password).await;
                match entry {
                    Some(entry) if same.map_err(|_| LoginError::Busy)? => {
                        (Owner::User(user), Proof::Password(Arc::clone(&entry.text)))
                    }
                    _ => {
                        same.map_err(|_| LoginError::Busy)?;
                        return Err(LoginError::Credentials);
                    }
                }
            }
            // A name that nothing was asked for proves nothing.
            _ if self.allow_anonymous => (Owner::Anonymous, Proof::None),
            (Some(_), None) => return Err(LoginError::Credentials),
            (None, _) => return Err(LoginError::Anonymous),
        };
        Ok(self.access(owner, client_id, proof, None))
    }

    /// What a session's owner may do.
    pub(crate) fn access(
        &self,
        owner: Owner,
        client_id: Arc<str>,
        proof: Proof,
        claims: Option<Arc<RuleSet>>,
    ) -> Access {
        let rules = match (self.acl.as_ref().map(|acl| acl.of(&owner)), &claims) {
            (None, None) => None,
            (Some(rules), None) => Some(Arc::clone(rules)),
            (None, Some(claims)) => Some(Arc::clone(claims)),
            (Some(rules), Some(claims)) => {
                let mut both = RuleSet::clone(rules);
                both.extend(claims);
                Some(Arc::new(both))
            }
        };
        Access {
            owner,
            client_id,
            proof,
            claims,
            rules,
        }
    }

    /// The same session's access as this configuration has it; none: this configuration asks nobody.
    pub(crate) fn renewed(
        &self,
        old: Option<&Access>,
        owner: &Owner,
        client_id: &Arc<str>,
    ) -> Option<Access> {
        if self.is_open {
            return None;
        }
        let (proof, claims) = match old {
            Some(old) => (old.proof.clone(), old.claims.clone()),
            None => <_>::default(),
        };
        Some(self.access(owner.clone(), Arc::clone(client_id), proof, claims))
    }

    /// Whether what clients do is looked at.
    pub(crate) fn restricts(&self) -> bool {
        self.acl.is_some()
    }

    /// Whether a client that was let in before would still be.
    pub(crate) fn still_admits(&self, access: Option<&Access>) -> bool {
        let Some(access) = access else {
            return self.allow_anonymous;
        };
        match (&access.owner, &access.proof) {
            (Owner::User(user), Proof::Password(text)) => {
                let entry = self.passwords.as_ref().and_then(|all| all.get(user));
                entry.is_some_and(|entry| entry.text == *text)
            }
            (Owner::User(_), Proof::Certificate) => self.certificate.is_some(),
            (Owner::User(_), Proof::None) => true,
            (Owner::Anybody | Owner::Anonymous, _) => self.allow_anonymous,
        }
    }
}

impl Authority {
    /// Reads what the settings name. Blocks.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it says nothing.
    pub fn load(settings: &AuthSettings) -> Result<Self, AuthError> {
        let authority = Self::default();
        authority.reload(settings)?;
        Ok(authority)
    }

    /// The same in place of what was in force; after an error that still is. What sessions may do is not
    /// changed by this alone.
    pub(crate) fn reload(&self, settings: &AuthSettings) -> Result<(), AuthError> {
        self.policy.store(Arc::new(Policy::load(settings)?));
        Ok(())
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Whether nobody is asked anything.
    pub(crate) fn is_open(&self) -> bool {
        self.policy.load().is_open
    }

    /// Lets a client in, or says why not.
    pub(crate) async fn admit(&self, login: Login) -> Result<Access, LoginError> {
        self.policy().admit(login).await
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}
