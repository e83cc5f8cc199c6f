//! Which crate may know which: the layers of the workspace, from `cargo metadata`.

use std::{collections::HashSet, path::Path};

use super::{Violation, relative};
use crate::workspace::{Metadata, Package};

const CODEC: &str = "ternmq-codec";
const ROUTER: &str = "ternmq-router";
const SESSION: &str = "ternmq-session";
const BROKER: &str = "ternmq-broker";
const CLIENT: &str = "ternmq-client";
const XTASK: &str = "xtask";
/// Every crate of the project that something could depend on.
const OURS: [&str; 6] = [CODEC, ROUTER, SESSION, BROKER, CLIENT, XTASK];

/// What one crate may depend on.
struct Layer {
    package: &'static str,
    may_use: &'static [&'static str],
    may_use_in_tests: &'static [&'static str],
    asynchronous: bool,
}

const LAYERS: [Layer; 6] = [
    Layer {
        package: CODEC,
        may_use: &[],
        may_use_in_tests: &[],
        asynchronous: false,
    },
    Layer {
        package: ROUTER,
        may_use: &[CODEC],
        may_use_in_tests: &[CODEC],
        asynchronous: false,
    },
    Layer {
        package: SESSION,
        may_use: &[CODEC],
        may_use_in_tests: &[CODEC],
        asynchronous: false,
    },
    Layer {
        package: BROKER,
        may_use: &[CODEC, ROUTER, SESSION],
        may_use_in_tests: &[CODEC, ROUTER, SESSION],
        asynchronous: true,
    },
    Layer {
        package: CLIENT,
        may_use: &[CODEC, SESSION, ROUTER],
        may_use_in_tests: &[CODEC, SESSION, ROUTER, BROKER],
        asynchronous: true,
    },
    Layer {
        package: XTASK,
        may_use: &[],
        may_use_in_tests: &[],
        asynchronous: false,
    },
];

/// The fuzz targets may look into every layer; the broker runs on in-memory streams there.
const FUZZ: Layer = Layer {
    package: "fuzz",
    may_use: &[CODEC, ROUTER, SESSION, BROKER],
    may_use_in_tests: &[],
    asynchronous: true,
};

/// Checks every member of the workspace that `metadata` describes.
pub(super) fn check(root: &Path, metadata: &Metadata) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in metadata.members() {
        let mut report = |what: String| {
            found.push(Violation {
                file: relative(root, &package.manifest_path),
                line: 1,
                rule: "layers",
                what,
            });
        };
        let Some(layer) = layer_of(root, package) else {
            report(format!("{} is not a crate of the design", package.name));
            continue;
        };
        for what in declared(package, layer) {
            report(what);
        }
        if !layer.asynchronous
            && let Some(path) = path_to_tokio(metadata, package)
        {
            report(format!("tokio is reached through {path}"));
        }
    }
    found
}

fn layer_of(root: &Path, package: &Package) -> Option<&'static Layer> {
    if package.folder() == root.join("fuzz") {
        return Some(&FUZZ);
    }
    LAYERS.iter().find(|layer| layer.package == package.name)
}

fn declared(package: &Package, layer: &Layer) -> Vec<String> {
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let tests_only = dependency.kind.as_deref() == Some("dev");
        let allowed = if tests_only {
            layer.may_use_in_tests
        } else {
            layer.may_use
        };
        if OURS.contains(&name) && !allowed.contains(&name) {
            let kind = dependency.kind.as_deref().unwrap_or("normal");
            found.push(format!("{} must not know {name} ({kind})", package.name));
        }
        let is_tokio = name == "tokio" || name.starts_with("tokio-");
        // The one door: the codec's optional Decoder for tokio-util.
        let door = package.name == CODEC && name == "tokio-util" && dependency.optional;
        if is_tokio && !layer.asynchronous && !door {
            found.push(format!("{} must not use {name}", package.name));
        }
    }
    found
}

