//! A file of permissions, to be asked without a broker.

use core::fmt;
use std::path::{Path, PathBuf};

use mqtt_codec::{QoS, TopicError, TopicFilter, TopicName};

use crate::auth::access::Owner;
use crate::auth::acl::{Acl, AclError};
use crate::auth::pattern::Names;
use crate::auth::rule::{Action, Target};

/// The permissions of a file.
#[derive(Clone, Debug)]
pub struct Permissions {
    acl: Acl,
    file: PathBuf,
}

/// What a client would be told, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The highest QoS that is allowed; none: it is denied.
    pub allowed: Option<QoS>,
    /// Whether messages to it may be retained.
    pub retain: bool,
    /// The rule that decided, with file and line; none: no rule speaks of it.
    pub rule: Option<String>,
}

impl Explanation {
    /// Whether a message of this kind may be published.
    #[must_use]
    pub fn allows(&self, qos: QoS, retain: bool) -> bool {
        self.allowed.is_some_and(|most| qos <= most) && (self.retain || !retain)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allowed.is_some() { "yes" } else { "no" })?;
        match &self.rule {
            Some(rule) => write!(f, ": {rule}"),
            None => f.write_str(": no rule allows it"),
        }
    }
}

impl Permissions {
    /// Reads a file: TOML if its name ends with `.toml`, else as mosquitto's `acl_file`.
    ///
    /// # Errors
    /// It cannot be read, or a line is no rule.
    pub fn read(file: &Path) -> Result<Self, AclError> {
        Ok(Self {
            acl: Acl::read(file)?,
            file: file.to_owned(),
        })
    }

    /// Reads the text of such a file; `name` is what problems are reported for, and tells the form.
    ///
    /// # Errors
    /// A line is no rule.
    pub fn parse(text: &str, name: &Path) -> Result<Self, AclError> {
        Ok(Self {
            acl: Acl::parse(text, name)?,
            file: name.to_owned(),
        })
    }

    /// Rules that do not do what they seem to, as `FILE:LINE: PROBLEM`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.acl.warnings(&self.file)
    }

    /// What a client may do with a topic, or a filter if it subscribes. `user`: none for a client without one.
    ///
    /// # Errors
    /// The text is no topic, or no filter.
    pub fn explain(
        &self,
        user: Option<&str>,
        client_id: &str,
        action: Action,
        topic: &str,
    ) -> Result<Explanation, TopicError> {
        let target = match action {
            Action::Subscribe => Target::Filter(TopicFilter::new(topic)?),
            Action::Publish | Action::Receive => Target::Topic(TopicName::new(topic)?),
        };
        let owner = user.map_or(Owner::Anonymous, |user| Owner::User(user.into()));
        let names = Names {
            client: client_id,
            user,
        };
        let rules = self.acl.of(&owner);
        let verdict = rules.verdict(action, target, names);
        Ok(Explanation {
            allowed: verdict.qos,
            retain: verdict.retained.is_some(),
            rule: rules
                .deciding(action, target, names)
                .map(ToString::to_string),
        })
    }
}
