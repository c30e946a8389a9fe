//! Suites whose packages leave the tests out. Each runs from a checkout that an environment variable names, on a copy of it:
//! `AIOKAFKA_CHECKOUT`, `CONFLUENT_KAFKA_PYTHON_CHECKOUT`, `KAFKAJS_CHECKOUT`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::network::Network;
use super::packages::{confluent_kafka, suites};
use super::{Outcome, Outcomes, judge, kafka_python, shim};
use crate::broker::{BINARY, folder};
use crate::cluster::{Cluster, Place};
use crate::kit::{finish_within, install};
use crate::secure::Party;

/// A copy of the checkout that a variable names; without one, a line that says so.
fn checkout(suite: &str, variable: &str) -> Option<PathBuf> {
    let Some(path) = std::env::var_os(variable) else {
        println!(
            "{suite}: left out, its package carries no tests; {variable} takes the path of a checkout"
        );
        return None;
    };
    let copy = suites().join("checkouts").join(suite);
    std::fs::create_dir_all(&copy).expect("target is writable");
    install(suite, Command::new("cp").arg("-rT").arg(Path::new(&path)).arg(&copy));
    Some(copy)
}

#[test]
fn aiokafkas_own_tests_pass_but_for_the_findings() {
    let Some(source) = checkout("aiokafka", "AIOKAFKA_CHECKOUT") else { return };
    let Some(network) = Network::new("aiokafka") else { return };
    let shims = shim("docker");
    let shims = shims.parent().expect("a folder").display().to_string();
    let path = format!("{shims}:{}", std::env::var("PATH").unwrap_or_default());
    let environment = [
        ("PATH", path.as_str()),
        ("STRANDLINE", BINARY),
        // The checkout's C extension is not built.
        ("AIOKAFKA_NO_EXTENSIONS", "1"),
    ];
    let words = [
        "tests",
        "-W",
        "ignore",
        "--timeout=120",
        "--no-pull",
        // Only what follows the last underscore counts: the version of Apache Kafka that tests are chosen by.
        "--docker-image=strandline:2.13_4.1.0",
    ];
    let outcomes = kafka_python::run("aiokafka", &network, &source, &words, &environment);
    judge("aiokafka", &outcomes, true, 300);
}

#[test]
fn confluent_kafka_pythons_own_tests_pass_but_for_the_findings() {
    let suite = "confluent-kafka-python";
    let Some(source) = checkout(suite, "CONFLUENT_KAFKA_PYTHON_CHECKOUT") else { return };
    let Some(network) = Network::new(suite) else { return };
    confluent_kafka();
    let (_folder, data) = folder();
    // As in the suite's own set-up, where it shows in the settings of every topic.
    let _broker = network.broker(&data, &["min.insync.replicas=1"]);
    let environment = [("BROKERS", "localhost:9092")];
    let words = [
        "tests/integration",
        "--timeout=120",
        // They need a schema registry, a broker with SASL, and share groups.
        "--ignore=tests/integration/schema_registry",
        "--ignore=tests/integration/serialization",
        "--ignore=tests/integration/share_consumer",
        "--ignore=tests/integration/share_consumer_oauth",
        "--ignore=tests/integration/share_consumer_sasl",
    ];
    let outcomes = kafka_python::run(suite, &network, &source, &words, &environment);
    judge(suite, &outcomes, true, 15);
}

/// KafkaJS's three brokers, each with a listener in plain and one with TLS.
fn places(network: &Network, folder: &Path) -> Vec<Place> {
    let party = Party::make(folder, "kafkajs");
    let voters: Vec<String> = (0..3).map(|id| format!("{id}@127.0.0.1:{}", 39_090 + id)).collect();
    let place = |id: u16| {
        let (plain, encrypted) = (9_092 + 3 * id, 9_093 + 3 * id);
        let settings = [
            format!("node.id={id}"),
            format!("controller.quorum.voters={}", voters.join(",")),
            format!(
                "listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{encrypted},CONTROLLER://127.0.0.1:{}",
                39_090 + id
            ),
            format!(
                "advertised.listeners=PLAINTEXT://localhost:{plain},SSL://localhost:{encrypted}"
            ),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT"
                .to_owned(),
            format!("ssl.keystore.location={}", party.store.display()),
            "num.partitions=2".to_owned(),
            "default.replication.factor=2".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
        ];
        Place {
            host: "127.0.0.1".to_owned(),
            kafka: plain,
            controller: 39_090 + id,
            data: folder.join(format!("node{id}")),
            prefix: network.prefix().to_vec(),
            settings: settings.to_vec(),
            program: None,
        }
    };
    (0..3).map(place).collect()
}

/// Reads jest's report: a test is called by its file and its words; a file that does not load by itself.
fn told(source: &Path, report: &Path) -> Outcomes {
    let text = std::fs::read_to_string(report).unwrap_or_default();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let root = source.canonicalize().expect("a folder").display().to_string();
    let mut outcomes = Outcomes::new();
    for file in report["testResults"].as_array().into_iter().flatten() {
        let name = file["name"].as_str().unwrap_or_default().trim_start_matches(&root);
        let name = name.trim_start_matches('/');
        let tests = file["assertionResults"].as_array().cloned().unwrap_or_default();
        if tests.is_empty() && file["status"] == "failed" {
            outcomes.insert(name.to_owned(), Outcome::Failed);
        }
        for test in tests {
            let outcome = match test["status"].as_str() {
                Some("passed") => Outcome::Passed,
                Some("failed") => Outcome::Failed,
                _ => Outcome::Skipped,
            };
            let words = test["fullName"].as_str().unwrap_or_default().replace(['\n', '\r'], " ");
            outcomes.insert(format!("{name} {words}"), outcome);
        }
    }
    outcomes
}

#[test]
fn kafkajss_own_tests_pass_but_for_the_findings() {
    let Some(source) = checkout("kafkajs", "KAFKAJS_CHECKOUT") else { return };
    let Some(network) = Network::new("kafkajs") else { return };
    if !source.join("node_modules/.bin/jest").exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
        install("jest", npm.current_dir(&source));
    }
    let (folder, report) = folder();
    let cluster = Cluster::start_at(places(&network, folder.path()));
    cluster.wait_healthy();
    let mut jest = network.command("node");
    jest.arg("node_modules/.bin/jest");
    jest.args(["--ci", "--forceExit", "--maxWorkers=2", "--silent", "--json", "--outputFile"])
        .arg(&report);
    jest.current_dir(&source).env("NODE_ENV", "test").env("KAFKA_VERSION", "2.4");
    let output = finish_within(&mut jest, 3_000);
    println!("{}", String::from_utf8_lossy(&output.stderr));
    judge("kafkajs", &told(&source, &report), true, 400);
}
