//! franz-go's own integration tests, against the built binary.

use std::collections::BTreeMap;
use std::process::Command;

use crate::broker::{Broker, folder};
use crate::kit::{finish, franz_go_source};

/// Tests that need what is not served yet, each with the reason.
fn findings() -> BTreeMap<&'static str, &'static str> {
    include_str!("clients/go/findings.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(" => ").expect("TEST => REASON"))
        .collect()
}

#[test]
fn franz_gos_own_tests_pass_but_for_the_findings() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let findings = findings();
    let skip = findings.keys().copied().collect::<Vec<_>>().join("|");
    let mut go = Command::new("go");
    go.args(["test", "-count=1", "-v", "-timeout", "220s", "-skip", &format!("^({skip})$"), "."])
        .current_dir(franz_go_source().join("pkg/kgo"))
        .env("KGO_TEST_RF", "1")
        .env("KGO_TEST_RECORDS", "20000")
        .env("KGO_SEEDS", &broker.address);
    let output = finish(&mut go);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed: Vec<&str> =
        text.lines().filter(|line| line.trim_start().starts_with("--- FAIL")).collect();
    let tail: Vec<&str> = text.lines().rev().take(20).collect();
    assert!(output.status.success(), "{failed:#?}\n{tail:#?}");
    let passed = text.lines().filter(|line| line.starts_with("--- PASS")).count();
    println!(
        "{passed} of franz-go's tests pass; {} wait for what is not served yet",
        findings.len()
    );
    assert!(passed > 20, "{text}");
}
