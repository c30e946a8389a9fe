//! franz-go's and kafka-go's suites, and how the output of a Go test program is read.

use std::process::Command;

use super::network::Network;
use super::packages::{FRANZ_GO, KAFKA_GO, go_tests};
use super::{Outcome, Outcomes, is_everything, judge, not_run};
use crate::broker::{Broker, folder};
use crate::kit::finish_within;

/// Longest time that a Go suite may take.
const SECONDS: u64 = 1_800;

/// What kafka-go spends its minutes on: groups that wait for their timeouts, and names looked up in vain.
const KAFKA_GO_SLOW: [&str; 7] = [
    "TestReaderConsumerGroup",
    "TestConsumerGroup.*",
    "TestRebalanceTooManyConsumers",
    "TestClientDescribeGroups",
    "TestClientListGroups",
    "TestClientAlterPartitionReassignments.*",
    "TestDialerResolver",
];

/// Runs a test program; `slow` is run only when everything is.
pub(crate) fn run(program: &mut Command, suite: &str, slow: &[&str]) -> Outcomes {
    let mut skip = not_run(suite);
    if !is_everything() {
        skip.extend(slow.iter().map(|name| (*name).to_owned()));
    }
    program.args(["-test.v=test2json", &format!("-test.timeout={}s", SECONDS - 60)]);
    if !skip.is_empty() {
        program.arg(format!("-test.skip={}", skip_pattern(&skip)));
    }
    let output = finish_within(program, SECONDS);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcomes = outcomes(&text);
    if outcomes.values().any(|outcome| *outcome == Outcome::Failed) {
        println!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    outcomes
}

/// What Go takes for the names of tests, and of parts of tests (`TEST/PART`), to be skipped: it compares part by part.
fn skip_pattern(names: &[String]) -> String {
    let whole = |name: &String| {
        let parts: Vec<String> = name.split('/').map(|part| format!("^{part}$")).collect();
        parts.join("/")
    };
    names.iter().map(whole).collect::<Vec<_>>().join("|")
}

/// Reads how each test ended. One that began and did not end failed; one that failed only because a part of it did is
/// spoken for by that part.
fn outcomes(text: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for line in text.lines() {
        let Some((_, told)) = line.split_once('\u{16}') else { continue };
        if let Some(name) = told.strip_prefix("=== RUN   ") {
            outcomes.entry(name.to_owned()).or_insert(Outcome::Failed);
        }
        let Some((word, rest)) =
            told.trim_start().strip_prefix("--- ").and_then(|t| t.split_once(": "))
        else {
            continue;
        };
        let outcome = match word {
            "PASS" => Outcome::Passed,
            "SKIP" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        let name = rest.rsplit_once(" (").map_or(rest, |(name, _)| name);
        outcomes.insert(name.to_owned(), outcome);
    }
    let failed = |outcome: &Outcome| *outcome == Outcome::Failed;
    let inner: Vec<String> = outcomes
        .iter()
        .filter(|(_, outcome)| failed(outcome))
        .map(|(name, _)| name.clone())
        .collect();
    outcomes.retain(|name, outcome| {
        let part =
            |other: &String| other.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('/'));
        !failed(outcome) || !inner.iter().any(part)
    });
    outcomes
}

#[test]
fn franz_gos_own_tests_pass_but_for_the_findings() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let program = go_tests(FRANZ_GO, "pkg/kgo", "");
    let mut command = Command::new(&program);
    command
        .current_dir(program.parent().expect("a folder"))
        .env("KGO_TEST_RF", "1")
        .env("KGO_TEST_RECORDS", "20000")
        .env("KGO_SEEDS", &broker.address);
    judge("franz-go", &run(&mut command, "franz-go", &[]), true, 20);
}

#[test]
fn kafka_gos_own_tests_pass_but_for_the_findings() {
    let Some(network) = Network::new("kafka-go") else { return };
    let (_folder, data) = folder();
    let _broker = network.broker(&data, &["message.max.bytes=200000000"]);
    let program = go_tests(KAFKA_GO, ".", "");
    let mut command = network.command(&program);
    command.current_dir(program.parent().expect("a folder")).env("KAFKA_VERSION", "3.7.0");
    judge("kafka-go", &run(&mut command, "kafka-go", &KAFKA_GO_SLOW), is_everything(), 300);
}

#[test]
fn tests_are_skipped_by_their_whole_names_and_parts_of_tests_too() {
    let names = ["TestA", "TestB.*", "TestC/one_part"].map(str::to_owned);
    assert_eq!(skip_pattern(&names), "^TestA$|^TestB.*$|^TestC$/^one_part$");
}

#[test]
fn what_a_go_program_says_is_read_by_test() {
    let text = "\u{16}=== RUN   TestA\n\u{16}=== RUN   TestA/one\nx\u{16}=== RUN   TestB\n\u{16}    --- FAIL: TestA/one (0.00s)\n\u{16}--- FAIL: TestA (0.10s)\nnoise\u{16}--- PASS: TestC (0.00s)\n\u{16}--- SKIP: TestD (0.00s)\n";
    let expected = [
        ("TestA/one", Outcome::Failed),
        ("TestB", Outcome::Failed),
        ("TestC", Outcome::Passed),
        ("TestD", Outcome::Skipped),
    ];
    let expected: Outcomes = expected.iter().map(|(n, o)| ((*n).to_owned(), *o)).collect();
    assert_eq!(outcomes(text), expected);
}
