//! The TOML form: roles with what they allow, and who has which role.
//!
//! ```toml
//! [roles.sensor]
//! publish = ["sensors/%c/#", { topic = "alarms/%c", qos = 1, retain = false }]
//! subscribe = ["commands/%c/#"]
//! deny_publish = ["sensors/%c/config"]
//!
//! [groups.field]
//! users = ["anna", "ben"]
//! roles = ["sensor"]
//!
//! [users.carla]
//! roles = ["sensor"]
//!
//! [everyone]
//! roles = []
//!
//! [anonymous]
//! roles = []
//! ```
//!
//! A filter may be subscribed to if one entry of `subscribe` matches all that the filter matches. What may be
//! received is what `subscribe` says, unless there is a list `receive`. What is denied counts before what is
//! allowed, and what is denied to subscribe to is not received either.

use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

use mqtt_codec::QoS;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::auth::acl::{Acl, Problem};
use crate::auth::pattern::Pattern;
use crate::auth::rule::{Action, Origin, Rule, RuleSet};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    roles: BTreeMap<String, Role>,
    groups: BTreeMap<String, Group>,
    users: BTreeMap<String, Member>,
    everyone: Member,
    anonymous: Member,
}

/// What is allowed and denied, apart from who it is for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "T: Deserialize<'de>")]
struct Role<T = Spanned<Topic>> {
    #[serde(default = "Vec::new")]
    publish: Vec<T>,
    #[serde(default = "Vec::new")]
    subscribe: Vec<T>,
    #[serde(default = "no_list")]
    receive: Option<Vec<T>>,
    #[serde(default = "Vec::new")]
    deny_publish: Vec<T>,
    #[serde(default = "Vec::new")]
    deny_subscribe: Vec<T>,
    #[serde(default = "Vec::new")]
    deny_receive: Vec<T>,
}

fn no_list<T>() -> Option<Vec<T>> {
    None
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Member {
    roles: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Group {
    users: Vec<String>,
    roles: Vec<Spanned<String>>,
}

/// A pattern, alone or with limits.
#[derive(Debug)]
struct Topic {
    pattern: String,
    qos: QoS,
    retain: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicTable {
    topic: String,
    #[serde(default = "two")]
    qos: u8,
    #[serde(default = "yes")]
    retain: bool,
}

fn two() -> u8 {
    2
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopicVisitor;
        impl<'de> Visitor<'de> for TopicVisitor {
            type Value = Topic;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a topic filter, or { topic = ..., qos = ..., retain = ... }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Topic, E> {
                Ok(Topic {
                    pattern: text.to_owned(),
                    qos: QoS::ExactlyOnce,
                    retain: true,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Topic, A::Error> {
                let table = TopicTable::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let qos = match table.qos {
                    0 => QoS::AtMostOnce,
                    1 => QoS::AtLeastOnce,
                    2 => QoS::ExactlyOnce,
                    _ => return Err(de::Error::custom("qos is 0, 1 or 2")),
                };
                Ok(Topic {
                    pattern: table.topic,
                    qos,
                    retain: table.retain,
                })
            }
        }
        deserializer.deserialize_any(TopicVisitor)
    }
}

/// Tells the lines of a file.
struct Lines<'t> {
    text: &'t str,
    source: Arc<str>,
}

impl Lines<'_> {
    fn number(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        Origin {
            source: Arc::clone(&self.source),
            line: self.number(span),
        }
    }
}

pub(super) fn parse(text: &str, source: &str) -> Result<Acl, Problem> {
    let lines = Lines {
        text,
        source: source.into(),
    };
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| lines.number(&span));
        Problem::new(line, error.message())
    })?;
    let mut roles: BTreeMap<&str, RuleSet> = BTreeMap::new();
    for (name, role) in &file.roles {
        roles.insert(name, role.rules(|topic| lines.origin(&topic.span()))?);
    }
    let add = |rules: &mut RuleSet, names: &[Spanned<String>]| {
        for name in names {
            let role = roles.get(name.get_ref().as_str()).ok_or_else(|| {
                let known: Vec<&str> = roles.keys().copied().collect();
                let known = known.join(", ");
                let text = format!("unknown role {:?}; there are: {known}", name.get_ref());
                Problem::new(lines.number(&name.span()), text)
            })?;
            rules.extend(role);
        }
        Ok(())
    };
    let mut everyone = RuleSet::default();
    add(&mut everyone, &file.everyone.roles)?;
    let mut anonymous = everyone.clone();
    add(&mut anonymous, &file.anonymous.roles)?;
    let mut users: BTreeMap<&str, RuleSet> = BTreeMap::new();
    for (name, member) in &file.users {
        let rules = users.entry(name).or_insert_with(|| everyone.clone());
        add(rules, &member.roles)?;
    }
    for group in file.groups.values() {
        for user in &group.users {
            let rules = users.entry(user).or_insert_with(|| everyone.clone());
            add(rules, &group.roles)?;
        }
    }
    Ok(Acl {
        named: users.keys().map(|user| (0, (*user).into())).collect(),
        users: users
            .into_iter()
            .map(|(user, rules)| (user.into(), Arc::new(rules)))
            .collect(),
        others: Arc::new(everyone),
        anonymous: Arc::new(anonymous),
        warnings: Vec::new(),
    })
}

impl AsRef<Self> for Topic {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// What a claim of a token says that a client may do: a role, as JSON. None: it is none.
pub(crate) fn claimed_rules(claim: &serde_json::Value, source: &Arc<str>) -> Option<RuleSet> {
    // A list of lists in the order of the fields would be taken as well.
    let claim = claim.is_object().then_some(claim)?;
    let role = Role::<Topic>::deserialize(claim).ok()?;
    let origin = Origin {
        source: Arc::clone(source),
        line: 0,
    };
    role.rules(|_| origin.clone()).ok()
}

impl<T: AsRef<Topic>> Role<T> {
    fn rules(&self, origin: impl Fn(&T) -> Origin) -> Result<RuleSet, Problem> {
        const PUBLISH: u8 = Action::Publish.bit();
        const SUBSCRIBE: u8 = Action::Subscribe.bit();
        const RECEIVE: u8 = Action::Receive.bit();
        let with_subscribe = if self.receive.is_none() { RECEIVE } else { 0 };
        let receive = self.receive.as_deref().unwrap_or_default();
        let mut rules = RuleSet::default();
        for (allows, actions, topics) in [
            (false, PUBLISH, &*self.deny_publish),
            (false, SUBSCRIBE | RECEIVE, &*self.deny_subscribe),
            (false, RECEIVE, &*self.deny_receive),
            (true, PUBLISH, &*self.publish),
            (true, SUBSCRIBE | with_subscribe, &*self.subscribe),
            (true, RECEIVE, receive),
        ] {
            for topic in topics {
                let origin = origin(topic);
                let topic = topic.as_ref();
                let pattern = Pattern::parse(&topic.pattern, true).map_err(|error| {
                    let text = format!("topic {:?}: {error}", topic.pattern);
                    Problem::new(origin.line, text)
                })?;
                rules.push(Arc::new(Rule {
                    allows,
                    qos: topic.qos,
                    retain: topic.retain,
                    ..Rule::allowing(actions, pattern, origin)
                }));
            }
        }
        Ok(rules)
    }
}
