//! Files of permissions.

mod mosquitto;
mod roles;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use crate::auth::access::Owner;
use crate::auth::password::file::Passwords;
use crate::auth::rule::{Action, Origin, Rule, RuleSet};

pub(crate) use crate::auth::acl::roles::claimed_rules;

/// What is wrong with a file of permissions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AclError {
    /// What the system says.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A line that is no rule.
    #[error("{}:{line}: {problem}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// A problem with the line where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    line: usize,
    text: String,
}

impl Problem {
    fn new(line: usize, text: impl ToString) -> Self {
        Self {
            line,
            text: text.to_string(),
        }
    }
}

/// The rules of a file. What they do not speak of is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acl {
    users: HashMap<Box<str>, Arc<RuleSet>>,
    /// Of users that the file does not name.
    others: Arc<RuleSet>,
    anonymous: Arc<RuleSet>,
    warnings: Vec<Problem>,
    /// Users in the order in which they are named, with the line; 0 where it is not known.
    named: Vec<(usize, Box<str>)>,
}

impl Acl {
    /// Reads a file: TOML if its name ends with `.toml`, else as mosquitto has it.
    pub(crate) fn read(file: &Path) -> Result<Self, AclError> {
        let text = fs::read_to_string(file).map_err(|source| AclError::Io {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(&text, file)
    }

    /// Reads the text of a file.
    pub(crate) fn parse(text: &str, file: &Path) -> Result<Self, AclError> {
        let source = file.display().to_string();
        let is_toml = file.extension().is_some_and(|ending| ending == "toml");
        let read = if is_toml {
            roles::parse(text, &source)
        } else {
            mosquitto::parse(text, &source)
        };
        read.map_err(|Problem { line, text }| AclError::Line {
            file: file.to_owned(),
            line,
            problem: text,
        })
    }

    /// The rules of a session's owner.
    pub(crate) fn of(&self, owner: &Owner) -> &Arc<RuleSet> {
        match owner.user() {
            Some(user) => self.users.get(&**user).unwrap_or(&self.others),
            None => &self.anonymous,
        }
    }

    /// Users whose rules are for nobody, since there is no such user, as `FILE:LINE: PROBLEM`.
    pub(crate) fn strangers(&self, file: &Path, passwords: &Passwords) -> Vec<String> {
        let unknown = self
            .named
            .iter()
            .filter(|(_, user)| passwords.get(user).is_none());
        let text = |(line, user): &(usize, Box<str>)| {
            let origin = Origin {
                source: file.display().to_string().into(),
                line: *line,
            };
            format!("{origin}: can never match: the password file has no user {user:?}")
        };
        unknown.map(text).collect()
    }

    /// Rules that do not do what they seem to, as `FILE:LINE: PROBLEM`.
    pub(crate) fn warnings(&self, file: &Path) -> Vec<String> {
        let file = file.display();
        let own = self.warnings.iter();
        let mut all: Vec<(usize, String)> = own
            .map(|problem| (problem.line, problem.text.clone()))
            .collect();
        for rules in self.users.values().chain([&self.others, &self.anonymous]) {
            all.extend(shadowed(rules));
        }
        all.sort_unstable();
        all.dedup();
        all.into_iter()
            .map(|(line, text)| format!("{file}:{line}: {text}"))
            .collect()
    }
}

/// Rules that allow what others deny as a whole.
fn shadowed(rules: &RuleSet) -> impl Iterator<Item = (usize, String)> {
    let denying: Vec<&Rule> = rules.iter().filter(|rule| !rule.allows).collect();
    let allowing = rules.iter().filter(|rule| rule.allows);
    allowing.filter_map(move |rule| {
        let actions = Action::ALL.into_iter().map(Action::bit);
        let mut actions = actions.filter(|bit| rule.actions & bit != 0);
        let by = denying
            .iter()
            .find(|deny| deny.pattern.includes(&rule.pattern))?;
        let all = actions.all(|bit| {
            let denies = |deny: &&&Rule| deny.actions & bit != 0;
            let mut denying = denying.iter().filter(denies);
            denying.any(|deny| deny.pattern.includes(&rule.pattern))
        });
        all.then(|| {
            let text = format!("can never allow anything: {} denies it", by.origin);
            (rule.origin.line, text)
        })
    })
}
