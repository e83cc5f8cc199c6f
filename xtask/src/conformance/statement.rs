//! The normative statements of both standards, and the list of those that cannot be observed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};

/// The folder of the tables, from the root of the workspace.
const FOLDER: &str = "mqtt-broker/tests/conformance";
const UNOBSERVABLE: &str = "unobservable.tsv";

/// The standard that a statement belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standard {
    V5,
    V3,
}

impl Standard {
    pub(super) const ALL: [Self; 2] = [Self::V5, Self::V3];

    /// How its statements begin where tests name them.
    const fn prefix(self) -> &'static str {
        match self {
            Self::V5 => "MQTT-",
            Self::V3 => "MQTT3-",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::V5 => "mqtt5-normative.tsv",
            Self::V3 => "mqtt311-normative.tsv",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V5 => "MQTT 5.0",
            Self::V3 => "MQTT 3.1.1",
        }
    }
}

/// A statement as tests name it: `MQTT-3.1.2-1` is of 5.0, `MQTT3-3.1.2-1` of 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    standard: Standard,
    section: [u16; 3],
    number: u16,
}

impl Id {
    /// Reads an identifier, which must be the whole text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (standard, rest) = Standard::ALL
            .into_iter()
            .find_map(|standard| Some((standard, text.strip_prefix(standard.prefix())?)))?;
        let (section, number) = rest.split_once('-')?;
        let mut parts = section.split('.').map(number_of);
        let section = [parts.next()??, parts.next()??, parts.next()??];
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            standard,
            section,
            number: number_of(number)?,
        })
    }

    /// Every identifier that stands in brackets in a text.
    pub(super) fn all_in(text: &str) -> impl Iterator<Item = Self> {
        text.split('[')
            .skip(1)
            .filter_map(|rest| Self::parse(rest.split_once(']')?.0))
    }

    pub(super) fn standard(self) -> Standard {
        self.standard
    }
}

