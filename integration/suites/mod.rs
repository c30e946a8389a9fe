//! The clients' own test suites, against the built binary.
//!
//! A suite comes from its client's package in a registry (`packages.rs`), or, where the package leaves the tests out,
//! from a checkout that an environment variable names. What a suite needs of its own set-up is stood in for by the files
//! in `shims/`; its tests are never changed. Every test that does not pass is a finding with a reason (`findings/`): one
//! that fails without being there fails the run, and so does one that is there and passes.
//!
//! `cargo test` runs what is fast; `SUITES=all` runs everything; `UPDATE=1` rewrites the lists of findings.

mod checkouts;
mod findings;
mod go;
mod kafka_python;
mod librdkafka;
mod network;
mod packages;
mod rust;
mod sarama;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use findings::Findings;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// By the suite itself: its set-up has not what the test is about.
    Skipped,
}

/// Tests by name.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// Whether everything is asked for, not only what is fast.
pub(crate) fn is_everything() -> bool {
    std::env::var("SUITES").is_ok_and(|value| value == "all")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/suites")
}

/// A file that stands in for what a suite expects around it.
pub(crate) fn shim(name: &str) -> PathBuf {
    folder().join("shims").join(name)
}

/// What of a suite is left out by its findings.
pub(crate) fn not_run(suite: &str) -> Vec<String> {
    Findings::read(&folder(), suite).not_run()
}

/// Compares what a suite said with its findings; `is_whole`: nothing of it was left out. `least` tests must have passed, lest
/// a run without any looks well.
pub(crate) fn judge(suite: &str, outcomes: &Outcomes, is_whole: bool, least: usize) {
    let mut findings = Findings::read(&folder(), suite);
    if std::env::var_os("UPDATE").is_some() {
        findings.update(outcomes, is_whole);
        findings.write(&folder(), suite);
    }
    let count = |wanted| outcomes.values().filter(|outcome| **outcome == wanted).count();
    let list = list(suite, outcomes);
    println!(
        "{suite}: {} passed, {} did not for the reasons in findings/{suite}.txt, {} were skipped by the suite; by name in {}",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped),
        list.display()
    );
    let wrong = findings.compare(outcomes, is_whole);
    assert!(wrong.is_empty(), "{suite}:\n{}", wrong.join("\n"));
    assert!(count(Outcome::Passed) >= least, "{suite}: too few tests ran");
}

/// Writes every test's name and outcome down.
fn list(suite: &str, outcomes: &Outcomes) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("suites");
    std::fs::create_dir_all(&folder).expect("target is writable");
    let path = folder.join(format!("{suite}.txt"));
    let line = |(name, outcome): (&String, &Outcome)| format!("{outcome:?} {name}\n");
    std::fs::write(&path, outcomes.iter().map(line).collect::<String>()).expect("written");
    path
}
