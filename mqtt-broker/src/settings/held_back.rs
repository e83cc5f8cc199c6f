//! Which changes of a configuration hold from the next start only.

use crate::settings::describe::Described;
use crate::settings::sections::Settings;

impl Settings {
    /// The keys that are other than a broker was started with and do not change while it runs, as `limits.stored_window_bytes`.
    #[must_use]
    pub fn held_back(&self, started: &Self) -> Vec<String> {
        // A section that is added has to be named here.
        let Self {
            store,
            log,
            reload,
            limits,
            bans,
            auth,
            listener: _,
        } = self;
        let mut names = Vec::new();
        collect(&mut names, "store", store, &started.store);
        collect(&mut names, "log", log, &started.log);
        collect(&mut names, "reload", reload, &started.reload);
        collect(&mut names, "limits", limits, &started.limits);
        collect(&mut names, "bans", bans, &started.bans);
        collect(&mut names, "auth", auth, &started.auth);
        names
    }
}

fn collect<T: Described>(names: &mut Vec<String>, section: &str, now: &T, started: &T) {
    let keys = now.differing(started).into_iter();
    let held = keys.filter(|key| key.at_start);
    names.extend(held.map(|key| format!("{section}.{}", key.name)));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::auth::{AuthSettings, HttpSettings, JwtSettings};
    use crate::settings::describe::Key;
    use crate::settings::{
        BanSettings, LimitSettings, ListenerSettings, Loaded, LogSettings, ProxySettings,
        ReloadSettings, StoreSettings, TlsSettings, WebSocketSettings,
    };

    const NEXT_START: [&str; 5] = [
        "store.directory",
        "store.in_memory",
        "store.durability",
        "log.format",
        "limits.stored_window_bytes",
    ];

    fn parse(text: &str) -> Settings {
        let loaded = Loaded::parse(Path::new("broker.toml"), text.into(), core::iter::empty());
        loaded.unwrap().settings
    }

    /// A value of a key that is neither its default nor without meaning.
    fn another(section: &str, key: &Key) -> String {
        match (section, key.name) {
            ("limits", "maximum_qos") => "1".into(),
            ("bans", "addresses") => "[\"192.0.2.1\"]".into(),
            ("bans", "client_ids" | "users") => "[\"a\"]".into(),
            ("store", "durability") => "\"os\"".into(),
            ("log", "level") => "\"debug\"".into(),
            ("log", "format") => "\"json\"".into(),
            ("auth", "denied_publish") => "\"disconnect\"".into(),
            _ if key.optional => key.text.into(),
            _ => match key.text {
                "true" => "false".into(),
                "false" => "true".into(),
                text if text.ends_with("s\"") || text.ends_with("m\"") => "\"77s\"".into(),
                text if text.ends_with("B\"") => "\"7 MiB\"".into(),
                text if text.starts_with('"') => "\"other\"".into(),
                _ => "77".into(),
            },
        }
    }

    /// Each key of the sections that hold for the whole broker is changed by itself: it is named, or a reload applies
    /// it. What is in the sections of listeners is applied as a whole.
    #[test]
    fn every_key_is_applied_or_named() {
        let sections: [(&str, &[Key]); 6] = [
            ("store", StoreSettings::KEYS),
            ("log", LogSettings::KEYS),
            ("reload", ReloadSettings::KEYS),
            ("limits", LimitSettings::KEYS),
            ("bans", BanSettings::KEYS),
            ("auth", AuthSettings::KEYS),
        ];
        let usual = parse("");
        let (mut named, mut count) = (Vec::new(), 0);
        for (section, keys) in sections {
            for key in keys.iter().filter(|key| !key.text.is_empty()) {
                let value = another(section, key);
                let changed = parse(&format!("[{section}]\n{} = {value}\n", key.name));
                assert_ne!(changed, usual, "{section}.{} = {value}", key.name);
                let held = changed.held_back(&usual);
                let own = format!("{section}.{}", key.name);
                assert!(held.is_empty() || held == [own], "{held:?}");
                named.extend(held);
                count += 1;
            }
        }
        assert_eq!(named, NEXT_START);
        assert!(count > 50, "{count}");
        let within: [&[Key]; 6] = [
            JwtSettings::KEYS,
            HttpSettings::KEYS,
            ListenerSettings::KEYS,
            TlsSettings::KEYS,
            WebSocketSettings::KEYS,
            ProxySettings::KEYS,
        ];
        assert!(
            within
                .iter()
                .all(|keys| keys.iter().all(|key| !key.at_start))
        );
    }

    #[test]
    fn several_are_named_together() {
        let changed = parse(
            "[limits]\nstored_window_bytes = 1\nmax_entering = 1\n[store]\nin_memory = true\n",
        );
        let held = changed.held_back(&parse(""));
        assert_eq!(held, ["store.in_memory", "limits.stored_window_bytes"]);
        assert_eq!(changed.held_back(&changed), [] as [&str; 0]);
    }
}
