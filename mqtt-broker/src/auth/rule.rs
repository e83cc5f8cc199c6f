//! Rules about topics, and what a set of them says.

use core::fmt;
use std::sync::Arc;

use mqtt_codec::{QoS, TopicFilter, TopicName};

use crate::auth::pattern::{Doubt, Names, Pattern};

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send messages to a topic.
    Publish,
    /// Ask for the messages of a filter.
    Subscribe,
    /// Get the messages of a topic.
    Receive,
}

impl Action {
    pub(crate) const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Receive];

    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Receive => "receive",
        })
    }
}

/// Where a rule was written.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// A file, or what else rules come from.
    pub(crate) source: Arc<str>,
    /// From 1; 0 where there are no lines.
    pub(crate) line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.source),
            line => write!(f, "{}:{line}", self.source),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which filters a rule lets a client subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those that match nothing but what the rule means.
    Covered,
    /// Those that match some of it. What else they match does not arrive.
    Overlapping,
}

/// What is allowed, or denied, of the topics of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allows: bool,
    /// Bits of [`Action`].
    pub(crate) actions: u8,
    pub(crate) pattern: Pattern,
    pub(crate) reach: Reach,
    /// The highest QoS that it allows.
    pub(crate) qos: QoS,
    /// Whether it allows retained messages to be published.
    pub(crate) retain: bool,
    pub(crate) origin: Origin,
}

impl Rule {
    pub(crate) fn allowing(actions: u8, pattern: Pattern, origin: Origin) -> Self {
        Self {
            allows: true,
            actions,
            pattern,
            reach: Reach::Covered,
            qos: QoS::ExactlyOnce,
            retain: true,
            origin,
        }
    }

    fn speaks_of(&self, action: Action, target: Target<'_>, names: Names<'_>) -> bool {
        if self.actions & action.bit() == 0 {
            return false;
        }
        let doubt = if self.allows {
            Doubt::Nothing
        } else {
            Doubt::Everything
        };
        match target {
            Target::Topic(topic) => self.pattern.matches(topic, names, doubt),
            // What is denied of a wider filter does not arrive.
            Target::Filter(filter) => match self.reach {
                Reach::Overlapping if self.allows => self.pattern.overlaps(filter, names, doubt),
                _ => self.pattern.covers(filter, names, doubt),
            },
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = if self.allows { "allow" } else { "deny" };
        write!(f, "{}: {effect}", self.origin)?;
        for action in Action::ALL {
            if self.actions & action.bit() != 0 {
                write!(f, " {action}")?;
            }
        }
        write!(f, " {}", self.pattern)?;
        if self.qos < QoS::ExactlyOnce {
            write!(f, " (QoS up to {})", self.qos as u8)?;
        }
        if !self.retain {
            f.write_str(" (not retained)")?;
        }
        Ok(())
    }
}

/// What an action is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Topic(TopicName<'a>),
    Filter(TopicFilter<'a>),
}

/// What may be done with a topic or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The highest QoS that is allowed; none: it is denied.
    pub(crate) qos: Option<QoS>,
    /// The highest of messages that are retained.
    pub(crate) retained: Option<QoS>,
}

impl Verdict {
    pub(crate) const ALLOWED: Self = Self {
        qos: Some(QoS::ExactlyOnce),
        retained: Some(QoS::ExactlyOnce),
    };
    pub(crate) const DENIED: Self = Self {
        qos: None,
        retained: None,
    };

    pub(crate) fn allows(self, qos: QoS, retain: bool) -> bool {
        let highest = if retain { self.retained } else { self.qos };
        highest.is_some_and(|highest| qos <= highest)
    }
}

/// The rules for one user: a denial counts before what is allowed, and what no rule speaks of is denied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleSet {
    denying: Vec<Arc<Rule>>,
    allowing: Vec<Arc<Rule>>,
    /// What no rule denies is allowed.
    allows_rest: bool,
}

impl RuleSet {
    pub(crate) fn push(&mut self, rule: Arc<Rule>) {
        if rule.allows {
            self.allowing.push(rule);
        } else {
            self.denying.push(rule);
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.denying.extend_from_slice(&other.denying);
        self.allowing.extend_from_slice(&other.allowing);
    }

    /// Allows what the other allows as well, and denies to publish what it denies.
    pub(crate) fn add_allowing(&mut self, other: &Self) {
        let publish = Action::Publish.bit();
        let denied = other.denying.iter().filter(|it| it.actions & publish != 0);
        self.denying.extend(denied.map(|rule| {
            Arc::new(Rule {
                actions: publish,
                ..Rule::clone(rule)
            })
        }));
        self.allowing.extend_from_slice(&other.allowing);
    }

    /// Allows what no rule denies.
    pub(crate) fn allow_rest(&mut self) {
        self.allows_rest = true;
    }

    pub(crate) fn verdict(&self, action: Action, target: Target<'_>, names: Names<'_>) -> Verdict {
        let speaks = |rule: &&Arc<Rule>| rule.speaks_of(action, target, names);
        if self.denying.iter().any(|rule| speaks(&rule)) {
            return Verdict::DENIED;
        }
        if self.allows_rest {
            return Verdict::ALLOWED;
        }
        let mut verdict = Verdict::DENIED;
        for rule in self.allowing.iter().filter(speaks) {
            verdict.qos = verdict.qos.max(Some(rule.qos));
            if rule.retain {
                verdict.retained = verdict.retained.max(Some(rule.qos));
            }
        }
        verdict
    }

    /// The rule that decides: the first that denies, else the first that allows as much as any. None: no rule
    /// speaks of it.
    pub(crate) fn deciding(
        &self,
        action: Action,
        target: Target<'_>,
        names: Names<'_>,
    ) -> Option<&Rule> {
        let speaks = |rule: &&Arc<Rule>| rule.speaks_of(action, target, names);
        let denies = self.denying.iter().find(speaks);
        let allows = || {
            let best = self.verdict(action, target, names);
            let is_best = |rule: &&Arc<Rule>| Some(rule.qos) == best.qos;
            self.allowing.iter().filter(speaks).find(is_best)
        };
        denies.or_else(allows).map(|rule| &**rule)
    }

    /// Every rule, those that deny first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.denying
            .iter()
            .chain(&self.allowing)
            .map(|rule| &**rule)
    }
}
