//! Statements whose behaviour can be broken, to see that the tests which name them notice.
//!
//! The sources are copied below the target folder and changed there by a list of replacements.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, de::Error};

use super::{
    claim::{Claim, Test},
    statement::Id,
    suite::{self, Outcome, Outcomes},
    tests,
};
use crate::{
    step::{Steps, Verdict},
    tidy::LEFT_OUT,
    workspace::{Metadata, cargo, root},
};

/// Every entry of the list in turn.
pub(super) const ALL: &str = "all";
/// The list, from the root of the workspace.
const LIST: &str = "xtask/conformance/breaks.json";
/// Statements that the list has at least.
const FEWEST: usize = 20;

/// A change of the sources after which a statement does not hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Break {
    #[serde(deserialize_with = "id")]
    id: Id,
    /// From the root of the workspace.
    file: PathBuf,
    /// Occurs exactly once.
    find: String,
    replace: String,
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
    let text = String::deserialize(deserializer)?;
    Id::parse(&text).ok_or_else(|| D::Error::custom(format!("{text} is no identifier")))
}

impl Break {
    /// The changed text of the file.
    fn apply(&self, text: &str) -> Result<String> {
        let count = text.matches(&self.find).count();
        ensure!(
            count == 1,
            "{}: the text to find occurs {count} times in {}",
            self.id,
            self.file.display()
        );
        let changed = text.replacen(&self.find, &self.replace, 1);
        ensure!(changed != text, "{}: nothing is replaced", self.id);
        Ok(changed)
    }
}

fn read(root: &Path) -> Result<Vec<Break>> {
    let text =
        fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    serde_json::from_str(&text).with_context(|| format!("cannot read {LIST}"))
}

/// What is wrong with the list, and the file it is about.
pub(crate) fn check(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let list = read(root)?;
    let mut found = Vec::new();
    for one in &list {
        let applied = fs::read_to_string(root.join(&one.file))
            .with_context(|| format!("{}: cannot read {}", one.id, one.file.display()))
            .and_then(|text| one.apply(&text));
        if let Err(error) = applied {
            found.push((PathBuf::from(LIST), format!("{error:#}")));
        }
    }
    let ids: BTreeSet<Id> = list.iter().map(|one| one.id).collect();
    if ids.len() < FEWEST {
        let what = format!("{} statements; at least {FEWEST} must be here", ids.len());
        found.push((PathBuf::from(LIST), what));
    }
    Ok(found)
}

/// Breaks the statement `which`, or all of the list, and runs the tests that name it.
pub(super) fn run(which: &str, claims: &[Claim]) -> Result<Verdict> {
    let mut list = read(root())?;
    if which != ALL {
        let wanted = Id::parse(which).with_context(|| format!("{which} is no identifier"))?;
        let known: Vec<String> = list.iter().map(|one| one.id.to_string()).collect();
        list.retain(|one| one.id == wanted);
        ensure!(
            !list.is_empty(),
            "{which} is not in {LIST}, which has {}",
            known.join(", ")
        );
    }
    let workshop = Workshop::prepare()?;
    let mut steps = Steps::default();
    for one in &list {
        let named = claims.iter().filter(|claim| claim.ids.contains(&one.id));
        let tests = tests(named);
        steps.run(&one.id.to_string(), || {
            ensure!(!tests.is_empty(), "no test names it");
            workshop.try_break(one, &tests)
        });
    }
    Ok(steps.summary())
}

/// A copy of the workspace in which things are broken.
struct Workshop {
    sources: PathBuf,
    /// Of its own, so that what is built of broken sources stays apart.
    target: PathBuf,
    /// The name of the package in each folder.
    packages: BTreeMap<PathBuf, String>,
}

impl Workshop {
    fn prepare() -> Result<Self> {
        let metadata = Metadata::read(&root().join("Cargo.toml"), false)?;
        let folder = metadata.target_directory.join("conformance");
        let name = |path: &Path| path.strip_prefix(root()).unwrap_or(path).to_path_buf();
        let workshop = Self {
            sources: folder.join("break"),
            target: folder.join("break-target"),
            packages: metadata
                .members()
                .map(|package| (name(package.folder()), package.name.clone()))
                .collect(),
        };
        copy(root(), &workshop.sources)?;
        Ok(workshop)
    }

    fn try_break(&self, one: &Break, tests: &BTreeSet<&Test>) -> Result<()> {
        let original = root().join(&one.file);
        let text = fs::read_to_string(&original)
            .with_context(|| format!("cannot read {}", original.display()))?;
        let copy = self.sources.join(&one.file);
        fs::write(&copy, one.apply(&text)?)?;
        let outcomes = self.outcomes(tests);
        fs::write(&copy, &text)?;
        let outcomes = outcomes?;
        let with = |wanted: Option<Outcome>| -> Vec<String> {
            let ended = tests
                .iter()
                .filter(|test| outcomes.get(**test).copied() == wanted);
            ended.map(|test| test.to_string()).collect()
        };
        let caught = with(Some(Outcome::Failed));
        if caught.is_empty() {
            let other = [with(Some(Outcome::Passed)), with(None)];
            bail!(
                "not caught; passed: [{}], did not end: [{}]",
                other[0].join(", "),
                other[1].join(", ")
            );
        }
        println!("  caught by {}", caught.join(", "));
        Ok(())
    }