/// The direct dependency, of any kind, through which a crate reaches tokio in the resolved graph.
fn path_to_tokio<'a>(metadata: &'a Metadata, package: &Package) -> Option<&'a str> {
    let resolve = metadata.resolve.as_ref()?;
    let node_of = |id: &str| resolve.nodes.iter().find(|node| node.id == id);
    let package_of = |id: &str| metadata.packages.iter().find(|package| package.id == id);
    let first = node_of(&package.id)?;
    first.deps.iter().find_map(|dependency| {
        let mut seen = HashSet::new();
        let mut waiting = vec![dependency.pkg.as_str()];
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            if package_of(id).is_some_and(|package| package.name == "tokio") {
                return package_of(&dependency.pkg).map(|package| package.name.as_str());
            }
            let normal = node_of(id)
                .into_iter()
                .flat_map(|node| &node.deps)
                .filter(|next| next.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            waiting.extend(normal.map(|next| next.pkg.as_str()));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A workspace of one crate with `dependencies`, each as (name, kind, optional).
    fn found(name: &str, dependencies: &[(&str, Option<&str>, bool)]) -> Vec<String> {
        let dependencies: Vec<_> = dependencies
            .iter()
            .map(|(name, kind, optional)| json!({"name": name, "kind": kind, "optional": optional}))
            .collect();
        let metadata = json!({
            "packages": [{
                "id": name, "name": name, "manifest_path": "/root/some/Cargo.toml",
                "rust_version": null, "dependencies": dependencies, "targets": [],
            }],
            "workspace_members": [name], "resolve": null, "target_directory": "/target",
        });
        let metadata: Metadata = serde_json::from_value(metadata).unwrap();
        check(Path::new("/root"), &metadata)
            .into_iter()
            .map(|violation| violation.to_string())
            .collect()
    }

    #[test]
    fn the_arrows_of_the_design_are_allowed() {
        assert!(found(ROUTER, &[(CODEC, None, false)]).is_empty());
        assert!(
            found(
                CLIENT,
                &[(SESSION, None, false), (BROKER, Some("dev"), false)]
            )
            .is_empty()
        );
        assert!(found(CLIENT, &[("tokio", None, false)]).is_empty());
        assert!(found(CODEC, &[("tokio-util", None, true)]).is_empty());
    }

    #[test]
    fn other_arrows_are_not() {
        assert_eq!(
            found(ROUTER, &[(SESSION, None, false)]),
            ["some/Cargo.toml:1: layers: ternmq-router must not know ternmq-session (normal)"]
        );
        assert_eq!(found(CLIENT, &[(BROKER, None, false)]).len(), 1);
        assert_eq!(found(BROKER, &[(CLIENT, Some("dev"), false)]).len(), 1);
        assert_eq!(found(CODEC, &[(CLIENT, Some("dev"), false)]).len(), 1);
        assert_eq!(found(SESSION, &[("tokio", Some("dev"), false)]).len(), 1);
        assert_eq!(found(CODEC, &[("tokio-util", None, false)]).len(), 1);
        assert_eq!(found("another", &[]).len(), 1);
    }

    #[test]
    fn tokio_is_found_behind_others() {
        let package = |name: &str| {
            json!({"id": name, "name": name, "manifest_path": "/root/a/Cargo.toml",
                "rust_version": null, "dependencies": [], "targets": []})
        };
        let edge =
            |name: &str, kind: Option<&str>| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package(CODEC), package("web"), package("tokio")],
            "workspace_members": [CODEC], "target_directory": "/target",
            "resolve": {"nodes": [
                {"id": CODEC, "deps": [edge("web", Some("dev"))]},
                {"id": "web", "deps": [edge("tokio", None)]},
                {"id": "tokio", "deps": []},
            ]},
        });
        let metadata: Metadata = serde_json::from_value(metadata).unwrap();
        let found = check(Path::new("/root"), &metadata);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "tokio is reached through web");
    }
}
