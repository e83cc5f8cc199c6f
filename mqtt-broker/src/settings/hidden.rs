//! What is not shown of a configuration where something is wrong with it: values that are secrets, or may be. They are
//! those of the keys that hold any, and those of keys that are not known: `password` is none of ours, but is one.

use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::auth::{AuthSettings, HttpSettings, JwtSettings};
use crate::settings::bans::BanSettings;
use crate::settings::describe::{Described, Key};
use crate::settings::limits::LimitSettings;
use crate::settings::sections::{
    ListenerSettings, LogSettings, ProxySettings, ReloadSettings, Settings, StoreSettings,
    TlsSettings, WebSocketSettings,
};

/// Keys whose values may hold secrets: a name and a password, or a token in the query.
const SECRET: [&str; 2] = ["url", "topic_url"];

/// What stands in place of a value.
const MARK: &str = "***";

/// A section that is added has to be named here; else its values are hidden.
fn keys() -> impl Iterator<Item = &'static Key> {
    let sections = [
        Settings::KEYS,
        StoreSettings::KEYS,
        LogSettings::KEYS,
        ReloadSettings::KEYS,
        LimitSettings::KEYS,
        BanSettings::KEYS,
        AuthSettings::KEYS,
        JwtSettings::KEYS,
        HttpSettings::KEYS,
        ListenerSettings::KEYS,
        TlsSettings::KEYS,
        WebSocketSettings::KEYS,
        ProxySettings::KEYS,
    ];
    sections.into_iter().flatten()
}

/// Whether the value of a key may be shown.
pub(crate) fn is_shown(name: &str) -> bool {
    !SECRET.contains(&name) && keys().any(|key| key.name == name && !key.text.is_empty())
}

fn is_section(name: &str) -> bool {
    keys().any(|key| key.name == name && key.text.is_empty())
}

/// The text of a configuration without what may be secret; every other letter stands where it stood.
pub(crate) struct Shown {
    pub(crate) text: String,
    hidden: Vec<Range<usize>>,
}

impl Shown {
    pub(crate) fn new(text: &str) -> Self {
        let mut hidden = Vec::new();
        match DeTable::parse(text) {
            Ok(table) => collect_table(table.get_ref(), true, &mut hidden),
            // Where values end is not known in a text that is no TOML.
            Err(_) => collect_lines(text, &mut hidden),
        }
        let mut bytes = text.as_bytes().to_vec();
        for range in &mut hidden {
            // A comment behind a secret may be an older one.
            let rest = text.get(range.end..).unwrap_or_default();
            let rest = rest.lines().next().unwrap_or_default();
            if rest.trim_start().starts_with('#') {
                range.end += rest.len();
            }
            let letters = bytes.get_mut(range.clone()).unwrap_or_default().iter_mut();
            let mut mark = MARK.bytes();
            for letter in letters.filter(|letter| !matches!(letter, b'\r' | b'\n')) {
                *letter = mark.next().unwrap_or(b' ');
            }
        }
        Self {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            hidden,
        }
    }

    /// Whether something of this place is not shown.
    pub(crate) fn hides(&self, span: &Range<usize>) -> bool {
        let mut hidden = self.hidden.iter();
        hidden.any(|one| one.start < span.end && span.start < one.end)
    }

    /// The part of a place that is shown.
    pub(crate) fn narrowed(&self, span: Range<usize>) -> Range<usize> {
        match self.hidden.iter().any(|one| one.start == span.start) {
            true => span.start..span.end.min(span.start + MARK.len()),
            false => span,
        }
    }
}

fn collect_table(table: &DeTable<'_>, is_known: bool, hidden: &mut Vec<Range<usize>>) {
    for (name, value) in table {
        collect(name.get_ref(), value, is_known, hidden);
    }
}

