//! Who a session belongs to, and what it may do.

use core::fmt;
use std::sync::Arc;

use mqtt_codec::{QoS, TopicFilter, TopicName};

use crate::auth::http::Topics;
use crate::auth::pattern::Names;
use crate::auth::rule::{Action, RuleSet, Target, Verdict};
use crate::auth::scram::Proven;
use crate::auth::token::Accepted;

/// Whom a session belongs to. It is resumed, replaced and taken over by nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Whoever comes: the broker asked nobody who they are when the session was made. The first who says it
    /// owns it from then on.
    #[default]
    Anybody,
    /// Clients that were let in without a user name.
    Anonymous,
    /// A user.
    User(Arc<str>),
}

impl Owner {
    /// Whether `client` may have a session that belongs to this owner.
    pub(crate) fn admits(&self, client: &Self) -> bool {
        *self == Self::Anybody || *client == Self::Anybody || self == client
    }

    pub(crate) fn user(&self) -> Option<&Arc<str>> {
        match self {
            Self::User(user) => Some(user),
            Self::Anybody | Self::Anonymous => None,
        }
    }
}

/// What a client showed to be let in, as far as it matters when the configuration changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing.
    #[default]
    None,
    /// A password that this entry of the password file was checked with.
    Password(Arc<str>),
    /// A token. It is kept as long as the connection lasts.
    Token(Arc<Accepted>),
    /// A certificate.
    Certificate,
    /// What the service of this URL was told.
    Service(Arc<str>),
}

/// A session's owner with what that may do.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) owner: Owner,
    pub(crate) client_id: Arc<str>,
    /// Where it was let in; none: where nothing of its own is said.
    pub(crate) realm: Option<Arc<str>>,
    /// It is not known where: `realm` says nothing then.
    pub(crate) is_from_anywhere: bool,
    pub(crate) proof: Proof,
    /// The second since 1970 from which on it is worth nothing; none: it does not end by itself.
    pub(crate) ends: Option<u64>,
    /// What its token says that it may do; none: its token says nothing.
    pub(crate) claims: Option<Arc<RuleSet>>,
    /// It may do everything, whatever the rules say.
    pub(crate) is_superuser: bool,
    /// None: everything is allowed.
    pub(crate) rules: Option<Arc<RuleSet>>,
    /// Who is asked about topics that the rules allow; none: nobody.
    pub(crate) topics: Option<Arc<Topics>>,
}

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| {
            let flags = (it.is_superuser, it.is_from_anywhere);
            let topics = it.topics.as_ref().map(Arc::as_ptr);
            (it.ends, flags, topics)
        };
        self.owner == other.owner
            && self.client_id == other.client_id
            && self.realm == other.realm
            && self.proof == other.proof
            && self.claims == other.claims
            && self.rules == other.rules
            && parts(self) == parts(other)
    }
}

impl Eq for Access {}

impl Access {
    /// Of somebody who has shown nothing, before any rules.
    pub(crate) fn new(owner: Owner, client_id: Arc<str>) -> Self {
        Self {
            owner,
            client_id,
            realm: None,
            is_from_anywhere: false,
            proof: Proof::None,
            ends: None,
            claims: None,
            is_superuser: false,
            rules: None,
            topics: None,
        }
    }

    /// The same after it was shown again who it is.
    pub(crate) fn with_entry(&self, proven: &Proven) -> Self {
        Self {
            proof: Proof::Password(Arc::clone(&proven.entry)),
            ..self.clone()
        }
    }

    /// Whether what it does is looked at.
    pub(crate) fn is_restricted(&self) -> bool {
        self.rules.is_some() || self.topics.is_some()
    }

    fn names(&self) -> Names<'_> {
        Names {
            client: &self.client_id,
            user: self.owner.user().map(|user| &**user),
        }
    }

    fn verdict(&self, action: Action, target: Target<'_>) -> Verdict {
        match &self.rules {
            None => Verdict::ALLOWED,
            Some(rules) => rules.verdict(action, target, self.names()),
        }
    }

    pub(crate) fn publish(&self, topic: TopicName<'_>) -> Verdict {
        self.verdict(Action::Publish, Target::Topic(topic))
    }

    /// The highest QoS of a subscription; none: it is denied.
    pub(crate) fn subscribe(&self, filter: TopicFilter<'_>) -> Option<QoS> {
        self.verdict(Action::Subscribe, Target::Filter(filter)).qos
    }

    /// The highest QoS at which messages of a topic arrive; none: they do not.
    pub(crate) fn receive(&self, topic: TopicName<'_>) -> Option<QoS> {
        self.verdict(Action::Receive, Target::Topic(topic)).qos
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("owner", &self.owner)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
