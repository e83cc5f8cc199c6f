//! Who is let in, and what they may do, as of now: the configuration in force, which a reload swaps.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::auth::access::{Access, Owner, Proof};
use crate::auth::acl::AclError;
use crate::auth::http::HttpError;
use crate::auth::login::{Login, LoginError};
use crate::auth::password::file::PasswordFileError;
use crate::auth::password::pool::HashPool;
use crate::auth::policy::Policy;
use crate::auth::rule::RuleSet;
use crate::auth::scram::{self, Proven, ScramExchange};
use crate::auth::settings::{AuthSettings, DeniedPublish};
use crate::auth::token::TokenKeyError;
use crate::counters::Counters;

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
    /// The keys of tokens.
    #[error(transparent)]
    Tokens(#[from] TokenKeyError),
    /// The service that is asked by HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// How clients are let in: by default, and at listeners that have a way of their own.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AuthPlan {
    /// Where a listener says nothing.
    pub main: AuthSettings,
    /// By the names that [`ListenerOptions::realm`](crate::ListenerOptions::realm) has. How many checks run and
    /// wait is said in `main` alone.
    pub realms: BTreeMap<Arc<str>, AuthSettings>,
}

impl AuthPlan {
    /// The same for everybody.
    #[must_use]
    pub fn new(main: AuthSettings) -> Self {
        Self {
            main,
            realms: BTreeMap::new(),
        }
    }
}

impl From<&AuthSettings> for AuthPlan {
    fn from(main: &AuthSettings) -> Self {
        Self::new(main.clone())
    }
}

/// Decides who is let in, and what they may do. Clones are handles of the same one.
///
/// The default lets everybody in and allows everything.
#[derive(Clone, Default)]
pub struct Authority {
    policies: Arc<ArcSwap<Policies>>,
}

/// Everything that is in force.
pub(crate) struct Policies {
    main: Policy,
    realms: BTreeMap<Arc<str>, Policy>,
    /// Nobody is asked anything, and everything is allowed.
    is_open: bool,
    pool: HashPool,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            main: Policy::default(),
            realms: BTreeMap::new(),
            is_open: true,
            pool: HashPool::new(1, 0),
        }
    }
}

impl Policies {
    /// Reads what the settings name. Blocks.
    fn load(plan: &AuthPlan) -> Result<Self, (Option<Arc<str>>, AuthError)> {
        let main = Policy::load(&plan.main).map_err(|error| (None, error))?;
        let mut realms = BTreeMap::new();
        for (name, settings) in &plan.realms {
            let failed = |error| (Some(Arc::clone(name)), error);
            let policy = Policy::load(settings).map_err(failed)?;
            realms.insert(Arc::clone(name), policy);
        }
        let checks = match plan.main.password_checks {
            0 => std::thread::available_parallelism().map_or(1, |count| count.get() / 2),
            count => count,
        };
        Ok(Self {
            is_open: main.is_open() && realms.values().all(Policy::is_open),
            main,
            realms,
            pool: HashPool::new(checks, plan.main.waiting_logins),
        })
    }

    /// What holds in a realm.
    fn of(&self, realm: Option<&Arc<str>>) -> &Policy {
        let own = realm.and_then(|realm| self.realms.get(realm));
        own.unwrap_or(&self.main)
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
        let Some(old) = old.filter(|old| !old.is_from_anywhere) else {
            return Some(self.access_from_anywhere(owner, client_id));
        };
        let policy = self.of(old.realm.as_ref());
        Some(policy.access(Access {
            owner: owner.clone(),
            client_id: Arc::clone(client_id),
            ..old.clone()
        }))
    }

    /// The access of a session of which nobody knows through which listener its client comes: it was read from the
    /// store, or its client came when nobody was asked and has not been looked at since. Until that is done nothing
    /// reaches it, and then what it may not have is taken from it: what any listener allows is kept for it that may
    /// have let its owner in. A will is published where none of these denies it.
    fn access_from_anywhere(&self, owner: &Owner, client_id: &Arc<str>) -> Access {
        let access = Access {
            is_from_anywhere: true,
            ..Access::new(owner.clone(), Arc::clone(client_id))
        };
        if self.realms.is_empty() {
            return self.main.access(access);
        }
        let all = || self.realms.values().chain([&self.main]);
        let nobody_knows = !all().any(|policy| policy.may_let_in(owner));
        let mut rules = RuleSet::default();
        for policy in all().filter(|policy| nobody_knows || policy.may_let_in(owner)) {
            match policy.rules(owner) {
                Some(own) => rules.add_allowing(own),
                None => rules.allow_rest(),
            }
        }
        Access {
            rules: Some(Arc::new(rules)),
            ..access
        }
    }

