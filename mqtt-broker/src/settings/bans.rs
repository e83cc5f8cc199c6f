//! The section `[bans]`: who is not let in, and what of it would let in who is meant to be kept out.

use core::num::NonZeroU32;
use core::time::Duration;

use crate::bans::BanRules;
use crate::settings::describe::section;
use crate::settings::problem::Step;
use crate::settings::value::Span;
use crate::settings::{Loaded, Problem};
use crate::transport::Network;

section! {
    /// Who is not let in. Who is connected when a reload names it is disconnected (0x98).
    struct BanSettings {
        /// Addresses and networks; their connections are closed without an answer.
        addresses: Vec<Network> = Vec::new(), "[]";
        /// Client identifiers; refused with 0x8A (3.1.1: 5).
        client_ids: Vec<String> = Vec::new(), "[]";
        /// User names; refused with 0x8A (3.1.1: 5).
        users: Vec<String> = Vec::new(), "[]";
        /// Failures of an address within `window` for which it is banned: wrong passwords, failed handshakes of
        /// TLS and WebSocket, first packets that are no CONNECT. Of IPv6 the network of 64 bits counts as one
        /// address. Without it: no address is banned for its failures.
        failures: Option<NonZeroU32> = None, "10";
        /// Time in which failures count together.
        window: Span = Span(Duration::from_secs(60)), "\"60s\"";
        /// Time that such a ban lasts.
        duration: Span = Span(Duration::from_secs(600)), "\"10m\"";
    }
}

impl BanSettings {
    /// The same for a broker.
    #[must_use]
    pub fn rules(&self) -> BanRules {
        BanRules {
            addresses: self.addresses.clone(),
            client_ids: self.client_ids.clone(),
            users: self.users.clone(),
            failures: self.failures,
            window: self.window.0,
            duration: self.duration.0,
        }
    }

    /// What is wrong with a value, and where in the section it is.
    fn problem(&self) -> Option<(Vec<Step<'static>>, &'static str)> {
        let lists = [("client_ids", &self.client_ids), ("users", &self.users)];
        for (key, names) in lists {
            let found = names
                .iter()
                .enumerate()
                .find_map(|(place, name)| Some((place, unheard_of(key, name)?)));
            if let Some((place, what)) = found {
                return Some((vec![Step::Key(key), Step::Place(place)], what));
            }
        }
        for (key, span) in [("window", self.window), ("duration", self.duration)] {
            if span.0.is_zero() {
                return Some((vec![Step::Key(key)], "no time at all"));
            }
        }
        None
    }
}

/// Why no client can have a name, so that a ban of it bans nobody.
fn unheard_of(key: &str, name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some(match key {
            "users" => {
                "an empty user name: clients without one are banned by `allow_anonymous = false`"
            }
            _ => {
                "an empty client identifier: the broker gives each client that has none one of its own"
            }
        });
    }
    if name.len() > usize::from(u16::MAX) {
        return Some("more than 65,535 bytes: no client can have this name");
    }
    name.contains('\0')
        .then_some("U+0000 in it: no client can have this name")
}

impl Loaded {
    /// What is wrong in the section, if anything.
    pub(super) fn ban_problem(&self) -> Option<Problem> {
        let (path, what) = self.settings.bans.problem()?;
        Some(self.error(&in_section(path), what))
    }

    /// Bans that are of more than they seem to be.
    pub(super) fn look_at_bans(&self, warnings: &mut Vec<Problem>) {
        for (place, network) in self.settings.bans.addresses.iter().enumerate() {
            let what = if network.is_everything() {
                "every address of its kind is banned".to_owned()
            } else if let Some(meant) = network.without_host().filter(|meant| meant != network) {
                format!("the address is not the first of its network: all of {meant} is banned")
            } else {
                continue;
            };
            let path = in_section(vec![Step::Key("addresses"), Step::Place(place)]);
            warnings.push(self.warning(&path, &what));
        }
    }
}

fn in_section(path: Vec<Step<'static>>) -> Vec<Step<'static>> {
    [vec![Step::Key("bans")], path].concat()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Loaded, Problem> {
        let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[bans]\n{text}\n");
        Loaded::parse(Path::new("broker.toml"), text, core::iter::empty())
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let long = format!("users = [\"{}\"]", "x".repeat(65_536));
        let cases = [
            (
                "adresses = []",
                "broker.toml:4:1",
                "did you mean `addresses`?",
            ),
            (
                "addresses = [\"192.0.2.1\", \"host\"]",
                "broker.toml:4:",
                "not an IP address",
            ),
            (
                "addresses = [\"192.0.2.0/33\"]",
                "broker.toml:4:",
                "33 bits",
            ),
            ("addresses = [\"192.0.2.0/x\"]", "broker.toml:4:", "prefix"),
            ("addresses = \"192.0.2.1\"", "broker.toml:4:13", "sequence"),
            (
                "client_ids = [\"a\", \"\"]",
                "broker.toml:4:20",
                "empty client identifier",
            ),
            ("client_ids = [5]", "broker.toml:4:15", "string"),
            ("users = [\"\"]", "broker.toml:4:10", "empty user name"),
            ("users = [\"a\\u0000b\"]", "broker.toml:4:10", "U+0000"),
            (long.as_str(), "broker.toml:4:10", "65,535"),
            ("failures = 0", "broker.toml:4:12", "nonzero"),
            ("failures = -1", "broker.toml:4:12", ""),
            ("failures = 3\nwindow = 0", "broker.toml:5:1", "no time"),
            ("duration = \"0s\"", "broker.toml:4:1", "no time"),
            ("duration = \"10 x\"", "broker.toml:4:12", "\"10s\""),
        ];
        for (text, place, what) in cases {
            let problem = parse(text).unwrap_err().to_string();
            assert!(problem.starts_with("error"), "{problem}");
            assert!(problem.contains(place), "{text:.40}: {problem:.400}");
            assert!(problem.contains(what), "{text:.40}: {problem:.400}");
        }
        let good = "addresses = [\"192.0.2.0/24\", \"::1\"]\nclient_ids = [\"a\"]\nfailures = 3";
        let rules = parse(good).unwrap().settings.bans.rules();
        assert_eq!(rules.addresses.len(), 2);
        assert_eq!(rules.failures.unwrap().get(), 3);
    }

    #[test]
    fn networks_that_are_larger_than_they_seem_are_told() {
        let told = |text: &str| {
            let mut warnings = Vec::new();
            let loaded = parse(&format!("addresses = [\"192.0.2.0/24\", \"{text}\"]"));
            loaded.unwrap().prepare(&mut warnings).unwrap();
            let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            warnings.join("\n")
        };
        for good in ["192.0.2.7", "2001:db8::/32", "::ffff:192.0.2.0/120"] {
            assert_eq!(told(good), "");
        }
        let warning = told("192.0.2.7/24");
        assert!(warning.contains("broker.toml:4:"), "{warning}");
        assert!(warning.contains("all of 192.0.2.0/24"), "{warning}");
        assert!(told("0.0.0.0/0").contains("every address"));
        assert!(told("::/0").contains("every address"));
    }
}
