//! Tests that name a statement in their doc comment, found in the sources.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};

use super::statement::Id;
use crate::tidy::{
    rust_files,
    source::{Source, braces},
};

/// The crates whose tests count, by the folder of each.
const FOLDERS: [&str; 3] = ["mqtt-codec", "mqtt-session", "mqtt-broker"];
/// What may stand before `fn` and `mod`.
const QUALIFIERS: [&str; 6] = [
    "pub",
    "pub(crate)",
    "pub(super)",
    "async",
    "const",
    "unsafe",
];

/// A test as its binary calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    /// The folder of its crate.
    pub(super) folder: &'static str,
    /// The integration test it is compiled into; `None` is the crate itself.
    pub(super) binary: Option<String>,
    /// Its modules and name.
    pub(super) path: String,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crate_name = self.folder.trim_start_matches("mqtt-");
        write!(f, "{crate_name}::{}", self.path)
    }
}

/// A test and the statements it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) test: Test,
    pub(super) ids: Vec<Id>,
    /// It has the attribute `ignore`.
    pub(super) ignored: bool,
}

/// All claims of the workspace, in the order of its files.
pub(super) fn read(root: &Path) -> Result<Vec<Claim>> {
    let mut found = Vec::new();
    for file in rust_files(root)? {
        if let Some(place) = Place::of(&file) {
            let text = fs::read_to_string(root.join(&file))
                .with_context(|| format!("cannot read {}", file.display()))?;
            found.extend(claims(&place, &text));
        }
    }
    Ok(found)
}

/// Where the tests of a file are in their binary.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    folder: &'static str,
    binary: Option<String>,
    modules: Vec<String>,
}

impl Place {
    fn of(file: &Path) -> Option<Self> {
        let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
        let (&folder, rest) = parts.split_first()?;
        let (&kind, rest) = rest.split_first()?;
        let (last, folders) = rest.split_last()?;
        let stem = last.strip_suffix(".rs")?;
        let folder = FOLDERS.into_iter().find(|known| *known == folder)?;
        let mut modules: Vec<String> = folders.iter().map(|&part| part.to_owned()).collect();
        if !matches!(stem, "lib" | "main" | "mod") {
            modules.push(stem.to_owned());
        }
        let binary = match kind {
            "src" => None,
            "tests" if modules.is_empty() => return None,
            "tests" => Some(modules.remove(0)),
            _ => return None,
        };
        Some(Self {
            folder,
            binary,
            modules,
        })
    }
}

/// The claims in the text of one file.
fn claims(place: &Place, text: &str) -> Vec<Claim> {
    let mut found = Vec::new();
    // Modules with the depth of braces they stand at.
    let mut modules: Vec<(&str, i32)> = Vec::new();
    let mut depth = 0;
    let mut before = Before::default();
    let source = Source::parse(text, false);
    for (raw, line) in text.lines().zip(&source.lines) {
        let code = line.code.trim();
        if code.is_empty() || before.takes(code) {
            if raw.trim_start().starts_with("///") {
                before.docs.push_str(&line.comment);
            }
            continue;
        }
        let before = std::mem::take(&mut before);
        if let Some(name) = item(code, "mod").filter(|_| code.ends_with('{')) {
            modules.push((name, depth));
        } else if let Some(name) = item(code, "fn").filter(|_| before.is_test()) {
            let outer = place.modules.iter().map(String::as_str);
            let inner = modules.iter().map(|(module, _)| *module);
            let path: Vec<&str> = outer.chain(inner).chain([name]).collect();
            let claim = Claim {
                test: Test {
                    folder: place.folder,
                    binary: place.binary.clone(),
                    path: path.join("::"),
                },
                ids: Id::all_in(&before.docs).collect(),
                ignored: before.has("ignore"),
            };
            if !claim.ids.is_empty() {
                found.push(claim);
            }
        }
        depth += braces(code);
        while modules.last().is_some_and(|(_, outside)| depth <= *outside) {
            modules.pop();
        }
    }
    found
}

/// The doc comment and the attributes before an item.
#[derive(Debug, Default)]
struct Before {
    docs: String,
    attributes: String,
}

