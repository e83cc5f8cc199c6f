//! One configuration of authentication and permissions, with all that its files say.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::auth::access::{Access, Owner, Proof};
use crate::auth::acl::Acl;
use crate::auth::authority::AuthError;
use crate::auth::certificate::CertificateIdentity;
use crate::auth::http::{self, Answered, LoginRequest, Service, Topics, Unanswered};
use crate::auth::login::{Login, LoginError};
use crate::auth::password::file::Passwords;
use crate::auth::password::pool::HashPool;
use crate::auth::rule::RuleSet;
use crate::auth::secret::Secret;
use crate::auth::settings::{AuthSettings, DeniedPublish};
use crate::auth::token::{self, Tokens};
use crate::counters::Counters;

/// One configuration with all that its files say.
pub(crate) struct Policy {
    allow_anonymous: bool,
    passwords: Option<Passwords>,
    tokens: Option<Arc<Tokens>>,
    certificate: Option<CertificateIdentity>,
    acl: Option<Acl>,
    service: Option<Service>,
    topics: Option<Arc<Topics>>,
    pub(crate) denied_publish: DeniedPublish,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow_anonymous: true,
            passwords: None,
            tokens: None,
            certificate: None,
            acl: None,
            service: None,
            topics: None,
            denied_publish: DeniedPublish::default(),
        }
    }
}

impl Policy {
    /// Reads what the settings name. Blocks.
    pub(crate) fn load(settings: &AuthSettings) -> Result<Self, AuthError> {
        let passwords = settings.password_file.as_deref().map(Passwords::read);
        let passwords = passwords.transpose()?;
        let acl = settings.acl_file.as_deref().map(Acl::read).transpose()?;
        let tokens = settings.jwt.as_ref().map(Tokens::load).transpose()?;
        let certificate = settings.certificate_identity;
        let (service, topics) = match &settings.http {
            None => (None, None),
            Some(http) => http::load(http)?,
        };
        Ok(Self {
            allow_anonymous: settings.admits_anybody(),
            passwords,
            tokens: tokens.map(Arc::new),
            certificate,
            acl,
            service,
            topics: topics.map(Arc::new),
            denied_publish: settings.denied_publish,
        })
    }

    /// Nothing is asked and everything is allowed.
    pub(crate) fn is_open(&self) -> bool {
        let asks = self.passwords.is_some() || self.certificate.is_some() || self.tokens.is_some();
        let asks = asks || self.service.is_some();
        !asks && !self.restricts() && self.allow_anonymous
    }

    /// Where enhanced authentication finds its users; none: there is none.
    pub(crate) fn scram(&self) -> Option<&Passwords> {
        self.passwords
            .as_ref()
            .filter(|passwords| passwords.has_scram())
    }

    /// Lets a client in, or says why not.
    pub(crate) async fn admit(
        &self,
        login: Login,
        pool: &HashPool,
        counters: &Counters,
    ) -> Result<Access, LoginError> {
        let Login {
            client_id,
            realm,
            user,
            password,
            certificate,
            address,
            version,
        } = login;
        let token = password.as_ref().filter(|it| token::is_token(it.bytes()));
        let named = match (self.certificate, certificate) {
            (Some(identity), Some(certificate)) => {
                let user = identity.user(&certificate).ok_or(LoginError::Certificate)?;
                Some(Arc::<str>::from(user))
            }
            _ => None,
        };
        if let (None, Some(tokens), Some(token)) = (&named, &self.tokens, token) {
            let (tokens, token) = (Arc::clone(tokens), token.clone());
            let checked = pool.run(move || tokens.accept(token)).await;
            let checked = checked.map_err(|_| LoginError::Busy)?.flatten();
            let (claims, accepted) = checked.ok_or(LoginError::Credentials)?;
            return Ok(self.access(Access {
                realm,
                proof: Proof::Token(Arc::new(accepted)),
                ends: Some(claims.ends),
                claims: claims.rules,
                ..Access::new(Owner::User(claims.user), client_id)
            }));
        }
        if let Some(service) = &self.service {
            let version = version.to_string();
            let request = LoginRequest {
                client_id: &client_id,
                user: user.as_deref(),
                password: password.as_ref().map(Secret::bytes),
                certificate: named.as_deref(),
                address,
                listener: realm.as_deref(),
                version: &version,
            };
            let answered = service.ask(&request, counters).await;
            match answered.map_err(LoginError::from)? {
                Answered::Denied => return Err(LoginError::Credentials),
                Answered::Next => {}
                Answered::Allowed(allowance) => {
                    if allowance.ends.is_some_and(has_passed) {
                        return Err(LoginError::Credentials);
                    }
                    let user = allowance.user.or(named).or(user);
                    let owner = user.map_or(Owner::Anonymous, Owner::User);
                    return Ok(self.access(Access {
                        realm,
                        proof: Proof::Service(Arc::clone(service.url())),
                        ends: allowance.ends,
                        claims: allowance.rules,
                        is_superuser: allowance.is_superuser,
                        ..Access::new(owner, client_id)
                    }));
                }
            }
        }
        let (owner, proof) = match named {
            Some(user) => (Owner::User(user), Proof::Certificate),
            None => self.check(user, password, pool).await?,
        };
        Ok(self.access(Access {
            realm,
            proof,
            ..Access::new(owner, client_id)
        }))
    }