fn collect(
    name: &str,
    value: &Spanned<DeValue<'_>>,
    is_known: bool,
    hidden: &mut Vec<Range<usize>>,
) {
    match value.get_ref() {
        DeValue::Table(table) => collect_table(table, is_known && is_section(name), hidden),
        DeValue::Array(array) => {
            for one in array {
                collect(name, one, is_known, hidden);
            }
        }
        _ if is_known && is_shown(name) => {}
        _ => hidden.push(value.span()),
    }
}

fn collect_lines(text: &str, hidden: &mut Vec<Range<usize>>) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let shown = shown_of_line(content);
        if shown < content.len() {
            hidden.push(start + shown..start + content.len());
        }
        start += line.len();
    }
}

/// Bytes of a line, from its begin, that hold nothing secret whatever is around them: a line that looks odd may belong
/// to a value that began above.
fn shown_of_line(line: &str) -> usize {
    let is_known = |name: &str| name.split('.').all(|name| is_known(name.trim()));
    if let Some(section) = line.trim().strip_prefix('[') {
        let section = section.trim_matches(['[', ']']);
        return if is_known(section) { line.len() } else { 0 };
    }
    let Some((key, value)) = line.split_once('=') else {
        // Perhaps a key whose `=` is missing.
        let indent = line.len() - line.trim_start().len();
        let word = line.split_whitespace().next().unwrap_or_default();
        return if is_known(word) {
            indent + word.len()
        } else {
            0
        };
    };
    if !is_known(key) {
        return 0;
    }
    let last = key.rsplit('.').next().unwrap_or_default().trim();
    if is_shown(last) && !value.contains(['=', '{', '#']) {
        return line.len();
    }
    key.len() + 1 + (value.len() - value.trim_start().len())
}

fn is_known(name: &str) -> bool {
    keys().any(|key| key.name == name)
}

