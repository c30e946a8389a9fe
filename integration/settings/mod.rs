//! Settings are taken, refused and shown as by Apache Kafka 4.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::broker::{Broker, folder};
use crate::first_run::{cli, get, produce};
use crate::probe::ask_at;

mod asking;
mod brokers;
mod topics;
mod values;

use asking::Asking;

/// What Apache Kafka 4.4.0 answers; `apache_kafka_is_asked_anew` writes it.
const ANSWERS: &str = include_str!("kafka-4.4.0.txt");

/// Topics of two runs have different names.
pub(crate) fn stamp() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// Asks everything; `names`: Kafka's settings of brokers, which it knows itself if it is Kafka.
fn ask(address: &str, names: Option<&str>, settle: Duration) -> Result<String> {
    ask_at(address);
    let mut asking = Asking::new(settle)?;
    let own = asking.broker.to_string();
    let names = match names {
        Some(names) => names.split(' ').map(str::to_owned).collect(),
        None => asking.names(asking::BROKER, &own)?,
    };
    asking.say("names", &names.join(" "));
    topics::ask(&mut asking)?;
    brokers::ask(&mut asking, &names)?;
    Ok(asking.out)
}

fn answers(text: &str) -> BTreeMap<String, &str> {
    let mut answers = BTreeMap::new();
    for line in text.lines() {
        let (question, answer) = line.split_once(" => ").expect("QUESTION => ANSWER");
        let mut key = question.to_owned();
        while answers.contains_key(&key) {
            key.push('\'');
        }
        answers.insert(key, answer);
    }
    answers
}

/// Whether a question is one of those that a line of differences names; `*` stands for anything.
fn is_named(pattern: &str, question: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = question.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts = parts.peekable();
    let mut is_open = false;
    while let Some(part) = parts.next() {
        is_open = part.is_empty();
        if parts.peek().is_none() && !is_open {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty() || is_open
}

/// What differs from Apache Kafka's answers without being named as a difference, and what is named and does not differ.
pub(crate) fn differing(theirs: &str, ours: &str, differences: &str) -> String {
    let (theirs, ours) = (answers(theirs), answers(ours));
    let known: Vec<(&str, &str)> = differences
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(" => ").expect("QUESTION => REASON"))
        .collect();
    let mut counts = vec![0; known.len()];
    let mut wrong = String::new();
    for (question, expected) in &theirs {
        let found = ours.get(question).copied().unwrap_or("(not asked)");
        let by = known.iter().position(|(pattern, _)| is_named(pattern, question));
        match by {
            Some(at) if found != *expected => counts[at] += 1,
            // Only a line for this very question must be wrong here: one for many names those that differ.
            Some(at) if !known[at].0.contains('*') => {
                let _ = writeln!(wrong, "{question}: named as a difference, but equal");
            }
            None if found != *expected => {
                let _ = writeln!(wrong, "{question}\n  Kafka {expected}\n  here  {found}");
            }
            _ => {}
        }
    }
    for ((pattern, _), count) in known.iter().zip(counts) {
        if count == 0 {
            let _ = writeln!(wrong, "{pattern}: named as a difference, but nothing differs");
        }
    }
    wrong
}

#[test]
fn settings_are_taken_refused_and_shown_as_by_apache_kafka_but_for_named_differences() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["node.id=0", "min.insync.replicas=1"]);
    let theirs = answers(ANSWERS);
    let names = theirs.get("names").copied();
    let ours = ask(&broker.address, names, Duration::ZERO).expect("all questions are asked");
    let wrong = differing(ANSWERS, &ours, include_str!("differences.txt"));
    assert!(wrong.is_empty(), "{wrong}");
}

/// `KAFKA=HOST:PORT cargo test --test integration apache_kafka_is_asked_anew -- --ignored`
#[test]
#[ignore = "needs a running Apache Kafka of one node without dynamic settings, at KAFKA=HOST:PORT"]
fn apache_kafka_is_asked_anew() {
    let address = std::env::var("KAFKA").expect("KAFKA=HOST:PORT");
    let answers = ask(&address, None, Duration::from_millis(250)).expect("all questions are asked");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/settings/kafka-4.4.0.txt");
    std::fs::write(file, answers).expect("written");
}

/// Blocks that the first segment of a topic takes on the disk, in bytes, and its length.
fn taken(data: &Path, topic: &str) -> (u64, u64) {
    let file = data.join(format!("{topic}-0/00000000000000000000.log"));
    let meta = file.metadata().expect("a segment");
    (meta.blocks() * 512, meta.len())
}

#[test]
fn a_topic_that_is_copied_from_apache_kafka_is_made_with_its_settings_and_they_act() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let made = |name: &str, settings: &[&str]| {
        let mut arguments = vec!["topic", "create", name];
        for setting in settings {
            arguments.extend(["-c", setting]);
        }
        cli(&broker, &arguments);
    };
    let copied = [
        "compression.type=gzip",
        "cleanup.policy=",
        "preallocate=true",
        "retention.bytes=-5",
        "segment.bytes=3145728",
        "errors.deadletterqueue.group.enable=true",
        "compression.lz4.level=12",
    ];
    made("least", &[&copied[..], &["compression.gzip.level=1"]].concat());
    made("most", &[&copied[..], &["compression.gzip.level=9"]].concat());
    made("plain", &[]);
    let words: Vec<String> = (0..4_000).map(|i| (i * i % 977).to_string()).collect();
    let record = words.join(" ");
    for topic in ["least", "most", "plain"] {
        let (is_sent, why) = produce(&broker, topic, &format!("{record}\n"));
        assert!(is_sent, "{why}");
    }
    let (least, most, plain) = (taken(&data, "least"), taken(&data, "most"), taken(&data, "plain"));
    assert!(most.1 < least.1 && least.1 < plain.1, "{most:?} {least:?} {plain:?}");
    assert!(most.0 >= 3_145_728 && plain.0 < 1 << 20, "{most:?} {plain:?}");
    let read = cli(&broker, &["consume", "most", "-o", "start", "-e", "-f", "%v"]);
    assert!(read.contains(&record), "{} bytes are read", read.len());
    // What is left over is given back when it stops.
    assert!(broker.terminate().success());
    assert!(taken(&data, "most").0 < 1 << 20, "{:?}", taken(&data, "most"));
}

#[test]
fn what_may_be_a_key_is_shown_nowhere() {
    let (_folder, data) = folder();
    let options = "remote.storage.options=aws_access_key_id=me,aws_secret_access_key=hush,aws_region=here,\
                   aws_endpoint=http://127.0.0.1:9,aws_allow_http=true";
    let broker = Broker::start_with(&data, &["remote.storage.url=s3://nowhere/a", options]);
    let config = get(&broker, "/v1/config/effective");
    assert!(config.contains("[hidden]") && !config.contains("hush"), "{config}");
}
