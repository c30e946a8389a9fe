//! rust-rdkafka's suite.

use super::network::Network;
use super::packages::rust_rdkafka;
use super::{Outcome, Outcomes, is_everything, judge, not_run};
use crate::broker::folder;
use crate::kit::finish_within;

/// Reads how each test of a program ended; the program's name stands before the test's.
fn outcomes(program: &str, text: &str) -> Outcomes {
    let read = |line: &str| {
        let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        let outcome = match word.trim() {
            "ok" => Outcome::Passed,
            "ignored" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        Some((format!("{program}::{name}"), outcome))
    };
    text.lines().filter_map(read).collect()
}

#[test]
fn rust_rdkafkas_own_tests_pass_but_for_the_findings() {
    if !is_everything() {
        println!("rust-rdkafka: left out, it takes minutes to build; it runs with SUITES=all");
        return;
    }
    let Some(network) = Network::new("rust-rdkafka") else { return };
    let (source, programs) = rust_rdkafka();
    let (_folder, data) = folder();
    let _broker = network.broker(&data, &["node.id=0", "num.partitions=3"]);
    let left_out = not_run("rust-rdkafka");
    let run = |path: &std::path::PathBuf| {
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let program = file.rsplit_once('-').map_or(file.as_str(), |(name, _)| name).to_owned();
        let mut command = network.command(path);
        command.args(["--test-threads", "4"]);
        for name in left_out.iter().filter_map(|name| name.strip_prefix(&format!("{program}::"))) {
            command.args(["--skip", name, "--exact"]);
        }
        let output = finish_within(command.current_dir(&source), 240);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            println!("{text}");
        }
        outcomes(&program, &text)
    };
    let ran: Outcomes = std::thread::scope(|scope| {
        let running: Vec<_> = programs.iter().map(|path| scope.spawn(move || run(path))).collect();
        running.into_iter().flat_map(|one| one.join().expect("it ran")).collect()
    });
    judge("rust-rdkafka", &ran, true, 40);
}
