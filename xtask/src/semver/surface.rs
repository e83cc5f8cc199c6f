//! What a library shows to its users, read from the JSON of rustdoc, and how two such surfaces differ.
//!
//! An entry is the path of something public with a text that is the same as long as it means the same: without places
//! in the source, documentation and the numbers that rustdoc gives, with full paths, without the names of arguments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// Keys whose values are numbers of other items, which are entries of their own, or say nothing to users.
const LEFT_OUT: [&str; 7] = [
    "id",
    "impls",
    "items",
    "variants",
    "fields",
    "has_body",
    "implementations",
];

/// The public interface of a library.
#[derive(Debug, Default)]
pub(super) struct Surface {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    meaning: String,
    /// What it belongs to, if users break where that gets one more of these.
    closed: Option<String>,
}

/// Something that is not as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    Removed(String),
    Changed(String),
    Added { path: String, breaks: bool },
}

impl Difference {
    /// Whether a program that was compiled with the old interface may not be with the new one.
    pub(super) fn breaks(&self) -> bool {
        match self {
            Self::Removed(_) | Self::Changed(_) => true,
            Self::Added { breaks, .. } => *breaks,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed(path) => write!(f, "removed: {path}"),
            Self::Changed(path) => write!(f, "changed: {path}"),
            Self::Added { path, breaks: true } => {
                write!(f, "added where users match or fill: {path}")
            }
            Self::Added { path, .. } => write!(f, "added: {path}"),
        }
    }
}

impl Surface {
    /// Reads what rustdoc has written.
    pub(super) fn read(document: &Value) -> Result<Self> {
        let index = document["index"].as_object().context("there is no index")?;
        let root = document["root"].as_u64().context("there is no root")?;
        let mut reader = Reader {
            index,
            paths: &document["paths"],
            surface: Self::default(),
            seen: BTreeSet::new(),
        };
        let name = index
            .get(&root.to_string())
            .and_then(|item| item["name"].as_str())
            .context("the root has no name")?;
        reader.item(name.to_owned(), root, None);
        Ok(reader.surface)
    }

    /// What has changed from this one to a later one.
    pub(super) fn until(&self, later: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        for (path, entry) in &self.entries {
            match later.entries.get(path) {
                None if later.lacks_owner(self, path) => {}
                None => found.push(Difference::Removed(path.clone())),
                Some(new) if new.meaning != entry.meaning => {
                    found.push(Difference::Changed(path.clone()));
                }
                Some(_) => {}
            }
        }
        for (path, entry) in &later.entries {
            if !self.entries.contains_key(path) && !self.lacks_owner(later, path) {
                let owner = entry.closed.as_ref();
                let breaks = owner.is_some_and(|owner| self.entries.contains_key(owner));
                let path = path.clone();
                found.push(Difference::Added { path, breaks });
            }
        }
        found
    }

    /// Whether what something belongs to in `other` is not here either: that is said, and this need not be.
    fn lacks_owner(&self, other: &Self, path: &str) -> bool {
        let ends = path.match_indices(':').map(|(end, _)| path.get(..end));
        ends.flatten()
            .any(|owner| other.entries.contains_key(owner) && !self.entries.contains_key(owner))
    }
}

struct Reader<'a> {
    index: &'a Map<String, Value>,
    paths: &'a Value,
    surface: Surface,
    seen: BTreeSet<(String, u64)>,
}