/// Leaves out what serde quotes of a value: `invalid type: string "VALUE", expected TYPE`.
pub(crate) fn without_value(message: &str) -> String {
    let Some((what @ ("invalid type" | "invalid value"), rest)) = message.split_once(": ") else {
        return message.to_owned();
    };
    let kind = rest.split(['"', '`', ',']).next().unwrap_or_default();
    let kind = kind.trim_end();
    match rest.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{what}: {kind}, expected {expected}"),
        None => format!("{what}: {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::settings::Loaded;

    /// What is wrong with a text, as a start, a reload and a check show it.
    fn told(text: &str, variables: &[(&str, &str)]) -> String {
        let own = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = Loaded::parse(Path::new("broker.toml"), text.to_owned(), own);
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(problem) => return problem.to_string(),
        };
        let mut all = Vec::new();
        loaded.look_at_services(&mut all);
        all.extend(loaded.authority().err());
        all.extend(loaded.prepare(&mut Vec::new()).err());
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        all.join("\n")
    }

    #[test]
    fn no_secret_is_shown_where_a_mistake_is() {
        let url = "\"http://u:SECRET-1@auth.example.org/?token=SECRET-2\"";
        for (text, place, words) in [
            // The value itself is wrong, or odd, in one line or several, of a listener, among others.
            (
                format!("[auth.http]\nurl = {url}"),
                "2:1",
                "no name and password",
            ),
            (
                format!("[auth.http]\nurl = {url} # SECRET-3"),
                "2:1",
                "url = ***\n",
            ),
            (
                format!("[auth.http]\ntopic_url = {url}"),
                "2:1",
                "topic_url = ***\n",
            ),
            (
                "[auth.http]\nurl = \"http://auth.example.org/?token=SECRET\"".into(),
                "2:1",
                "in the clear",
            ),
            (
                "[auth.http]\nurl = \"\"\"\nhttp://u:SECRET@x/\"\"\"".into(),
                "2:1",
                "no name and password",
            ),
            (
                format!(
                    "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.auth.http]\nurl = {url}"
                ),
                "4:1",
                "no name and password",
            ),
            (
                format!("[auth]\nhttp = {{ url = {url}, timeout = \"1s\" }}"),
                "2:10",
                "timeout = \"1s\"",
            ),
            (
                "[auth.http]\nurl = [\"SECRET\"]".into(),
                "2:7",
                "expected a string",
            ),
            // What is wrong stands beside it.
            (
                format!("[auth]\nhttp = {{ url = {url}, timout = \"1s\" }}"),
                "2:70",
                "did you mean `timeout`?",
            ),
            // It stands where a section should, or a key that is none of ours.
            (
                format!("[auth]\nhttp = {url}"),
                "2:8",
                "invalid type: string, expected",
            ),
            (
                "[auth]\nhttp = 1234567".into(),
                "2:8",
                "invalid type: integer, expected",
            ),
            (
                format!("listener = [{url}]"),
                "1:13",
                "invalid type: string, expected",
            ),
            (
                "[auth]\npassword = \"SECRET\"".into(),
                "2:1",
                "unknown key `password`",
            ),
            (
                "[auth.http]\nauthorization = \"Bearer SECRET\"".into(),
                "2:1",
                "unknown key `authorization`",
            ),
            (
                "[auth.http]\nheaders = { timeout = \"SECRET\" }".into(),
                "2:1",
                "unknown key `headers`",
            ),
            // It is no TOML.
            (
                "[auth.http]\nurl = \"http://u:SECRET@x/\n".into(),
                "broker.toml:2:",
                "url = ***",
            ),
            (
                "[auth.http]\nurl = http://u:SECRET@x/\n".into(),
                "broker.toml:2:",
                "url = ***",
            ),
            (
                "[auth.http]\nurl http://u:SECRET@x/\n".into(),
                "broker.toml:2:",
                "url***",
            ),
            (
                "[auth.http]\npassword = SECRET\n".into(),
                "broker.toml:2:",
                "***",
            ),
            (
                "[auth.http]\nurl = \"\"\"\nhttp://u:p@x/?SECRET=SECRET\n".into(),
                "broker.toml:",
                "error",
            ),
            (
                format!("[auth.http]\nurl = {url}\nurl = {url}\n"),
                "3:1",
                "url = ***",
            ),
        ] {
            let told = told(&text, &[]);
            for secret in ["SECRET", "1234567", "u:"] {
                assert!(!told.contains(secret), "{text}\n{told}");
            }
            assert!(told.contains(place), "{text}\n{told}");
            assert!(told.contains(words), "{text}\n{told}");
        }
    }

    /// What is no secret is quoted, in a text that is no TOML as well.
    #[test]
    fn other_values_are_shown() {
        for (text, words) in [
            ("[limits]\nmax_connections = \"many\"", "= \"many\""),
            ("[auth.http]\ntimeout = \"2 weeks\"", "= \"2 weeks\""),
            ("[limits]\nmax_connections = 1O00", "max_connections = 1O00"),
            (
                "[[listener]]\naddress = \"127.0.0.1:0",
                "address = \"127.0.0.1:0",
            ),
            ("[[listener]\n", "[[listener]\n"),
        ] {
            let told = told(text, &[]);
            assert!(told.contains(words), "{text}\n{told}");
        }
    }

    #[test]
    fn variables_are_not_shown_either() {
        let told = |name, value| told("", &[(name, value)]);
        for name in [
            "MQTT_BROKER__AUTH__HTTP",
            "MQTT_BROKER__AUTH__HTTP__URL",
            "MQTT_BROKER__AUTH__HTTP__PASSWORD",
            "MQTT_BROKER__LISTENER",
        ] {
            for value in ["http://u:SECRET@x/", "{ a = \"SECRET\" }"] {
                let told = told(name, value);
                assert!(told.contains("error") && !told.contains("SECRET"), "{told}");
            }
        }
        let told = told("MQTT_BROKER__LIMITS__MAX_CONNECTIONS", "many");
        assert!(told.contains("invalid type: string \"many\""), "{told}");
    }
}