    /// Who says so of themselves.
    async fn check(
        &self,
        user: Option<Arc<str>>,
        password: Option<Secret>,
        pool: &HashPool,
    ) -> Result<(Owner, Proof), LoginError> {
        match (user, &self.passwords) {
            (Some(user), Some(passwords)) => {
                let password = password.unwrap_or_else(|| Secret::new([]));
                let entry = passwords.get(&user);
                let hash = entry.map_or_else(|| passwords.nobody(&user), |entry| &entry.hash);
                let same = pool.verify(Arc::clone(hash), password).await;
                match (entry, same.map_err(|_| LoginError::Busy)?) {
                    (Some(entry), true) => {
                        let proof = Proof::Password(Arc::clone(&entry.text));
                        Ok((Owner::User(user), proof))
                    }
                    _ => Err(LoginError::Credentials),
                }
            }
            (Some(_), None) if self.tokens.is_some() => Err(LoginError::Credentials),
            // A name that nothing was asked for proves nothing.
            _ if self.allow_anonymous => Ok((Owner::Anonymous, Proof::None)),
            (Some(_), None) => Err(LoginError::Credentials),
            (None, _) => Err(LoginError::Anonymous),
        }
    }

    /// The same with the rules of this configuration.
    pub(crate) fn access(&self, access: Access) -> Access {
        if access.is_superuser {
            return Access {
                rules: None,
                topics: None,
                ..access
            };
        }
        let own = self.acl.as_ref().map(|acl| acl.of(&access.owner));
        let rules = match (own, &access.claims) {
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
            rules,
            topics: self.topics.clone(),
            ..access
        }
    }

    /// What the file of permissions says of somebody; none: there is none, and everything is allowed.
    pub(crate) fn rules(&self, owner: &Owner) -> Option<&Arc<RuleSet>> {
        Some(self.acl.as_ref()?.of(owner))
    }

    /// Whether a session of this owner may be of a client that this let in, as far as that can be known.
    pub(crate) fn may_let_in(&self, owner: &Owner) -> bool {
        let by_others =
            self.tokens.is_some() || self.certificate.is_some() || self.service.is_some();
        match owner {
            Owner::Anybody => true,
            Owner::Anonymous => self.allow_anonymous || self.service.is_some(),
            Owner::User(user) => {
                let passwords = self.passwords.as_ref();
                by_others || passwords.is_some_and(|passwords| passwords.get(user).is_some())
            }
        }
    }

    /// Whether what clients do is looked at.
    pub(crate) fn restricts(&self) -> bool {
        self.acl.is_some() || self.topics.is_some()
    }

    /// Whether a client that was let in before would still be, and as the same user. `access`: none if nobody was asked
    /// then. `certificate`: what its listener would ask it for, unless it has shown who it is by an exchange.
    pub(crate) fn still_admits(&self, access: Option<&Access>, certificate: Option<&[u8]>) -> bool {
        let by_service = access.is_some_and(|access| matches!(access.proof, Proof::Service(_)));
        match self.certificate.zip(certificate) {
            Some((identity, certificate)) if !by_service => {
                let named = identity.user(certificate);
                let user = access.and_then(|access| access.owner.user());
                if named.is_none() || user.map(|user| &**user) != named.as_deref() {
                    return false;
                }
            }
            _ if access.is_some_and(|access| access.proof == Proof::Certificate) => return false,
            _ => {}
        }
        let Some(access) = access else {
            return self.allow_anonymous;
        };
        match (&access.owner, &access.proof) {
            (Owner::User(user), Proof::Password(text)) => {
                let entry = self.passwords.as_ref().and_then(|all| all.get(user));
                entry.is_some_and(|entry| entry.text == *text)
            }
            (Owner::User(_), Proof::Token(accepted)) => {
                let tokens = self.tokens.as_ref();
                tokens.is_some_and(|tokens| tokens.still_accepts(access, accepted))
            }
            (_, Proof::Service(url)) => {
                let service = self.service.as_ref();
                service.is_some_and(|service| service.url() == url)
            }
            (Owner::User(_), Proof::None | Proof::Certificate) => true,
            (Owner::Anybody | Owner::Anonymous, _) => self.allow_anonymous,
        }
    }
}

impl From<Unanswered> for LoginError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Busy => Self::Busy,
            Unanswered::Failed => Self::Service,
        }
    }
}

/// Whether a second since 1970 is over.
fn has_passed(second: u64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.is_ok_and(|now| now.as_secs() >= second)
}
