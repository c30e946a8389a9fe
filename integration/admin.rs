//! What administrators and their tools ask, and what they are told.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::broker::{BINARY, Broker, folder};
use crate::first_run::{cli, get, produce};
use crate::kit;

/// The series of a scrape, without their values.
fn series(metrics: &str) -> BTreeSet<String> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[test]
fn many_that_scrape_at_the_same_time_all_get_every_series() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    for index in 0..10 {
        cli(&broker, &["topic", "create", &format!("wide{index}"), "-p", "100"]);
    }
    assert!(produce(&broker, "wide3", "a\nb\n").0);
    cli(&broker, &["consume", "wide3", "-o", "start", "-e", "-g", "readers"]);
    let expected = series(&get(&broker, "/metrics"));
    let of_partitions = |name: &str| expected.iter().filter(|s| s.starts_with(name)).count();
    assert_eq!(of_partitions("kafka_topic_partition_current_offset{topic=\"wide"), 1_000);
    assert!(of_partitions("kafka_consumergroup_lag{") > 0);
    std::thread::scope(|scope| {
        let scrape = || (0..4).map(|_| series(&get(&broker, "/metrics"))).collect::<Vec<_>>();
        let scrapers: Vec<_> = (0..5).map(|_| scope.spawn(scrape)).collect();
        for found in scrapers.into_iter().flat_map(|scraper| scraper.join().expect("scraped")) {
            let lost: Vec<_> = expected.symmetric_difference(&found).take(5).collect();
            assert!(lost.is_empty(), "{} and {} series: {lost:?}", expected.len(), found.len());
        }
    });
}

#[test]
fn the_java_client_describes_and_deletes_topics_by_their_ids() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let told = kit::succeed(&mut kit::java_program("TopicsById", &[&broker.address]));
    assert_eq!(
        told.trim(),
        "described first 3, second 1\nunknown UnknownTopicIdException\nleft [second]"
    );
}

#[test]
fn what_is_not_built_is_refused_so_that_no_client_waits() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let told = kit::succeed(&mut kit::java_program("Refusals", &[&broker.address]));
    let answer = |what: &str| {
        let line = told.lines().find(|line| line.starts_with(&format!("{what} | ")));
        line.unwrap_or_else(|| panic!("{what} is not in\n{told}"))
    };
    let late: Vec<&str> = told.lines().filter(|line| line.contains("| after ")).collect();
    assert!(late.is_empty(), "{late:#?}");
    let silent: Vec<&str> = told.lines().filter(|line| line.ends_with("| nothing")).collect();
    assert!(silent.is_empty(), "{silent:#?}");
    for question in ["describeAcls", "createAcls", "deleteAcls"] {
        let answer = answer(question);
        assert!(
            answer.contains("SecurityDisabledException: No Authorizer is configured"),
            "{answer}"
        );
    }
    let words = "Transactions are not supported by this broker.";
    assert!(answer("initTransactions").contains(words), "{told}");
    assert!(answer("consumer protocol").contains("group.protocol=classic"), "{told}");
    print!("{told}{}", kit::succeed(kit::python_script("refused.py").arg(&broker.address)));
    let script = kit::node_folder().join("refused.js");
    print!("{}", kit::succeed(Command::new("node").arg(script).arg(&broker.address)));
    let mut go = Command::new(kit::go_client());
    print!("{}", kit::succeed(go.args(["refused", &broker.address])));
}

#[test]
fn a_client_that_asks_for_what_is_not_served_is_in_the_log_once_and_nobody_else_is() {
    let (folder, data) = folder();
    let log = folder.path().join("log");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" 2>{}", log.display()), BINARY, "serve"]);
    command.args(["--set", &format!("log.dirs={}", data.display())]);
    command.args([
        "--set",
        "listeners=PLAINTEXT://127.0.0.1:0",
        "--set",
        "http.listen=127.0.0.1:0",
    ]);
    let broker = Broker::start_command(command);
    // Fetch 2, Metadata 1 (which is served), AddPartitionsToTxn 4, and an API that does not exist.
    for (key, version, is_served) in [(1, 2, false), (3, 1, true), (24, 4, false), (999, 0, false)]
    {
        let mut frame = [key, version].map(i16::to_be_bytes).concat();
        frame.extend([0, 0, 0, 1, 0, 5]);
        frame.extend(b"old-1");
        frame.extend([0xff; 4]);
        let length = i32::try_from(frame.len()).expect("small").to_be_bytes();
        let mut stream = TcpStream::connect(&broker.address).expect("connected");
        stream.write_all(&[&length[..], &frame].concat()).expect("sent");
        let answered = stream.read(&mut [0; 8]).expect("read") > 0;
        assert_eq!(answered, is_served, "{key}");
    }
    assert!(broker.terminate().success());
    let lines = std::fs::read_to_string(&log).expect("a log");
    let told: Vec<&str> = lines.lines().filter(|line| line.contains("connection closed")).collect();
    assert_eq!(told.len(), 1, "{lines}");
    assert!(told[0].contains("old-1") && told[0].contains("asks for Fetch (key 1) in version 2"));
    assert!(told[0].contains("4 to 18 are served") && told[0].contains("peer=127.0.0.1:"));
}

#[test]
fn a_group_lags_only_behind_what_is_there_and_names_tell_a_terminal_nothing() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    cli(&broker, &["topic", "create", "t", "-p", "1"]);
    let lines = (0..40).fold(String::new(), |all, number| format!("{all}{number}\n"));
    assert!(produce(&broker, "t", &lines).0);
    let group = "bad\x1b[31m\tname";
    cli(&broker, &["consume", "t", "-g", group, "-o", "start", "-n", "3"]);
    let lag = || -> serde_json::Value {
        let told = cli(&broker, &["group", "lag", group, "--format", "json"]);
        serde_json::from_str(&told).expect("JSON")
    };
    assert_eq!((&lag()[0]["committed"], &lag()[0]["lag"]), (&3.into(), &37.into()));
    cli(&broker, &["topic", "trim", "t", "-p", "0", "-o", "25"]);
    assert_eq!((&lag()[0]["committed"], &lag()[0]["lag"]), (&3.into(), &15.into()));
    assert!(lag()[0]["seconds"].is_i64(), "{}", lag());
    for words in [&["group", "ls"][..], &["group", "lag", group], &["group", "describe", group]] {
        let told = cli(&broker, words);
        assert!(!told.chars().any(|c| c.is_control() && c != '\n'), "{told:?}");
    }
    assert!(cli(&broker, &["group", "ls"]).contains(r"bad\u{1b}[31m\tname"));
}
