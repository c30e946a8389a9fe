//! Topics as time goes by: names come again, nothing happens for a while, segments are closed by their age alone.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::{Broker, folder, run};
use crate::first_run::create;
use crate::kit::{eventually, java, python_script, succeed};

fn ours(broker: &Broker, words: &[&str]) -> String {
    let output = run(&[words, &["-b", &broker.address]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{words:?}: {out}{err}");
    out
}

fn write(broker: &Broker, topic: &str, words: &[&str]) {
    succeed(python_script("rounds.py").args([&broker.address, topic, "write"]).args(words));
}

/// What our own client finds.
fn look(broker: &Broker, topic: &str) -> Vec<(String, usize)> {
    grouped(&ours(broker, &["consume", topic, "--offset", "start", "--exit"]))
}

/// What every client finds in a topic, as (word, count): all the same.
fn read(broker: &Broker, topic: &str) -> Vec<(String, usize)> {
    let out = succeed(python_script("rounds.py").args([&broker.address, topic, "read"]));
    let mut all: Vec<Vec<(String, usize)>> = serde_json::from_str(out.trim()).expect("JSON");
    all.push(look(broker, topic));
    let first = all.first().cloned().expect("a client");
    let count: usize = first.iter().map(|(_, count)| count).sum();
    if count > 0 {
        let console = "org.apache.kafka.tools.consumer.ConsoleConsumer";
        let words = ["--topic", topic, "--from-beginning", "--timeout-ms", "60000"];
        let mut java = java(console, &["--bootstrap-server", &broker.address]);
        let out = succeed(java.args(words).args(["--max-messages", &count.to_string()]));
        all.push(grouped(&out));
    }
    assert!(all.iter().all(|other| *other == first), "clients differ: {all:?}");
    first
}

fn grouped(lines: &str) -> Vec<(String, usize)> {
    let mut all: Vec<(String, usize)> = Vec::new();
    for line in lines.lines() {
        let word = line.split(' ').next().unwrap_or_default();
        match all.last_mut() {
            Some((last, count)) if last == word => *count += 1,
            _ => all.push((word.to_owned(), 1)),
        }
    }
    all
}

fn only(word: &str, count: usize) -> Vec<(String, usize)> {
    vec![(word.to_owned(), count)]
}

/// Segments of a partition on the disk.
fn segments(data: &Path, partition: &str) -> usize {
    let entries = std::fs::read_dir(data.join(partition)).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log")).count()
}

#[test]
fn a_topic_that_is_made_again_under_its_name_has_its_own_records_only() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    // More than before, fewer, and in segments that end elsewhere.
    let rounds = [
        ("first", "2100", "1000", "1048576"),
        ("second", "2100", "1000", "1048576"),
        ("third", "1300", "1700", "1500000"),
        ("last", "40", "90000", "1048576"),
    ];
    for (word, count, bytes, segment) in rounds {
        create(&broker, "again", &[&format!("segment.bytes={segment}")]);
        write(&broker, "again", &[word, count, bytes]);
        assert_eq!(read(&broker, "again"), only(word, count.parse().expect("a number")));
        ours(&broker, &["topic", "rm", "again"]);
    }
    assert!(broker.terminate().success());
}

#[test]
fn an_idle_compacted_topic_can_be_read() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["log.cleaner.backoff.ms=500"]);
    let sizes = [("10", "40"), ("9000", "25"), ("40000", "20"), ("900000", "4")];
    let name = |bytes: &str| format!("idle-{bytes}");
    for (bytes, count) in sizes {
        create(&broker, &name(bytes), &["cleanup.policy=compact", "segment.ms=2000"]);
        write(&broker, &name(bytes), &["word", count, bytes, "key"]);
    }
    for (bytes, _) in sizes {
        let topic = name(bytes);
        eventually("only the newest record is left", || look(&broker, &topic) == only("word", 1));
        // Idle for longer than its segments' age, with nothing left to compact.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(read(&broker, &topic), only("word", 1));
    }
    write(&broker, "idle-40000", &["more", "1", "40000", "other"]);
    let found = read(&broker, "idle-40000");
    assert_eq!(found, [only("word", 1), only("more", 1)].concat());
    assert!(broker.terminate().success());
}

#[test]
fn retention_goes_on_with_write_caching_and_after_a_restart() {
    let (_folder, data) = folder();
    let settings = ["log.retention.check.interval.ms=500", "log.segment.delete.delay.ms=100"];
    let broker = Broker::start_with(&data, &settings);
    for caching in ["false", "true"] {
        let policy = format!("write.caching={caching}");
        let topic = format!("cached-{caching}");
        create(&broker, &topic, &[&policy, "retention.ms=3000", "segment.bytes=1048576"]);
        write(&broker, &topic, &["word", "3500", "1000"]);
    }
    let begun = Instant::now();
    for topic in ["cached-false", "cached-true"] {
        let partition = format!("{topic}-0");
        eventually("closed segments are deleted", || segments(&data, &partition) == 1);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // What is there when the broker stops is deleted by the one that comes after it.
    create(&broker, "after", &["retention.ms=2000"]);
    write(&broker, "after", &["word", "10", "1000"]);
    assert!(broker.terminate().success());
    let broker = Broker::start_with(&data, &settings);
    eventually("an idle log's records are deleted in their time", || {
        look(&broker, "after").is_empty()
    });
    create(&broker, "table", &["cleanup.policy=compact", "segment.ms=3000"]);
    write(&broker, "table", &["word", "10", "1000", "key"]);
    assert!(broker.terminate().success());
    let compacting = [&settings[..], &["log.cleaner.backoff.ms=500"]].concat();
    let broker = Broker::start_with(&data, &compacting);
    eventually("an idle log is compacted", || look(&broker, "table") == only("word", 1));
    assert!(broker.terminate().success());
}
