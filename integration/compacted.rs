//! Compacted topics whose segments are in a bucket.

use std::path::Path;
use std::process::Command;

use crate::broker::{folder, run};
use crate::clients::{CONNECT_TOPICS, through_connect};
use crate::kit::{eventually, go_client, java, python_script, succeed};
use crate::tiering::{Alone, files, manifests};

/// Segments of a second, copied at once, gone here as soon as they are there, and compacted there whenever there is a new one.
const TIERED: [&str; 7] = [
    "cleanup.policy=compact",
    "remote.storage.enable=true",
    "segment.ms=1000",
    "local.retention.ms=1",
    "min.cleanable.dirty.ratio=0.01",
    "delete.retention.ms=1500",
    "file.delete.delay.ms=100",
];

fn create(alone: &Alone, topic: &str, partitions: &str) {
    let settings = TIERED.iter().flat_map(|setting| ["-c", setting]);
    let words = ["topic", "create", topic, "-p", partitions].into_iter().chain(settings);
    alone.ours(&words.collect::<Vec<_>>());
}

fn table(alone: &Alone, words: &[&str]) -> String {
    let mut script = python_script("compacted.py");
    succeed(script.args([&alone.address, "table"]).args(words)).trim().to_owned()
}

/// Bytes of the objects in a bucket.
fn bytes(tier: &Path) -> u64 {
    files(tier, "*.log").iter().map(|path| path.metadata().map_or(0, |meta| meta.len())).sum()
}

#[test]
fn of_each_key_the_newest_record_stays_in_the_bucket_and_survives_the_loss_of_the_disk() {
    let (folder, data) = folder();
    let tier = folder.path().join("tier");
    let alone = Alone::begin(&data, tier.clone());
    create(&alone, "table", "1");
    let expected = folder.path().join("expected.json").display().to_string();
    table(&alone, &["write", &expected, "150"]);
    let end = alone.offset_of("table", "latest");
    assert_eq!(end, 150 * 200);
    eventually("all of it is in the bucket, and little is left there", || {
        manifests(&tier).0 == [(0, end)] && bytes(&tier) < 200_000
    });
    eventually("nothing is here any more", || alone.offset_of("table", "earliest-local") == end);
    let left: usize = table(&alone, &["check", &expected]).parse().expect("a number");
    assert!(left < 1_000, "{left} records");
    print!("{}", succeed(Command::new(go_client()).args(["tiered", &alone.address, "table"])));
    let keys = succeed(
        java("org.apache.kafka.tools.consumer.ConsoleConsumer", &[])
            .args(["--bootstrap-server", &alone.address, "--topic", "table", "--from-beginning"])
            .args(["--timeout-ms", "5000"]),
    );
    assert_eq!(keys.lines().count(), left);
    // Tombstones go when their time is over, which somebody has to look after: there are new segments.
    let before = files(&tier, "*.log");
    table(&alone, &["write", &expected, "3"]);
    eventually("what was rewritten before is rewritten again", || {
        files(&tier, "*.log").iter().all(|path| !before.contains(path))
    });
    let url = format!("file:{}", tier.display());
    let end = alone.offset_of("table", "latest");
    eventually("that is in the bucket too", || manifests(&tier).0 == [(0, end)]);
    table(&alone, &["check", &expected]);
    assert!(alone.broker.terminate().success());
    assert!(run(&["tier", "verify", &url]).status.success());
    std::fs::remove_dir_all(&data).expect("removed");
    let alone = Alone::begin(&data, tier.clone());
    alone.ours(&["tier", "restore", &url]);
    table(&alone, &["check", &expected]);
    // It goes on, and what comes next is compacted together with what was there before.
    table(&alone, &["write", &expected, "20"]);
    let end = alone.offset_of("table", "latest");
    eventually("it is compacted again", || {
        manifests(&tier).0 == [(0, end)] && bytes(&tier) < 200_000
    });
    table(&alone, &["check", &expected]);
    assert!(alone.broker.terminate().success());
}

#[test]
fn a_connect_worker_begins_again_with_what_it_knows_in_the_bucket_only() {
    let (folder, data) = folder();
    let tier = folder.path().join("tier");
    let alone = Alone::begin(&data, tier);
    for (topic, partitions) in CONNECT_TOPICS.into_iter().zip(["1", "3", "2"]) {
        create(&alone, topic, partitions);
    }
    through_connect(folder.path(), &alone.address, || {
        for topic in CONNECT_TOPICS {
            eventually("what Connect knows is in the bucket only", || {
                let manifests = files(&alone.tier, "manifest.json");
                let its = manifests.iter().filter(|path| path.to_string_lossy().contains(topic));
                let is_there = |path: &&std::path::PathBuf| {
                    std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"base_offset\""))
                };
                its.filter(is_there).count() > 0 && local_logs(&data, topic) == 0
            });
        }
    });
    assert!(alone.broker.terminate().success());
}

/// Bytes of records of a topic on the disk.
fn local_logs(data: &Path, topic: &str) -> u64 {
    let logs = files(data, "*.log");
    let its = logs.iter().filter(|path| path.to_string_lossy().contains(topic));
    its.map(|path| path.metadata().map_or(0, |meta| meta.len())).sum()
}
