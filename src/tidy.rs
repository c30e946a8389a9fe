//! Tests of the code itself: layers, headers, sizes, bans, and generated pages that must not be stale.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::ErrorCode;

/// A module may use those listed for it. In reading order, which is the order of `lib.rs`.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("error", &[]),
    ("system", &["model"]),
    ("record", &["model"]),
    ("config", &["model", "record"]),
    ("metrics", &[]),
    ("protocol", &["model"]),
    ("network", &["model", "system", "config"]),
    ("objects", &["system"]),
    ("log", &["model", "system", "record", "config"]),
    ("quorum", &["model", "system", "record", "config", "network", "log"]),
    ("metadata", &["model", "config"]),
    ("controller", &["model", "system", "config", "network", "quorum", "metadata"]),
    ("security", &[]),
    ("remote_log", &["model", "system", "record", "objects", "log"]),
    ("replication", &["model", "system", "record", "config", "objects", "log", "remote_log"]),
    ("coordinator", &["model", "system", "record", "controller", "replication"]),
    (
        "api",
        &[
            "model",
            "error",
            "system",
            "record",
            "config",
            "metrics",
            "protocol",
            "network",
            "log",
            "metadata",
            "controller",
            "security",
            "replication",
            "coordinator",
        ],
    ),
    ("http", &["model", "system", "config", "metrics", "network", "log", "api"]),
    (
        "broker",
        &[
            "model",
            "error",
            "system",
            "config",
            "metrics",
            "protocol",
            "network",
            "objects",
            "quorum",
            "metadata",
            "controller",
            "security",
            "remote_log",
            "replication",
            "coordinator",
            "api",
            "http",
        ],
    ),
    (
        "cli",
        &[
            "model",
            "error",
            "system",
            "record",
            "config",
            "protocol",
            "network",
            "objects",
            "log",
            "metadata",
            "remote_log",
            "broker",
        ],
    ),
];

/// What may be named only below these modules.
const BANS: &[(&str, &[&str])] = &[
    ("std::fs", &["system"]),
    ("tokio::fs", &["system"]),
    ("tokio::time", &["system"]),
    ("tokio::net", &["network", "http", "broker"]),
    ("kafka_protocol", &["protocol"]),
    ("object_store", &["objects"]),
    ("todo!", &[]),
    ("unimplemented!", &[]),
];

const FILE_LINES_MAX: usize = 600;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file: its module, its path, and its text without tests.
fn sources() -> Vec<(String, PathBuf, String)> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    visit(&root().join("src"), &mut paths);
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let inside = path.strip_prefix(root().join("src")).expect("below src").to_owned();
        let first = inside.iter().next().expect("a name").to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        let is_test = inside.ends_with("tests.rs")
            || path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_tests.rs"))
            || ["tidy", "simulation", "internals"].contains(&module.as_str())
            || inside.ends_with("sim_disk.rs")
            || inside.ends_with("sim_nodes.rs")
            || inside.ends_with("alone.rs");
        if is_test {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        let production =
            text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        sources.push((module, inside, production));
    }
    sources
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let rows: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        let Some(allowed) = rows.get(module.as_str()) else { continue };
        for used in text.split("crate::").skip(1) {
            let name: String =
                used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if rows.contains_key(name.as_str())
                && name != module
                && !allowed.contains(&name.as_str())
            {
                wrong.push(format!("{} uses {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_modules_stand_in_the_order_of_the_layers() {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("text");
    let listed = text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    let listed: Vec<&str> =
        listed.filter(|name| !["tidy", "simulation", "internals"].contains(name)).collect();
    let rows: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, rows);
    for (at, (name, uses)) in LAYERS.iter().enumerate() {
        let above = rows.iter().take(at).collect::<Vec<_>>();
        assert!(uses.iter().all(|used| above.contains(&used)), "{name} uses what stands below it");
    }
}

#[test]
fn every_file_opens_with_what_it_is_and_none_is_too_long() {
    for (_, path, text) in sources() {
        assert!(text.starts_with("//! "), "{} has no header", path.display());
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines: cut it where it divides",
            path.display()
        );
    }
}

#[test]
fn doors_are_used_where_they_are() {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        for (banned, allowed) in BANS {
            if text.contains(banned) && !allowed.contains(&module.as_str()) {
                wrong.push(format!("{} names {banned}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Compares a generated page with what stands on the disk; `UPDATE=1` rewrites it.
fn check_page(path: &str, page: &str) {
    let path = root().join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, page).expect("written");
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "{} is stale: run `UPDATE=1 cargo test tidy`", path.display());
}

#[test]
fn the_reference_pages_are_fresh() {
    check_page("docs/reference/config.md", &crate::config::reference_page());
    check_page("docs/reference/metrics.md", &crate::metrics::reference_page());
    check_page("docs/reference/protocol.md", &crate::protocol::reference_page());
    check_page("docs/reference/errors.md", &errors_page());
    check_page("docs/reference/cli.md", &crate::cli::reference_page());
}

fn errors_page() -> String {
    let mut page = String::from(
        "# Errors\n\nGenerated from `src/error.rs`; `UPDATE=1 cargo test tidy` rewrites it.\n\n\
         The Kafka error codes that this server sends.\n\n| code | name | text |\n|---|---|---|\n",
    );
    for error in ErrorCode::ALL {
        let _ = writeln!(page, "| {} | {error:?} | {} |", error.code(), error.text());
    }
    page
}

/// The table of layers as the architecture page shows it.
fn layers_table() -> String {
    let mut table = String::from("| module | may use |\n|---|---|\n");
    for (name, uses) in LAYERS {
        let _ = writeln!(table, "| {name} | {} |", uses.join(", "));
    }
    table
}

#[test]
fn the_architecture_page_shows_these_layers() {
    let path = root().join("docs/internals/architecture.md");
    let text = fs::read_to_string(&path).expect("the page");
    let (before, rest) = text.split_once("<!-- layers -->\n").expect("the mark before the table");
    let (_, after) = rest.split_once("<!-- end of layers -->").expect("the mark after the table");
    let page = format!("{before}<!-- layers -->\n{}<!-- end of layers -->{after}", layers_table());
    check_page("docs/internals/architecture.md", &page);
}
