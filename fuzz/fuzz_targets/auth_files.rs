//! Files of users and of permissions, and what the latter say of names that are no names of levels.
//!
//! The first byte says which file the rest is: `p` passwords, `t` permissions in TOML, else those of mosquitto.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mqtt_broker::auth::{Action, Permissions, count_users};

/// Topics that are also filters.
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "a/", "$SYS/a", "%c/%u"];
const FILTERS: [&str; 6] = ["#", "+", "a/+", "a/#", "$SYS/#", "$share/g/a/#"];

fuzz_target!(|data: &[u8]| {
    let Some((form, rest)) = data.split_first() else {
        return;
    };
    let Ok(text) = core::str::from_utf8(rest) else {
        return;
    };
    if *form == b'p' {
        let _ = count_users(text, Path::new("passwords"));
        return;
    }
    let name = if *form == b't' { "acl.toml" } else { "acl" };
    let Ok(permissions) = Permissions::parse(text, Path::new(name)) else {
        return;
    };
    let _ = permissions.warnings();
    let topics = TOPICS.map(|topic| (Action::Publish, topic));
    let filters = FILTERS.map(|filter| (Action::Subscribe, filter));
    let received = TOPICS.map(|topic| (Action::Receive, topic));
    for (action, target) in topics.into_iter().chain(filters).chain(received) {
        let allowed = |client: &str| {
            let explanation = permissions.explain(None, client, action, target).unwrap();
            // A rule decides whenever something is allowed.
            assert!(explanation.allowed.is_none() || explanation.rule.is_some());
            explanation.allowed
        };
        // No topic above has this name in it.
        let stranger = allowed("\u{1}");
        for client in ["#", "+", "a/b", "/", "b/#", ""] {
            assert!(
                allowed(client) <= stranger,
                "{client:?} may {action} {target}"
            );
        }
    }
});
