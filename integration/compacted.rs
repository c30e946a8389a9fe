//! Compacted topics, here and in a bucket, as every client family reads them.

use std::path::Path;
use std::process::Command;

use crate::broker::{BINARY, Broker, folder, run};
use crate::clients::{CONNECT_TOPICS, through_connect};
use crate::kit::{eventually, go_client, java, node_folder, python_script, succeed};
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

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// The cleaner looks all the time; what is closed goes to the bucket soon.
const SOON: [&str; 2] = ["log.cleaner.backoff.ms=300", "log.retention.check.interval.ms=500"];
/// Segments of a second, compacted whenever there is a new one.
const OFTEN: [&str; 4] = [
    "cleanup.policy=compact",
    "segment.ms=1000",
    "min.cleanable.dirty.ratio=0.01",
    "delete.retention.ms=1000",
];

/// A broker whose log goes to a file.
pub(crate) fn told(data: &Path, log: &Path, settings: &[&str]) -> Broker {
    let mut words = vec![format!("log.dirs={}", data.display())];
    words.extend(["listeners=PLAINTEXT://127.0.0.1:0", "http.listen=127.0.0.1:0"].map(Into::into));
    words.extend(settings.iter().map(|&setting| setting.to_owned()));
    let mut command = Command::new("sh");
    command.args(["-c", "log=$1; shift; exec \"$@\" 2> \"$log\"", "sh"]).arg(log).arg(BINARY);
    command.arg("serve");
    for word in &words {
        command.args(["--set", word]);
    }
    Broker::start_command(command)
}

