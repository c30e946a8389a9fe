//! Retention by size of tiered topics whose segments on the disk do not begin and end where those in the bucket do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::broker::{BINARY, Broker, folder};
use crate::kit::{eventually, java, succeed};
use crate::plans::Plan;
use crate::tiering::{Alone, files, metrics};

/// A topic: so many segments, of so many lines, of so many bytes; and its `retention.bytes`.
struct Shape {
    topic: &'static str,
    segments: usize,
    lines: usize,
    bytes: usize,
    retention: usize,
}

/// What is kept whole, though twice as much were too much; what is kept but for its first segments; what has one segment too much.
const SHAPES: [Shape; 3] = [
    Shape { topic: "whole", segments: 6, lines: 9, bytes: 11_000, retention: 700_000 },
    Shape { topic: "partly", segments: 6, lines: 40, bytes: 1_500, retention: 210_000 },
    Shape { topic: "nearly", segments: 6, lines: 1, bytes: 90_000, retention: 490_000 },
];

/// A round of a topic's lines, each with its number.
fn lines(shape: &Shape, round: usize) -> String {
    let numbers = round * shape.lines..(round + 1) * shape.lines;
    let fill = "x".repeat(shape.bytes - 7);
    numbers.fold(String::new(), |all, number| all + &format!("{number:06}{fill}\n"))
}

fn begin(folder: &Path) -> Alone {
    let tier = folder.join("tier");
    let place = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--tier", &format!("file:{}", tier.display())]);
    for setting in [
        &format!("log.dirs={},{}", place("one"), place("two")),
        "listeners=PLAINTEXT://127.0.0.1:0",
        "http.listen=127.0.0.1:0",
        "log.dirs.min.free.bytes=0",
        "log.retention.check.interval.ms=500",
        "remote.log.manager.task.interval.ms=300",
    ] {
        command.args(["--set", setting]);
    }
    let broker = Broker::start_command(command);
    let address = broker.address.clone();
    Alone { broker, address, tier }
}

/// Whether an object of a bucket is a topic's.
fn is_of(path: &Path, topic: &str) -> bool {
    path.to_string_lossy().contains(&format!("/{topic}-"))
}

/// Sends the next lines of each topic, which are a segment of the bucket a moment later.
fn send(alone: &Alone, folder: &Path, round: usize) {
    for shape in &SHAPES {
        alone.send(folder, shape.topic, &lines(shape, round));
    }
    for shape in &SHAPES {
        let end = format!("\"end_offset\":{},", (round + 1) * shape.lines);
        eventually("it is in the bucket", || {
            let manifests = files(&alone.tier, "manifest.json");
            let mut its = manifests.iter().filter(|path| is_of(path, shape.topic));
            let text = its.next().and_then(|path| std::fs::read_to_string(path).ok());
            text.is_some_and(|text| text.contains(&end))
        });
    }
}

/// Moves every replica to the other directory by Kafka's own tool.
fn move_all(alone: &Alone, folder: &Path, to: &str) {
    let to = folder.join(to);
    let topics: Vec<&str> = SHAPES.iter().map(|shape| shape.topic).collect();
    Plan::to_directory(&alone.address, folder, &topics, &to).execute();
    let is_there = |shape: &Shape| to.join(format!("{}-0", shape.topic)).exists();
    eventually("the replicas are moved", || SHAPES.iter().all(is_there));
}

/// What a topic's series of the metrics says.
pub(crate) fn metric(text: &str, name: &str, topic: &str) -> f64 {
    let its = |line: &&str| line.starts_with(name) && line.contains(&format!("topic=\"{topic}\""));
    let value = text.lines().find(its).and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} of {topic}: {text}"))
}

/// Looks what is left of each topic after so many rounds: what `retention.bytes` keeps, and only that.
fn check(alone: &Alone, rounds: usize) {
    // Retention has had its time several times over.
    std::thread::sleep(Duration::from_secs(3));
    let told = metrics(&alone.broker);
    for shape in &SHAPES {
        let Shape { topic, bytes, .. } = shape;
        let start = usize::try_from(alone.offset_of(topic, "earliest")).expect("small");
        let left = rounds * shape.lines - start;
        println!("{topic}: {left} records of {} left", rounds * shape.lines);
        // A record takes some bytes more than its value, less than a tenth.
        let kept = left * bytes * 11 / 10;
        assert!(start == 0 || kept >= shape.retention, "{topic}: begins at {start}, {kept} bytes");
        let without = (left - shape.lines.min(left)) * bytes;
        assert!(without < shape.retention, "{topic}: begins at {start}, {without} bytes too much");
        let all: String = (0..rounds).map(|round| lines(shape, round)).collect();
        let wanted: String = all.split_inclusive('\n').skip(start).collect();
        assert!(alone.ours(&["consume", topic, "-o", "start", "-e"]) == wanted, "{topic}");
        // All of it is in the bucket, and no byte counts twice.
        let (remote, uncopied) = (
            metric(&told, "strandline_remote_bytes", topic),
            metric(&told, "strandline_remote_uncopied_bytes", topic),
        );
        let (least, most) = (left * bytes, left * bytes * 11 / 10);
        let range = f64::from(u32::try_from(least).expect("small"))
            ..=f64::from(u32::try_from(most).expect("small"));
        assert!(range.contains(&remote) && uncopied < 1.0, "{topic}: {remote} {uncopied}");
        let objects = files(&alone.tier, "*.log");
        let its = objects.iter().filter(|path| is_of(path, topic));
        let stored: u64 = its.filter_map(|path| Some(path.metadata().ok()?.len())).sum();
        let most = u64::try_from(most).expect("small") + 10_000;
        assert!(stored <= most, "{topic}: objects of {stored} bytes for {most}");
    }
}

#[test]
fn retention_by_size_keeps_what_it_says_of_a_tiered_topic_whose_replica_is_moved_again_and_again() {
    let (folder, _) = folder();
    let folder = folder.path();
    let alone = begin(folder);
    for shape in &SHAPES {
        let retention = format!("retention.bytes={}", shape.retention);
        let create = ["topic", "create", shape.topic, "-p", "1", "-c", &retention];
        let more = ["-c", "remote.storage.enable=true", "-c", "segment.ms=1000"];
        alone.ours(&[&create[..], &more, &["-c", "file.delete.delay.ms=100"]].concat());
    }
    let first = SHAPES.iter().map(|shape| shape.segments).max().expect("some");
    for round in 0..first {
        send(&alone, folder, round);
    }
    check(&alone, first);
    // The copy's one segment holds all that the bucket has in several, and what comes next ends in the middle of it.
    for (more, to) in ["two", "one", "two"].into_iter().enumerate() {
        move_all(&alone, folder, to);
        check(&alone, first + more);
        send(&alone, folder, first + more);
        check(&alone, first + more + 1);
    }
    let arguments = ["--bootstrap-server", &alone.address, "--topic", "whole", "--from-beginning"];
    let mut consumer = java("org.apache.kafka.tools.consumer.ConsoleConsumer", &arguments);
    let count = SHAPES[0].lines * (first + 3);
    let start = usize::try_from(alone.offset_of("whole", "earliest")).expect("small");
    let count = (count - start).to_string();
    let read = succeed(consumer.args(["--max-messages", &count, "--timeout-ms", "20000"]));
    assert_eq!(read.lines().count().to_string(), count);
    assert!(alone.broker.terminate().success());
}
