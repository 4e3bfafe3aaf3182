//! The structure that docs/architecture.md promises: which crate may use which, and which module of the proxy.

#[path = "architecture/documentation.rs"]
mod documentation;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of ours, with the crates of ours it may use.
const MAY_USE: [(&str, &[&str]); 5] = [
    ("weft-proto", &[]),
    ("weft-proxy", &["weft-proto"]),
    ("weft-control-plane", &["weft-proto"]),
    ("weft-runtime", &["weft-proto"]),
    ("weft-injector", &["weft-proto", "weft-runtime"]),
];

/// Libraries that belong to one side: a crate not listed for one must not depend on it.
const KEPT_TO: [(&str, &[&str]); 6] = [
    (
        "k8s-openapi",
        &["weft", "weft-control-plane", "weft-injector"],
    ),
    ("axum", &["weft-control-plane"]),
    ("redb", &["weft-control-plane"]),
    ("rtnetlink", &["weft-runtime"]),
    ("seccompiler", &["weft-runtime"]),
    ("clap", &["weft"]),
];

/// The proxy's modules from the top down; a module uses only those of its own row and the rows below.
const PROXY_LAYERS: [&[&str]; 7] = [
    &["app", "workers", "admin"],
    &["listener", "connection", "xds"],
    &["http", "tcp"],
    &["tls", "upstream"],
    &["snapshot", "cluster", "overload"],
    &[
        "certificate",
        "clock",
        "config",
        "telemetry",
        "drain",
        "gather",
        "handover",
        "hop_by_hop",
        "http1",
        "http2",
        "pace",
        "prefixed",
        "present",
        "proxy_protocol",
        "random",
        "socket_option",
        "sys",
        "turn",
        "wire",
    ],
    &[],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn packages() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| (name(package), normal_dependencies(package)))
        .collect()
}

fn normal_dependencies(package: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().expect("dependencies");
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(name)
        .collect()
}

fn name(value: &Value) -> String {
    value["name"].as_str().expect("a name").to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let packages = packages();
    for (krate, allowed) in MAY_USE {
        let dependencies = packages
            .get(krate)
            .unwrap_or_else(|| panic!("there is no crate {krate}"));
        for dependency in dependencies
            .iter()
            .filter(|dependency| dependency.starts_with("weft-"))
        {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{krate} must not use {dependency}"
            );
        }
    }
}

#[test]
fn libraries_stay_on_their_side() {
    for (krate, dependencies) in packages() {
        for (library, users) in KEPT_TO {
            let is_used = dependencies.iter().any(|dependency| dependency == library);
            assert!(
                !is_used || users.contains(&krate.as_str()),
                "{krate} must not use {library}"
            );
        }
    }
}

#[test]
fn modules_of_the_proxy_use_only_their_own_layer_and_lower_ones() {
    let source = root().join("proxy/src");
    let layer = |module: &str| PROXY_LAYERS.iter().position(|row| row.contains(&module));
    for file in sources(&source) {
        let relative = file
            .strip_prefix(&source)
            .expect("below the source folder")
            .to_owned();
        let first = relative
            .components()
            .next()
            .expect("a file")
            .as_os_str()
            .to_string_lossy();
        let own = first.trim_end_matches(".rs").to_owned();
        let Some(own_layer) = layer(&own) else {
            continue;
        };
        for line in fs::read_to_string(&file).expect("readable").lines() {
            let Some(used) = line.trim().strip_prefix("use crate::") else {
                continue;
            };
            let module = used.split([':', ';', '{']).next().unwrap_or_default();
            if let Some(used_layer) = layer(module) {
                assert!(
                    own_layer <= used_layer,
                    "{}: {own} must not use {module}",
                    relative.display()
                );
            }
        }
    }
}

#[test]
fn unsafe_code_is_in_one_file_of_a_crate() {
    for krate in ["proto", "proxy", "control-plane", "injector", "runtime"] {
        for file in sources(&root().join(krate).join("src")) {
            let text = fs::read_to_string(&file).expect("readable");
            let is_allowed =
                file.ends_with("runtime/src/sys.rs") || file.ends_with("proxy/src/sys.rs");
            assert!(
                is_allowed || !text.contains("unsafe {"),
                "{} has unsafe code",
                file.display()
            );
        }
    }
}
