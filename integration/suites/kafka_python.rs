//! kafka-python's suite, and how any suite of pytest's is run.

use std::path::Path;

use super::network::Network;
use super::packages::{kafka_python, pytest};
use super::{Outcome, Outcomes, judge, not_run, shim};
use crate::broker::folder;
use crate::kit::finish_within;

/// Runs pytest in a folder; what is to be known of the broker is in the environment.
pub(crate) fn run(
    suite: &str,
    network: &Network,
    source: &Path,
    words: &[&str],
    environment: &[(&str, &str)],
) -> Outcomes {
    let (folder, names) = folder();
    let shims = shim("names.py");
    let shims = shims.parent().expect("a folder").display().to_string();
    let mut command = network.command(pytest());
    command
        .args(["-m", "pytest", "-q", "-p", "names", "-p", "no:cacheprovider", "--tb=short"])
        .args(words);
    command.args(not_run(suite).iter().map(|name| format!("--deselect={name}")));
    command.current_dir(source).env("NAMES", &names).env("TMPDIR", folder.path());
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", format!("{shims}:{}", source.display()));
    command.envs(environment.iter().copied());
    let output = finish_within(&mut command, 1_500);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let told = std::fs::read_to_string(&names).unwrap_or_default();
    let read = |line: &str| {
        let (word, name) = line.split_once('\t')?;
        let outcome = match word {
            "Passed" => Outcome::Passed,
            "Skipped" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        Some((name.to_owned(), outcome))
    };
    told.lines().filter_map(read).collect()
}

#[test]
fn kafka_pythons_own_tests_pass_but_for_the_findings() {
    let Some(network) = Network::new("kafka-python") else { return };
    let source = kafka_python();
    let (folder, data) = folder();
    // The broker's id and settings are those of the suite's own template.
    let _broker = network.broker(&data, &["node.id=0", "group.min.session.timeout.ms=1000"]);
    let environment = [
        ("KAFKA_URI", "kafka://localhost:9092"),
        ("KAFKA_VERSION", "4.2"),
        // Never used: it is only looked whether it is there.
        ("KAFKA_ROOT", folder.path().to_str().expect("text")),
    ];
    let words = ["test/integration", "-o", "log_level=ERROR", "--timeout=60"];
    let outcomes = run("kafka-python", &network, &source, &words, &environment);
    judge("kafka-python", &outcomes, true, 40);
}