    /// Whether what clients do is looked at.
    pub(crate) fn restricts(&self) -> bool {
        self.main.restricts() || self.realms.values().any(Policy::restricts)
    }

    /// Whether a client that was let in before would still be, as [`Policy::still_admits`]. `realm`: of its listener.
    pub(crate) fn still_admits(
        &self,
        access: Option<&Access>,
        realm: Option<&Arc<str>>,
        certificate: Option<&[u8]>,
    ) -> bool {
        let known = access.and_then(|access| access.realm.as_ref());
        let policy = self.of(known.or(realm));
        policy.still_admits(access, certificate)
    }

    /// What becomes of a message that this client may not publish.
    pub(crate) fn denied_publish(&self, access: Option<&Access>) -> DeniedPublish {
        let realm = access.and_then(|access| access.realm.as_ref());
        self.of(realm).denied_publish
    }
}

impl Authority {
    /// Reads what the settings name. Blocks.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it says nothing.
    pub fn load(settings: &AuthSettings) -> Result<Self, AuthError> {
        Self::load_plan(&settings.into()).map_err(|(_, error)| error)
    }

    /// The same with realms; an error comes with the realm that it is of.
    ///
    /// # Errors
    /// As [`Authority::load`].
    pub fn load_plan(plan: &AuthPlan) -> Result<Self, (Option<Arc<str>>, AuthError)> {
        let authority = Self::default();
        let policies = Policies::load(plan)?;
        authority.policies.store(Arc::new(policies));
        Ok(authority)
    }

    /// The same in place of what was in force; after an error that still is. What sessions may do is not
    /// changed by this alone.
    pub(crate) fn reload(&self, plan: &AuthPlan) -> Result<(), AuthError> {
        let policies = Policies::load(plan).map_err(|(_, error)| error)?;
        self.policies.store(Arc::new(policies));
        Ok(())
    }

    /// The same with what another has read.
    pub(crate) fn replace(&self, other: &Self) {
        self.policies.store(other.policies());
    }

    pub(crate) fn policies(&self) -> Arc<Policies> {
        self.policies.load_full()
    }

    /// Whether nobody is asked anything.
    pub(crate) fn is_open(&self) -> bool {
        self.policies.load().is_open
    }

    /// Whether clients of a realm may authenticate by this method.
    pub(crate) fn has_method(&self, realm: Option<&Arc<str>>, method: &str) -> bool {
        method == scram::METHOD && self.policies.load().of(realm).scram().is_some()
    }

    /// Begins an exchange with the client's first message; returns ours as well.
    pub(crate) fn begin(
        &self,
        realm: Option<&Arc<str>>,
        client_first: &[u8],
    ) -> Option<(ScramExchange, String)> {
        let policies = self.policies();
        ScramExchange::begin(policies.of(realm).scram()?, client_first)
    }

    /// The access of a client that came through an exchange.
    pub(crate) fn proven(
        &self,
        proven: &Proven,
        client_id: Arc<str>,
        realm: Option<Arc<str>>,
    ) -> Access {
        let policies = self.policies();
        let owner = Owner::User(Arc::clone(&proven.user));
        policies.of(realm.as_ref()).access(Access {
            proof: Proof::Password(Arc::clone(&proven.entry)),
            realm: realm.clone(),
            ..Access::new(owner, client_id)
        })
    }

    /// Lets a client in, or says why not.
    pub(crate) async fn admit(
        &self,
        login: Login,
        counters: &Counters,
    ) -> Result<Access, LoginError> {
        let policies = self.policies();
        let policy = policies.of(login.realm.as_ref());
        policy.admit(login, &policies.pool, counters).await
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}