impl Reader<'_> {
    /// Enters an item at a path, and all that is below it.
    fn item(&mut self, path: String, id: u64, closed: Option<String>) {
        if !self.seen.insert((path.clone(), id)) {
            return;
        }
        let Some(item) = self.index.get(&id.to_string()) else {
            return;
        };
        let Some((kind, inner)) = item["inner"]
            .as_object()
            .and_then(|inner| inner.iter().next())
        else {
            return;
        };
        let attributes = item["attrs"].to_string();
        let is_open = attributes.contains("non_exhaustive");
        match kind.as_str() {
            "module" => {
                self.below(&path, &inner["items"], None);
                return;
            }
            "use" => {
                self.reexport(&path, inner);
                return;
            }
            _ => {}
        }
        let mut meaning = format!("{kind} {}", self.meaning(inner));
        if is_open {
            meaning.push_str(" non_exhaustive");
        }
        let entry = Entry { meaning, closed };
        self.surface.entries.insert(path.clone(), entry);
        let owner = (!is_open).then(|| path.clone());
        match kind.as_str() {
            "struct" => {
                let (fields, is_whole) = fields(&inner["kind"]);
                let owner = owner.filter(|_| is_whole);
                self.below(&path, &fields, owner.as_deref());
            }
            "union" => self.below(&path, &inner["fields"], None),
            "enum" => self.below(&path, &inner["variants"], owner.as_deref()),
            "variant" => {
                let (fields, _) = fields(&inner["kind"]);
                self.below(&path, &fields, owner.as_deref());
            }
            "trait" => {
                for id in numbers(&inner["items"]) {
                    let item = self.index.get(&id.to_string());
                    let is_given = item.is_some_and(has_default);
                    let owner = (!is_given).then(|| path.clone());
                    self.named(&path, id, owner);
                }
            }
            _ => {}
        }
        for id in numbers(&inner["impls"]) {
            self.implementation(&path, id);
        }
    }

    fn below(&mut self, path: &str, ids: &Value, owner: Option<&str>) {
        for id in numbers(ids) {
            self.named(path, id, owner.map(str::to_owned));
        }
    }

    /// An item that stands at a path under its own name.
    fn named(&mut self, path: &str, id: u64, closed: Option<String>) {
        let Some(item) = self.index.get(&id.to_string()) else {
            return;
        };
        let used = item["inner"]["use"].as_object();
        let name = match used {
            Some(used) if used["is_glob"] == true => None,
            Some(used) => used["name"].as_str(),
            None => item["name"].as_str(),
        };
        let path = match name {
            Some(name) => format!("{path}::{name}"),
            None => path.to_owned(),
        };
        self.item(path, id, closed);
    }

    fn reexport(&mut self, path: &str, used: &Value) {
        let target = used["id"].as_u64();
        let known = target.filter(|id| self.index.contains_key(&id.to_string()));
        match known {
            Some(id) => self.item(path.to_owned(), id, None),
            None => {
                // Of another crate, whose interface is not this one's.
                let source = used["source"].as_str().unwrap_or_default();
                let entry = Entry {
                    meaning: format!("use {source}"),
                    closed: None,
                };
                self.surface.entries.insert(path.to_owned(), entry);
            }
        }
    }

    fn implementation(&mut self, path: &str, id: u64) {
        let Some(item) = self.index.get(&id.to_string()) else {
            return;
        };
        let block = &item["inner"]["impl"];
        if !block["blanket_impl"].is_null() || block["is_negative"] == true {
            return;
        }
        if block["trait"].is_null() {
            self.below(path, &block["items"], None);
            return;
        }
        let named = self.reduced(&block["trait"]);
        let mut name = named["path"].as_str().unwrap_or_default().to_owned();
        if !named["args"].is_null() {
            name.push_str(&format!(" {}", named["args"]));
        }
        // These are for the compiler alone.
        let is_internal = ["Structural", "Freeze", "UnsafeUnpin"]
            .iter()
            .any(|internal| name.contains(internal));
        if !is_internal {
            let entry = Entry {
                meaning: String::new(),
                closed: None,
            };
            let path = format!("{path}: {name}");
            self.surface.entries.insert(path, entry);
        }
    }

    /// A text that is the same for what means the same.
    fn meaning(&self, value: &Value) -> String {
        self.reduced(value).to_string()
    }

    fn reduced(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut reduced = Map::new();
                for (key, value) in map {
                    let value = match key.as_str() {
                        "path" => self.full_path(map).unwrap_or_else(|| value.clone()),
                        // A tuple has the numbers of its fields, a function the names of its arguments.
                        "tuple"
                            if value
                                .as_array()
                                .is_some_and(|all| all.iter().all(is_number)) =>
                        {
                            Value::from(value.as_array().map_or(0, Vec::len))
                        }
                        "inputs" => arguments(value),
                        key if LEFT_OUT.contains(&key) => continue,
                        _ => value.clone(),
                    };
                    reduced.insert(key.clone(), self.reduced(&value));
                }
                Value::Object(reduced)
            }
            Value::Array(all) => all.iter().map(|value| self.reduced(value)).collect(),
            other => other.clone(),
        }
    }

    /// How the item is called whatever the source has imported.
    fn full_path(&self, map: &Map<String, Value>) -> Option<Value> {
        let id = map.get("id")?.as_u64()?.to_string();
        let parts = self.paths.get(&id)?.get("path")?.as_array()?;
        let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
        Some(parts.join("::").into())
    }
}

fn is_number(value: &Value) -> bool {
    value.is_u64() || value.is_null()
}