impl Before {
    /// Takes a line of an attribute, which may have several.
    fn takes(&mut self, code: &str) -> bool {
        let count = |bracket| self.attributes.matches(bracket).count();
        let takes = code.starts_with("#[") || count('[') > count(']');
        if takes {
            self.attributes.push_str(code);
        }
        takes
    }

    fn is_test(&self) -> bool {
        let marks = ["#[test]", "::test]", "::test("];
        marks.iter().any(|mark| self.attributes.contains(mark))
    }

    fn has(&self, name: &str) -> bool {
        self.attributes
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == name)
    }
}

/// The name of an item of this kind that a line begins.
fn item<'a>(code: &'a str, kind: &str) -> Option<&'a str> {
    let mut words = code.split_whitespace();
    let first = words.find(|word| !QUALIFIERS.contains(word))?;
    let name = words.next().filter(|_| first == kind)?;
    let end = name
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(name.len());
    Some(&name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<String> {
        let place = Place::of(Path::new(file)).unwrap();
        claims(&place, text)
            .into_iter()
            .map(|claim| {
                let ids: Vec<String> = claim.ids.iter().map(Id::to_string).collect();
                let ignored = if claim.ignored { " ignored" } else { "" };
                format!("{} {}{ignored}", claim.test, ids.join(" "))
            })
            .collect()
    }

    #[test]
    fn files_have_their_place() {
        let place = |file: &str| {
            let place = Place::of(Path::new(file))?;
            let binary = place.binary.unwrap_or_default();
            Some(format!(
                "{} {binary} {}",
                place.folder,
                place.modules.join("::")
            ))
        };
        let known = |file, wanted: &str| assert_eq!(place(file).as_deref(), Some(wanted));
        known("mqtt-codec/src/lib.rs", "mqtt-codec  ");
        known("mqtt-codec/src/packet/mod.rs", "mqtt-codec  packet");
        known("mqtt-codec/src/packet/ack.rs", "mqtt-codec  packet::ack");
        known("mqtt-broker/tests/broker/main.rs", "mqtt-broker broker ");
        known("mqtt-broker/tests/broker/a.rs", "mqtt-broker broker a");
        known("mqtt-broker/tests/broker/a/b.rs", "mqtt-broker broker a::b");
        known("mqtt-session/tests/other.rs", "mqtt-session other ");
        for file in [
            "mqtt-client/src/lib.rs",
            "mqtt-codec/benches/a.rs",
            "mqtt-codec/b.rs",
        ] {
            assert_eq!(place(file), None, "{file}");
        }
    }

    #[test]
    fn tests_name_statements() {
        let text = "//! [MQTT-1.1.1-1]
/// [MQTT-3.1.2-1] [MQTT3-3.1.2-2]: what
/// it is about.
#[tokio::test(start_paused = true)]
async fn one() {
    // [MQTT-1.1.1-2]
}

/// [MQTT-1.1.1-3]
fn no_test() {}

#[test]
fn without() {}

/// [MQTT-3.1.2-3]
#[test]
#[ignore = \"no reason\"]
fn three() {}

/// [MQTT-3.1.2-4]
#[cfg_attr(
    miri,
    no_reason
)]
#[test]
fn four() {}
";
        assert_eq!(
            found("mqtt-broker/tests/broker/a.rs", text),
            [
                "broker::a::one MQTT-3.1.2-1 MQTT3-3.1.2-2",
                "broker::a::three MQTT-3.1.2-3 ignored",
                "broker::a::four MQTT-3.1.2-4",
            ]
        );
    }

    #[test]
    fn modules_are_part_of_the_name() {
        let text = "/// [MQTT-1.1.1-1]
pub(crate) fn product() {
    if let Some(x) = y {}
}

#[cfg(test)]
mod tests {
    mod inner {
        /// [MQTT-3.1.2-1]
        #[test]
        fn one() {
            let brace = '{';
        }
    }

    proptest! {
        /// [MQTT-3.1.2-2]
        #[test]
        fn two(value in any::<u8>()) {}
    }
}

/// [MQTT-3.1.2-3]
#[test]
fn three() {}
";
        assert_eq!(
            found("mqtt-codec/src/packet/ack.rs", text),
            [
                "codec::packet::ack::tests::inner::one MQTT-3.1.2-1",
                "codec::packet::ack::tests::two MQTT-3.1.2-2",
                "codec::packet::ack::three MQTT-3.1.2-3",
            ]
        );
    }
}
