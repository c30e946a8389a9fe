//! Spring Kafka with retry topics: what fails comes back by a topic, what fails for good is a dead letter. The application is killed in the
//! middle and another goes on, the broker is killed: each number is done, or dead, as it should.

use std::collections::BTreeSet;
use std::path::Path;

use super::installs::java_program;
use super::{Phoenix, Tool, calmly, create, is_asked_for, produce, rows};
use crate::broker::folder;

fn application(address: &str, folder: &Path) -> Tool {
    let mut command =
        java_program("spring", "Retries", &["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    command.arg(address).arg(folder.join("numbers"));
    Tool::start(&mut command, &folder.join("spring.log"))
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("{n}={n}"))
}

/// What becomes of a number: done at an attempt, or dead.
fn fate(n: u32) -> String {
    match n % 50 {
        3 => format!("dead {n}"),
        5 => format!("done {n} 3"),
        _ => format!("done {n} 1"),
    }
}

fn fates(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

fn wait_for(file: &Path, numbers: u32) {
    let expected: BTreeSet<String> = (0..numbers).map(fate).collect();
    calmly(&format!("{numbers} numbers are done or dead"), || {
        let found = fates(file);
        assert!(found.is_subset(&expected), "{:?}", found.difference(&expected).next());
        found == expected
    });
}

#[test]
fn spring_kafka_tries_again_by_its_topics_and_buries_what_fails_though_it_and_the_broker_are_killed()
 {
    if !is_asked_for("Spring Kafka") {
        return;
    }
    let (folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    let (address, file) = (broker.address.clone(), folder.path().join("numbers"));
    create(&address, "numbers", "2");
    let first = application(&address, folder.path());
    produce(&address, "numbers", numbers(0..200));
    wait_for(&file, 200);
    produce(&address, "numbers", numbers(200..400));
    calmly("some of the next are done", || fates(&file).len() > 210);
    first.kill();
    let _second = application(&address, folder.path());
    wait_for(&file, 400);
    produce(&address, "numbers", numbers(400..500));
    broker.kill_and_rise();
    produce(&address, "numbers", numbers(500..600));
    wait_for(&file, 600);
    for topic in ["numbers-retry", "numbers-dlt"] {
        let rows = rows(&["topic", "describe", topic, "-b", &address]);
        assert_eq!(rows.len(), 2, "{topic} has two partitions: {rows:?}");
    }
}