fn numbers(value: &Value) -> Vec<u64> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_u64).collect()
}

/// The types of arguments without their names.
fn arguments(inputs: &Value) -> Value {
    let all = inputs.as_array().into_iter().flatten();
    all.map(|input| input[1].clone()).collect()
}

/// The fields of a struct or a variant, and whether all of them are public.
fn fields(kind: &Value) -> (Value, bool) {
    if let Some(all) = kind.get("tuple") {
        let is_whole = all
            .as_array()
            .is_some_and(|all| !all.iter().any(Value::is_null));
        return (all.clone(), is_whole);
    }
    let named = kind.get("plain").or_else(|| kind.get("struct"));
    match named {
        Some(named) => (
            named["fields"].clone(),
            named["has_stripped_fields"] == false,
        ),
        None => (Value::Null, true),
    }
}

/// Whether an item of a trait need not be given by who implements it.
fn has_default(item: &Value) -> bool {
    let inner = &item["inner"];
    inner["function"]["has_body"] == true
        || !inner["assoc_const"]["value"].is_null()
        || !inner["assoc_type"]["type"].is_null()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A library `a` with these items in its root, numbered from 1.
    fn surface(items: &[Value]) -> Surface {
        let mut index = Map::new();
        let mut in_root = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let id = place + 1;
            if item["visibility"] == "public" {
                in_root.push(id);
            }
            index.insert(id.to_string(), item.clone());
        }
        let root = json!({"name": "a", "attrs": [], "inner": {"module": {"items": in_root}}});
        index.insert("0".to_owned(), root);
        Surface::read(&json!({"root": 0, "index": index, "paths": {}})).unwrap()
    }

    fn function(name: &str, argument: &str, kind: &str) -> Value {
        json!({"name": name, "visibility": "public", "attrs": [], "inner": {"function": {
            "sig": {"inputs": [[argument, {"primitive": kind}]], "output": null}, "has_body": true}}})
    }

    fn differences(old: &[Value], new: &[Value]) -> Vec<String> {
        let found = surface(old).until(&surface(new));
        found
            .iter()
            .map(|one| format!("{} {one}", one.breaks()))
            .collect()
    }

    #[test]
    fn what_is_removed_or_changed_breaks() {
        let old = [function("f", "x", "u8"), function("g", "x", "u8")];
        assert!(differences(&old, &old).is_empty());
        let renamed = [function("f", "y", "u8"), function("g", "x", "u8")];
        assert!(differences(&old, &renamed).is_empty());
        let changed = [function("f", "x", "u16"), function("h", "x", "u8")];
        assert_eq!(
            differences(&old, &changed),
            [
                "true changed: a::f",
                "true removed: a::g",
                "false added: a::h"
            ]
        );
    }

    #[test]
    fn one_more_variant_breaks_unless_users_were_told() {
        let variant = |name: &str| {
            json!({"name": name, "visibility": "default", "attrs": [],
                "inner": {"variant": {"kind": "plain", "discriminant": null}}})
        };
        let list = |attributes: &[&str], variants: &[u64]| {
            json!({"name": "E", "visibility": "public", "attrs": attributes,
                "inner": {"enum": {"variants": variants, "impls": []}}})
        };
        let all = |attributes: &[&str], variants: &[u64]| {
            [list(attributes, variants), variant("A"), variant("B")]
        };
        assert_eq!(
            differences(&all(&[], &[2]), &all(&[], &[2, 3])),
            ["true added where users match or fill: a::E::B"]
        );
        let open = ["non_exhaustive"];
        assert_eq!(
            differences(&all(&open, &[2]), &all(&open, &[2, 3])),
            ["false added: a::E::B"]
        );
    }

    #[test]
    fn a_field_breaks_who_fills_them_all() {
        let field = |name: &str| {
            json!({"name": name, "visibility": "default", "attrs": [],
                "inner": {"struct_field": {"primitive": "u8"}}})
        };
        let all = |fields: &[u64], is_stripped: bool| {
            let owner = json!({"name": "S", "visibility": "public", "attrs": [], "inner": {"struct": {
                "kind": {"plain": {"fields": fields, "has_stripped_fields": is_stripped}}, "impls": []}}});
            [owner, field("x"), field("y")]
        };
        assert_eq!(
            differences(&all(&[2], false), &all(&[2, 3], false)),
            ["true added where users match or fill: a::S::y"]
        );
        assert_eq!(
            differences(&all(&[2], true), &all(&[2, 3], true)),
            ["false added: a::S::y"]
        );
    }
}
