//! Flink, at least once: the job fails as planned and goes on from its checkpoint, the broker is killed, and everything arrives.

use std::collections::BTreeSet;
use std::path::Path;

use super::installs::java_program;
use super::{Phoenix, Tool, calmly, create, is_asked_for, lines, produce, rows};
use crate::broker::folder;

const OPENED: [&str; 4] = ["java.lang", "java.util", "java.time", "java.net"];

fn job(address: &str, folder: &Path, fails_at: u32) -> Tool {
    let mut options: Vec<String> =
        OPENED.iter().map(|name| format!("--add-opens=java.base/{name}=ALL-UNNAMED")).collect();
    options.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut command = java_program("flink", "Copy", &options);
    command.arg(address).arg(folder).arg(fails_at.to_string());
    Tool::start(&mut command, &folder.join("flink.log"))
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("{n}={n}"))
}

fn wait_for(address: &str, numbers: u32) {
    let expected: BTreeSet<String> = (0..numbers).map(|n| format!("{n} {}", 2 * n)).collect();
    calmly(&format!("{numbers} numbers are copied"), || {
        let found: BTreeSet<String> = lines(address, "out", "%v\n").into_iter().collect();
        assert!(found.is_subset(&expected), "{:?}", found.difference(&expected).next());
        found == expected
    });
}

#[test]
fn flink_copies_every_record_at_least_once_through_a_planned_failure_and_the_brokers_death() {
    if !is_asked_for("Flink") {
        return;
    }
    let (folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    let address = broker.address.clone();
    for topic in ["in", "out"] {
        create(&address, topic, "3");
    }
    produce(&address, "in", numbers(0..5_000));
    let _job = job(&address, folder.path(), 7_000);
    wait_for(&address, 5_000);
    produce(&address, "in", numbers(5_000..10_000));
    wait_for(&address, 10_000);
    assert!(folder.path().join("failed").exists(), "the job never failed");
    broker.kill();
    std::thread::sleep(std::time::Duration::from_secs(2));
    broker.rise();
    produce(&address, "in", numbers(10_000..15_000));
    wait_for(&address, 15_000);
    // Its checkpoints commit what they cover.
    calmly("the job has committed all", || {
        let rows = rows(&["group", "lag", "flink", "-b", &address]);
        rows.len() == 3 && rows.iter().all(|row| row["lag"] == 0)
    });
}