/// A number without sign and without a zero in front of it.
fn number_of(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if plain && !padded {
        text.parse().ok()
    } else {
        None
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [chapter, section, subsection] = self.section;
        let prefix = self.standard.prefix();
        let number = self.number;
        // Padded as a whole, so that columns line up.
        f.pad(&format!(
            "{prefix}{chapter}.{section}.{subsection}-{number}"
        ))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binds {
    Client,
    Server,
    Both,
}

impl Binds {
    pub(super) fn server(self) -> bool {
        self != Self::Client
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) binds: Binds,
    pub(super) text: String,
}

/// All statements, and the reasons why some cannot be observed.
#[derive(Debug, Default)]
pub(super) struct Statements {
    pub(super) all: BTreeMap<Id, Statement>,
    pub(super) unobservable: BTreeMap<Id, String>,
}

impl Statements {
    /// Reads the copies of the tables in the repository.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut statements = Self::default();
        for standard in Standard::ALL {
            let (path, text) = table(root, standard.file())?;
            statements.add(standard, &text).context(path)?;
        }
        let (path, text) = table(root, UNOBSERVABLE)?;
        statements.add_unobservable(&text).context(path)?;
        Ok(statements)
    }

    /// Adds a table of `id`, whom it binds, and the statement.
    fn add(&mut self, standard: Standard, text: &str) -> Result<()> {
        for (line, row) in rows(text) {
            let &[id, binds, text] = row.as_slice() else {
                bail!("line {line}: not three columns");
            };
            // The standards themselves call all their statements MQTT-.
            let id = id
                .strip_prefix(Standard::V5.prefix())
                .and_then(|rest| Id::parse(&format!("{}{rest}", standard.prefix())))
                .with_context(|| format!("line {line}: {id} is no identifier"))?;
            let binds = match binds {
                "client" => Binds::Client,
                "server" => Binds::Server,
                "both" => Binds::Both,
                other => bail!("line {line}: binds {other}"),
            };
            let statement = Statement {
                binds,
                text: text.to_owned(),
            };
            let before = self.all.insert(id, statement);
            ensure!(before.is_none(), "line {line}: {id} for the second time");
        }
        Ok(())
    }

    /// Adds a table of `id` and reason.
    fn add_unobservable(&mut self, text: &str) -> Result<()> {
        for (line, row) in rows(text) {
            let &[id, reason] = row.as_slice() else {
                bail!("line {line}: not two columns");
            };
            ensure!(!reason.is_empty(), "line {line}: no reason");
            let id = Id::parse(id)
                .filter(|id| self.all.contains_key(id))
                .with_context(|| format!("line {line}: there is no statement {id}"))?;
            let before = self.unobservable.insert(id, reason.to_owned());
            ensure!(before.is_none(), "line {line}: {id} for the second time");
        }
        Ok(())
    }

    /// Identifiers that are named and do not exist.
    pub(super) fn unknown(&self, named: &BTreeSet<Id>) -> Vec<Id> {
        let known = |id: &&Id| !self.all.contains_key(id);
        named.iter().filter(known).copied().collect()
    }
}

fn table(root: &Path, name: &str) -> Result<(String, String)> {
    let path = format!("{FOLDER}/{name}");
    let text =
        fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
    Ok((path, text))
}

/// The rows of a table with the number of their line, without comments.
fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| (index + 1, line.split('\t').collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read_and_written() {
        for text in ["MQTT-3.1.2-1", "MQTT3-4.7.3-4", "MQTT-1.5.4-10"] {
            assert_eq!(Id::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "MQTT-3.1-1",
            "MQTT-3.1.2",
            "MQTT-3.1.2.1-1",
            "MQTT4-3.1.2-1",
            "MQTT-3.1.2-01",
            "MQTT-3.1.2-+1",
            "MQTT-3.1.2-1 ",
            "MQTT-3..2-1",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }

    #[test]
    fn identifiers_are_found_in_brackets() {
        let text = "[MQTT-3.1.2-1] and MQTT-3.1.2-2, [MQTT3-3.1.2-3]: `[x]` [MQTT-3.1.2-9";
        let found: Vec<String> = Id::all_in(text).map(|id| id.to_string()).collect();
        assert_eq!(found, ["MQTT-3.1.2-1", "MQTT3-3.1.2-3"]);
    }

    #[test]
    fn identifiers_are_in_the_order_of_the_standard() {
        let id = |text| Id::parse(text).unwrap();
        assert!(id("MQTT-3.2.2-9") < id("MQTT-3.2.2-10"));
        assert!(id("MQTT-3.9.3-1") < id("MQTT-3.10.4-1"));
        assert!(id("MQTT-7.1.1-1") < id("MQTT3-1.5.3-1"));
    }

    const TABLE: &str =
        "# id\tbinds\tstatement\nMQTT-3.1.2-1\tserver\tA.\nMQTT-3.1.2-2\tclient\tB.\n";

    #[test]
    fn tables_are_read() {
        let mut statements = Statements::default();
        statements.add(Standard::V3, TABLE).unwrap();
        statements.add(Standard::V5, TABLE).unwrap();
        assert_eq!(statements.all.len(), 4);
        statements
            .add_unobservable("# id\treason\nMQTT3-3.1.2-1\tno socket\n")
            .unwrap();
        let (id, reason) = statements.unobservable.first_key_value().unwrap();
        assert_eq!(
            (id.standard(), reason.as_str()),
            (Standard::V3, "no socket")
        );
        let named = ["MQTT-3.1.2-2", "MQTT-3.1.2-3"].map(|text| Id::parse(text).unwrap());
        assert_eq!(statements.unknown(&BTreeSet::from(named)), [named[1]]);
    }

    #[test]
    fn errors_in_tables_name_the_line() {
        let add = |text| Statements::default().add(Standard::V5, text).unwrap_err();
        assert_eq!(add("a\tb\n").to_string(), "line 1: not three columns");
        assert_eq!(
            add("\nMQTT3-3.1.2-1\tserver\tA.\n").to_string(),
            "line 2: MQTT3-3.1.2-1 is no identifier"
        );
        assert_eq!(
            add("MQTT-3.1.2-1\tnobody\tA.\n").to_string(),
            "line 1: binds nobody"
        );
        let twice = format!("{TABLE}MQTT-3.1.2-1\tserver\tA.\n");
        assert_eq!(
            add(&twice).to_string(),
            "line 4: MQTT-3.1.2-1 for the second time"
        );

        let mut statements = Statements::default();
        statements.add(Standard::V5, TABLE).unwrap();
        let mut add = |text| statements.add_unobservable(text).unwrap_err().to_string();
        assert_eq!(add("MQTT-3.1.2-1\t\n"), "line 1: no reason");
        assert_eq!(
            add("MQTT3-3.1.2-1\tx\n"),
            "line 1: there is no statement MQTT3-3.1.2-1"
        );
    }
}
