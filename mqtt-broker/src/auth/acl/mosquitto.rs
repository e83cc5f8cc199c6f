//! Mosquitto's `acl_file`: `user NAME`, `topic [ACCESS] TOPIC` and `pattern [ACCESS] TOPIC`, one a line.
//!
//! `topic` lines before the first `user` are for clients without a user name, those after it for that user.
//! `pattern` lines are for everybody; `%c` and `%u` in them stand for the client identifier and the user name.
//! A line with `deny` counts before all others. Subscribing is allowed where some of what a filter matches may
//! be read; what may not be read does not arrive.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::acl::{Acl, Problem};
use crate::auth::pattern::Pattern;
use crate::auth::rule::{Action, Origin, Reach, Rule, RuleSet};

/// Which lines a rule came from.
enum Section {
    Anonymous,
    User(Box<str>),
}

pub(super) fn parse(text: &str, source: &str) -> Result<Acl, Problem> {
    let source: Arc<str> = source.into();
    let mut users: HashMap<Box<str>, RuleSet> = HashMap::new();
    let mut anonymous = RuleSet::default();
    let mut everybody = RuleSet::default();
    let mut warnings = Vec::new();
    let mut named: Vec<(usize, Box<str>)> = Vec::new();
    let mut section = Section::Anonymous;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (keyword, rest) = split_word(line);
        let is_pattern = keyword == "pattern";
        match keyword {
            "user" if rest.is_empty() => return Err(Problem::new(number, "user without a name")),
            "user" => {
                if !users.contains_key(rest) {
                    named.push((number, rest.into()));
                }
                users.entry(rest.into()).or_default();
                section = Section::User(rest.into());
            }
            "topic" | "pattern" => {
                let origin = Origin {
                    source: Arc::clone(&source),
                    line: number,
                };
                let rule = rule(rest, is_pattern, origin)
                    .map_err(|problem| Problem::new(number, problem))?;
                let names_nobody = |text: &str| text.contains("%c") || text.contains("%u");
                if is_pattern && !rule.pattern.has_placeholders() {
                    let text = "pattern without %c and %u: it is for every client";
                    warnings.push(Problem::new(number, text));
                } else if !is_pattern && names_nobody(rest) {
                    let text = "can never match: %c and %u stand for names in `pattern` lines only";
                    warnings.push(Problem::new(number, text));
                }
                let rules = match &section {
                    _ if is_pattern => &mut everybody,
                    Section::Anonymous => &mut anonymous,
                    Section::User(user) => users.entry(user.clone()).or_default(),
                };
                rules.push(Arc::new(rule));
            }
            _ => {
                let text = format!("unknown word {keyword:?}; expected user, topic or pattern");
                return Err(Problem::new(number, text));
            }
        }
    }
    let with_everybody = |mut rules: RuleSet| {
        rules.extend(&everybody);
        Arc::new(rules)
    };
    Ok(Acl {
        users: users
            .into_iter()
            .map(|(user, rules)| (user, with_everybody(rules)))
            .collect(),
        anonymous: with_everybody(anonymous),
        others: Arc::new(everybody),
        warnings,
        named,
    })
}

fn rule(rest: &str, is_pattern: bool, origin: Origin) -> Result<Rule, String> {
    const READ: u8 = Action::Subscribe.bit() | Action::Receive.bit();
    const WRITE: u8 = Action::Publish.bit();
    let (word, after) = split_word(rest);
    let access = match word {
        "read" => Some((true, READ)),
        "write" => Some((true, WRITE)),
        "readwrite" => Some((true, READ | WRITE)),
        "deny" => Some((false, READ | WRITE)),
        _ => None,
    };
    // A topic may have the name of an access, and spaces.
    let (allows, actions, topic) = match access {
        Some((allows, actions)) if !after.is_empty() => (allows, actions, after),
        _ => (true, READ | WRITE, rest),
    };
    let pattern =
        Pattern::parse(topic, is_pattern).map_err(|error| format!("topic {topic:?}: {error}"))?;
    Ok(Rule {
        allows,
        reach: Reach::Overlapping,
        ..Rule::allowing(actions, pattern, origin)
    })
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}