    fn outcomes(&self, tests: &BTreeSet<&Test>) -> Result<Outcomes> {
        let mut outcomes = Outcomes::new();
        let folders: BTreeSet<&str> = tests.iter().map(|test| test.folder).collect();
        for folder in folders {
            let here: BTreeSet<&Test> = tests
                .iter()
                .copied()
                .filter(|test| test.folder == folder)
                .collect();
            let package = self
                .packages
                .get(Path::new(folder))
                .with_context(|| format!("no package in {folder}"))?;
            let mut command = cargo();
            command
                .current_dir(&self.sources)
                .env("CARGO_TARGET_DIR", &self.target)
                .env("CARGO_PROFILE_DEV_DEBUG", "0")
                .env("CARGO_INCREMENTAL", "1")
                .args(["test", "--locked", "--quiet", "--package", package]);
            let binaries: BTreeSet<Option<&str>> =
                here.iter().map(|test| test.binary.as_deref()).collect();
            for binary in binaries {
                match binary {
                    Some(name) => command.args(["--test", name]),
                    None => command.args(["--lib", "--bins"]),
                };
            }
            outcomes.extend(suite::run(&mut command, &here)?);
        }
        Ok(outcomes)
    }
}

/// Makes `to` a copy of the workspace `from`; files that are the same are left alone, so that cargo does not
/// build them again.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let wanted = names(from)?;
    for (name, _) in names(to)?
        .iter()
        .filter(|(name, _)| !wanted.contains_key(*name))
    {
        let path = to.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    for (name, is_folder) in wanted {
        let (from, to) = (from.join(&name), to.join(&name));
        if is_folder {
            copy(&from, &to)?;
            continue;
        }
        let bytes = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

/// What a folder holds, and whether it is a folder itself.
fn names(folder: &Path) -> Result<BTreeMap<PathBuf, bool>> {
    let mut names = BTreeMap::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        let left_out = LEFT_OUT.iter().any(|left_out| name == *left_out);
        if !left_out && (kind.is_dir() || kind.is_file()) {
            names.insert(PathBuf::from(name), kind.is_dir());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> serde_json::Result<Vec<Break>> {
        serde_json::from_str(text)
    }

    #[test]
    fn entries_are_read_and_applied() {
        let text = r#"[{"id":"MQTT3-3.1.2-3","file":"a.rs","find":"if a {","replace":"if !a {"}]"#;
        let list = list(text).unwrap();
        let one = &list[0];
        assert_eq!(one.apply("x\nif a {\n}\n").unwrap(), "x\nif !a {\n}\n");
        let error = |text| one.apply(text).unwrap_err().to_string();
        assert_eq!(
            error("if b {"),
            "MQTT3-3.1.2-3: the text to find occurs 0 times in a.rs"
        );
        assert_eq!(
            error("if a { if a {"),
            "MQTT3-3.1.2-3: the text to find occurs 2 times in a.rs"
        );
    }

    #[test]
    fn wrong_entries_are_refused() {
        for text in [
            r#"[{"id":"MQTT-3","file":"a","find":"a","replace":"b"}]"#,
            r#"[{"id":"MQTT-3.1.2-3","file":"a","find":"a"}]"#,
            r#"[{"id":"MQTT-3.1.2-3","file":"a","find":"a","replace":"b","x":1}]"#,
        ] {
            assert!(list(text).is_err(), "{text}");
        }
        let same = r#"[{"id":"MQTT-3.1.2-3","file":"a","find":"a","replace":"a"}]"#;
        assert!(list(same).unwrap()[0].apply("a").is_err());
    }

    #[test]
    fn the_copy_follows_the_original() {
        let folder = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        let write = |name: &str, text: &str| {
            let path = from.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/b.rs", "one");
        write("a/old/c.rs", "two");
        write("target/big", "three");
        copy(&from, &to).unwrap();
        assert!(!to.join("target").exists());
        let before = fs::metadata(to.join("a/b.rs")).unwrap().modified().unwrap();

        fs::remove_dir_all(from.join("a/old")).unwrap();
        write("a/d.rs", "four");
        fs::create_dir_all(to.join("target")).unwrap();
        copy(&from, &to).unwrap();
        assert!(!to.join("a/old").exists());
        assert!(to.join("target").exists());
        assert_eq!(fs::read_to_string(to.join("a/d.rs")).unwrap(), "four");
        let after = fs::metadata(to.join("a/b.rs")).unwrap().modified().unwrap();
        assert_eq!(before, after);
        fs::remove_dir_all(folder).unwrap();
    }
}
