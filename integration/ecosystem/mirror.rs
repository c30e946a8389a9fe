//! MirrorMaker 2 between two brokers: the copies have the partitions, settings and records of what they copy, and follow when those change,
//! though it and both brokers are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::installs::jars;
use super::{Phoenix, Tool, calmly, is_asked_for, lines, produce, rows, strandline};
use crate::broker::folder;
use crate::kit::{java, java_with, succeed};

const SETTINGS: [&str; 8] = [
    "compression.type=gzip",
    "compression.gzip.level=5",
    "preallocate=true",
    "retention.ms=86400000",
    "segment.bytes=1048576",
    "max.message.bytes=2000000",
    "message.timestamp.after.max.ms=3600000",
    "file.delete.delay.ms=1000",
];

/// MirrorMaker as a process of its own.
fn mirror_maker(folder: &Path, from: &str, to: &str) -> Tool {
    let every_second = [
        "refresh.topics",
        "sync.topic.configs",
        "sync.group.offsets",
        "emit.checkpoints",
        "refresh.groups",
    ];
    let one_replica = [
        "",
        "offset-syncs.topic.",
        "checkpoints.topic.",
        "heartbeats.topic.",
        "offset.storage.",
        "status.storage.",
        "config.storage.",
    ];
    let mut text = format!(
        "clusters=a,b\na.bootstrap.servers={from}\nb.bootstrap.servers={to}\na->b.enabled=true\nb->a.enabled=false\n\
         a->b.topics=settled,grown\na->b.groups=readers\nsync.group.offsets.enabled=true\noffset.lag.max=0\n\
         tasks.max=2\nb.offset.flush.interval.ms=500\nb.scheduled.rebalance.max.delay.ms=0\n"
    );
    every_second.iter().for_each(|name| text.extend([name, ".interval.seconds=1\n"]));
    one_replica.iter().for_each(|name| text.extend([name, "replication.factor=1\n"]));
    let properties = folder.join("mm2.properties");
    std::fs::write(&properties, text).expect("written");
    let mut command =
        java_with(&[&jars("mirror")], "org.apache.kafka.connect.mirror.MirrorMaker", &[]);
    command.arg(&properties);
    Tool::start(&mut command, &folder.join("mm2.log"))
}

fn values(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("k{}=value {n}", n % 100))
}

/// The settings of a topic that are its own, as Kafka's tool tells them.
fn settings(address: &str, topic: &str) -> BTreeSet<String> {
    let arguments = [
        "--bootstrap-server",
        address,
        "--describe",
        "--entity-type",
        "topics",
        "--entity-name",
        topic,
    ];
    let told = succeed(&mut java("kafka.admin.ConfigCommand", &arguments));
    let lines = told.lines().filter_map(|line| line.trim().split_once(" sensitive="));
    lines.map(|(setting, _)| setting.to_owned()).collect()
}

/// Time, key and value of each record of each partition, in order.
fn records(address: &str, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut partitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines(address, topic, "%p|%T %k %v\n") {
        let (partition, record) = line.split_once('|').expect("a partition");
        partitions.entry(partition.to_owned()).or_default().push(record.to_owned());
    }
    partitions
}

/// What comes first of each record, in order: at least once, a record may come again.
fn once(partitions: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    let firsts = |records: Vec<String>| {
        let mut seen = BTreeSet::new();
        records.into_iter().filter(|record| seen.insert(record.clone())).collect()
    };
    partitions.into_iter().map(|(partition, records)| (partition, firsts(records))).collect()
}

fn partitions(address: &str, topic: &str) -> usize {
    rows(&["topic", "describe", topic, "-b", address]).len()
}

fn committed(address: &str, topic: &str) -> i64 {
    let rows = rows(&["group", "lag", "readers", "-b", address]);
    let rows = rows.iter().filter(|row| row["topic"] == topic);
    rows.filter_map(|row| row["committed"].as_i64()).sum()
}

#[test]
fn mirrormaker_copies_topics_with_their_settings_and_lags_behind_nothing_though_all_are_killed() {
    let (folder, data) = folder();
    let mut from = Phoenix::start(&data);
    let mut to =
        Phoenix::start_with(&folder.path().join("copy"), &["auto.create.topics.enable=false"]);
    let (a, b) = (from.address.clone(), to.address.clone());
    let mut create = vec!["topic", "create", "settled", "--partitions", "3", "-b", &a];
    SETTINGS.iter().for_each(|setting| create.extend(["--config", setting]));
    strandline(&create);
    strandline(&["topic", "create", "grown", "-b", &a]);
    produce(&a, "settled", values(0..3_000));
    strandline(&["consume", "settled", "--group", "readers", "-o", "start", "--exit", "-b", &a]);

    let maker = mirror_maker(folder.path(), &a, &b);
    calmly("the records are copied", || {
        partitions(&b, "a.settled") == 3 && records(&b, "a.settled") == records(&a, "settled")
    });
    let expected: BTreeSet<String> = SETTINGS.into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(settings(&a, "settled"), expected);
    assert_eq!(settings(&b, "a.settled"), expected, "the copy's settings");
    calmly("the group is where it was", || committed(&b, "a.settled") == 3_000);
    if !is_asked_for("MirrorMaker killed") {
        return;
    }
    produce(&a, "settled", values(3_000..4_000));
    maker.kill();
    to.kill_and_rise();
    strandline(&["topic", "add-partitions", "grown", "4", "-b", &a]);
    strandline(&["topic", "alter", "settled", "compression.gzip.level=9", "-b", &a]);
    produce(&a, "grown", values(0..1_000));
    let _maker = mirror_maker(folder.path(), &a, &b);
    from.kill_and_rise();
    produce(&a, "settled", values(4_000..5_000));
    for topic in ["settled", "grown"] {
        let copy = format!("a.{topic}");
        calmly("the rest is copied", || {
            partitions(&b, &copy) == partitions(&a, topic)
                && once(records(&b, &copy)) == records(&a, topic)
        });
    }
    calmly("the copy's settings follow", || {
        settings(&b, "a.settled").contains("compression.gzip.level=9")
    });
}
