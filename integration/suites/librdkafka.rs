//! librdkafka's suite: its test program, once for each of its files, since one test that hangs ends the program.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use super::packages::{kafka_tools, librdkafka};
use super::{Outcome, Outcomes, is_everything, judge, not_run};
use crate::broker::{Broker, folder};
use crate::kit::finish_within;

/// Tests that run at the same time; they mostly wait.
const AT_ONCE: usize = 6;

/// What waits for longer than a few seconds, for timeouts and whole JVMs.
const SLOW: [&str; 18] = [
    "0015", "0033", "0041", "0051", "0052", "0077", "0081", "0084", "0091", "0093", "0109", "0114",
    "0115", "0118", "0119", "0123", "0125", "0139",
];

/// The numbers of the tests.
fn numbers(tests: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(tests).expect("a folder").flatten();
    let mut numbers: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (number, rest) = name.split_once('-')?;
            let is_source = Path::new(rest).extension().is_some_and(|e| e == "c" || e == "cpp");
            // From 1000 on they need set-ups of their own.
            (number.starts_with('0') && is_source).then(|| number.to_owned())
        })
        .collect();
    numbers.sort();
    numbers
}

/// Runs the tests of one file.
fn run(tests: &Path, number: &str, folder: &Path, address: &str) -> Outcomes {
    let report = folder.join(format!("{number}.json"));
    let config = folder.join(format!("{number}.conf"));
    std::fs::write(&config, format!("bootstrap.servers={address}\n")).expect("written");
    let mut command = Command::new(tests.join("test-runner"));
    command
        // No tests without a broker, none that break connections by preloading, the quick form of each.
        .args(["-L", "-E", "-Q", "-p1"])
        .current_dir(tests)
        .env("LD_LIBRARY_PATH", format!("{0}/../src:{0}/../src-cpp", tests.display()))
        .env("TESTS", number)
        .env("RDKAFKA_TEST_CONF", config)
        .env("TEST_KAFKA_VERSION", "4.1.0")
        .env("TEST_REPORT", &report)
        .env("KAFKA_PATH", kafka_tools())
        .env("BROKERS", address)
        .env_remove("CI");
    let output = finish_within(&mut command, 400);
    let mut outcomes = Outcomes::new();
    let told = std::fs::read_to_string(&report).unwrap_or_default();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
    for (name, test) in told["tests"].as_object().into_iter().flatten() {
        let outcome = match test["state"].as_str() {
            Some("PASSED") => Outcome::Passed,
            Some("SKIPPED") => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        if name.starts_with(number) {
            println!("{name}: {outcome:?} after {} s", test["duration"]);
            outcomes.insert(name.clone(), outcome);
        }
    }
    let is_bad = outcomes.values().any(|outcome| *outcome == Outcome::Failed);
    if is_bad || outcomes.is_empty() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
    // A program that wrote no report crashed.
    if told.is_null() {
        outcomes.insert(number.to_owned(), Outcome::Failed);
    }
    outcomes
}

#[test]
fn librdkafkas_own_tests_pass_but_for_the_findings() {
    let tests = librdkafka();
    let (folder, data) = folder();
    let settings = ["group.initial.rebalance.delay.ms=0", "num.partitions=4"];
    let broker = Broker::start_with(&data, &settings);
    let left_out = not_run("librdkafka");
    let wanted = |number: &String| {
        !left_out.contains(number) && (is_everything() || !SLOW.contains(&number.as_str()))
    };
    let waiting: VecDeque<String> = numbers(&tests).into_iter().filter(wanted).collect();
    let (waiting, ran) = (Mutex::new(waiting), Mutex::new(Outcomes::new()));
    let next = || waiting.lock().expect("no panics").pop_front();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(number) = next() {
                    let outcomes = run(&tests, &number, folder.path(), &broker.address);
                    ran.lock().expect("no panics").extend(outcomes);
                }
            });
        }
    });
    judge("librdkafka", &ran.into_inner().expect("no panics"), is_everything(), 40);
}