/// What a healthy broker says nobody has to act on.
fn nothing_to_act_on(log: &Path) {
    let text = std::fs::read_to_string(log).expect("a log");
    let told: Vec<_> =
        text.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

pub(crate) fn shapes(address: &str, words: &[&str]) -> String {
    succeed(python_script("shapes.py").arg(address).args(words))
}

/// Reads a topic with every client family; all read the same. KafkaJS, which lacks codecs, is left out where one of these is used.
/// Tombstones may go meanwhile: then it is read again.
pub(crate) fn every_family_reads(address: &str, topic: &str, codec: &str) -> String {
    // Whatever is asked for, what comes has records at its beginning.
    let last = shapes(address, &["raw", topic]).trim().to_owned();
    for _ in 0..4 {
        let expected = shapes(address, &["librdkafka", topic, &last]);
        let count = expected.lines().count().to_string();
        let all = [
            ("kafka-python", shapes(address, &["kafka-python", topic, &last])),
            ("aiokafka", shapes(address, &["aiokafka", topic, &last])),
            ("franz-go", by_go("franz", address, topic, &last)),
            ("sarama", by_go("sarama", address, topic, &last)),
            ("kafka-go", by_go("kafka-go", address, topic, &last)),
            ("Java", by_java(address, topic, &count)),
        ];
        let by_kafkajs =
            matches!(codec, "none" | "gzip").then(|| by_kafkajs(address, topic, &last));
        if shapes(address, &["librdkafka", topic, &last]) != expected {
            continue;
        }
        for (family, read) in all.into_iter().chain(by_kafkajs.map(|read| ("KafkaJS", read))) {
            assert_eq!(read, expected, "{family} reads {topic}");
        }
        return expected;
    }
    panic!("{topic} is never quiet");
}

pub(crate) fn by_go(family: &str, address: &str, topic: &str, last: &str) -> String {
    succeed(Command::new(go_client()).args(["shapes", family, address, topic, last]))
}

/// It has no more codecs than gzip.
pub(crate) fn by_kafkajs(address: &str, topic: &str, last: &str) -> String {
    let mut client = Command::new("node");
    succeed(client.arg(node_folder().join("shapes.js")).args([address, topic, last]))
}

pub(crate) fn by_java(address: &str, topic: &str, count: &str) -> String {
    let words = ["--topic", topic, "--from-beginning", "--max-messages", count];
    let mut java = java("org.apache.kafka.tools.consumer.ConsoleConsumer", &words);
    java.args(["--bootstrap-server", address, "--timeout-ms", "20000"]);
    for word in ["print.offset=true", "print.key=true", "print.value=false", "key.separator= "] {
        java.args(["--formatter-property", word]);
    }
    succeed(&mut java).replace("Offset:", "")
}

fn logs_of(data: &Path, topic: &str, ending: &str) -> usize {
    files(&data.join(format!("{topic}-0")), ending).len()
}

#[test]
fn what_compaction_leaves_of_every_kind_of_batch_is_read_by_every_client_family() {
    let (folder, data) = folder();
    let log = folder.path().join("log");
    let broker = told(&data, &log, &SOON);
    let at = &*broker.address;
    let mut topics = Vec::new();
    for codec in CODECS {
        for kind in ["CreateTime", "LogAppendTime"] {
            let topic = format!("{kind}-{codec}");
            let kind = format!("message.timestamp.type={kind}");
            crate::first_run::create(&broker, &topic, &[&OFTEN[..], &[&*kind]].concat());
            topics.push((topic, codec));
        }
    }
    let names: Vec<_> = topics.iter().map(|(topic, _)| &**topic).collect();
    shapes(at, &[&["write"], &names[..]].concat());
    for (topic, codec) in &topics {
        eventually("what is closed becomes one segment, and all of it is closed", || {
            let logs = files(&data.join(format!("{topic}-0")), "*.log");
            let is_empty = |path: &std::path::PathBuf| path.metadata().is_ok_and(|m| m.len() == 0);
            logs.len() == 2 && logs.iter().any(is_empty)
        });
        let read = every_family_reads(at, topic, codec);
        // Each key once, but in what is not compacted yet.
        for key in ["first", "idle", "one", "two", "often", "turn-0", "turn-5", "gone-4", "last"] {
            let count = read.lines().filter(|line| line.ends_with(&format!(" {key}"))).count();
            assert!((1..=2).contains(&count), "{key} is there {count} times: {read}");
        }
    }
    assert!(broker.terminate().success());
    nothing_to_act_on(&log);
}

#[test]
fn one_key_and_many_segments_are_two_segments_and_nothing_that_an_operator_should_act_on() {
    let (folder, data) = folder();
    let log = folder.path().join("log");
    let broker = told(&data, &log, &SOON);
    let at = &*broker.address;
    let settings = [OFTEN[0], "segment.ms=300", OFTEN[2]].into_iter().flat_map(|one| ["-c", one]);
    let words = ["topic", "create", "key", "-p", "1", "-b", at];
    assert!(run(&words.into_iter().chain(settings).collect::<Vec<_>>()).status.success());
    let mut produce = python_script("compacted.py");
    succeed(produce.args([at, "key", "one", "40", "0.35"]));
    eventually("what is closed becomes one segment", || logs_of(&data, "key", "*.log") == 2);
    let names = files(&data.join("key-0"), "*");
    assert!(names.len() <= 9, "{names:?}");
    let left = every_family_reads(at, "key", "none");
    assert!(left.lines().count() <= 3, "{left}");
    // It is the same after a start, and what was deleted while it was cleaned is nothing to act on either.
    assert!(broker.terminate().success());
    nothing_to_act_on(&log);
    let broker = told(&data, &log, &SOON);
    assert_eq!(every_family_reads(&broker.address, "key", "none"), left);
    let words = ["topic", "rm", "key", "-b", &broker.address];
    assert!(run(&words).status.success());
    assert!(broker.terminate().success());
    nothing_to_act_on(&log);
}

#[test]
fn what_an_earlier_release_left_of_compressed_batches_is_healed_when_it_is_read_and_when_it_is_cleaned()
 {
    let (folder, data) = folder();
    let log = folder.path().join("log");
    let broker = told(&data, &log, &[]);
    crate::first_run::create(&broker, "ill", &OFTEN);
    assert!(broker.terminate().success());
    let mut base = "0".to_owned();
    let mut paths = Vec::new();
    for _ in 0..3 {
        let path = data.join(format!("ill-0/{base:0>20}.log"));
        let words = ["ill", &path.display().to_string(), &base];
        base = shapes("-", &words).trim().to_owned();
        paths.push(path);
    }
    let broker = told(&data, &log, &["log.cleaner.enable=false"]);
    let read = every_family_reads(&broker.address, "ill", "none");
    assert_eq!(read.lines().count(), 12);
    assert!(broker.terminate().success());
    let broker = told(&data, &log, &SOON);
    eventually("what is closed becomes one segment", || logs_of(&data, "ill", "*.log") == 2);
    assert_eq!(every_family_reads(&broker.address, "ill", "none"), read);
    assert!(broker.terminate().success());
    nothing_to_act_on(&log);
    shapes("-", &["sound", &paths[0].display().to_string()]);
}

#[test]
fn every_client_family_reads_across_the_seam_what_is_left_in_the_bucket() {
    let (folder, data) = folder();
    let tier = folder.path().join("tier");
    let alone = Alone::begin_with(&data, tier.clone(), &SOON);
    let topics = CODECS.map(|codec| (format!("tiered-{codec}"), codec));
    for (topic, _) in &topics {
        create(&alone, topic, "1");
    }
    let names: Vec<_> = topics.iter().map(|(topic, _)| &**topic).collect();
    shapes(&alone.address, &[&["write"], &names[..]].concat());
    eventually("what is closed is in the bucket only", || {
        topics.iter().all(|(topic, _)| {
            let end = alone.offset_of(topic, "latest");
            alone.offset_of(topic, "earliest-local") >= end - 1
        })
    });
    for (topic, codec) in &topics {
        every_family_reads(&alone.address, topic, codec);
    }
    assert!(alone.broker.terminate().success());
}
