//! More partitions than a machine holds, and topics that are asked for faster than they are to be made: what is too much is refused before it
//! is answered, and the rest is served.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{CreatePartitionsRequest, DeleteTopicsRequest, MetadataRequest};

use super::good::Good;
use crate::broker::{Broker, folder};
use crate::first_run::{consume, get};
use crate::kit::{after, eventually};
use crate::wire::{Wire, create, name};

const POLICY_VIOLATION: i16 = 44;
const LEADER_NOT_AVAILABLE: i16 = 5;

/// A broker that may open so many files; what it says goes to a file.
fn start(data: &std::path::Path, descriptors: usize, settings: &[&str]) -> Broker {
    let limit = format!("--nofile={descriptors}:{descriptors}");
    let said = data.with_extension("log").display().to_string();
    let words = ["sh", "-c", r#"exec 2>>"$0"; exec prlimit "$@""#, &said, &limit];
    let words: Vec<String> = words.map(ToOwned::to_owned).into();
    Broker::start_command(after(&words, &Broker::command(data, settings)))
}

fn has_prlimit() -> bool {
    let found = Command::new("prlimit").arg("--version").stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: prlimit is missing");
    }
    found
}

fn make(wire: &mut Wire, topic: &str, partitions: i32) -> (i16, String) {
    let answer = wire.ask(5, &create(topic, partitions, 1));
    let result = &answer.topics[0];
    (result.error_code, result.error_message.as_deref().unwrap_or_default().to_owned())
}

/// How many partitions of a topic have a leader, and how many have not.
fn led(wire: &mut Wire, topic: &str) -> (usize, usize) {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let answer = wire.ask(9, &MetadataRequest::default().with_topics(Some(vec![asked])));
    let partitions = &answer.topics[0].partitions;
    let led = partitions.iter().filter(|partition| partition.error_code == 0).count();
    (led, partitions.len() - led)
}

#[test]
fn partitions_that_the_descriptors_are_too_few_for_are_refused_before_they_are_made() {
    if !has_prlimit() {
        return;
    }
    let (_folder, data) = folder();
    let broker = start(&data, 1_024, &[]);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(make(&mut wire, "good", 1).0, 0);
    let good = Good::begin(&broker, "good", 100);
    let (code, why) = make(&mut wire, "large", 2_000);
    assert_eq!(code, POLICY_VIOLATION, "{why}");
    assert!(why.contains("can hold 320 by its 1024 descriptors (ulimit -n)"), "{why}");
    let mut made = 0;
    let refused = loop {
        match make(&mut wire, &format!("t{made}"), 50) {
            (0, _) => made += 1,
            (code, why) => break (code, why),
        }
    };
    println!("{made} topics of 50 partitions; then {refused:?}");
    assert_eq!((made, refused.0), (6, POLICY_VIOLATION));
    let more = CreatePartitionsTopic::default()
        .with_name(name("t0"))
        .with_count(100)
        .with_assignments(None);
    let more = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(10_000);
    assert_eq!(wire.ask(1, &more).results[0].error_code, POLICY_VIOLATION);
    // What goes makes room for something else.
    let gone = DeleteTopicsRequest::default().with_topic_names(vec![name("t0")]);
    let answer = wire.ask(4, &gone.with_timeout_ms(10_000));
    assert_eq!(answer.responses[0].error_code, 0);
    assert_eq!(make(&mut wire, "instead", 50).0, 0);
    for topic in ["t1", "t5", "instead"] {
        assert_eq!(led(&mut wire, topic), (50, 0), "{topic}");
    }
    let sent = good.end(&broker).len();
    assert_eq!(get(&broker, "/readyz"), "ok\n");
    assert!(broker.terminate().success());
    let broker = start(&data, 1_024, &[]);
    let mut wire = Wire::connect(&broker.address);
    for topic in ["t1", "t5", "instead"] {
        assert_eq!(led(&mut wire, topic), (50, 0), "{topic}");
    }
    assert_eq!(consume(&broker, "good").lines().count(), sent);
    // The operator's word counts.
    assert!(broker.terminate().success());
    let broker = start(&data, 1_024, &["broker.partitions.max=400"]);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(make(&mut wire, "more", 80).0, 0);
    let (code, why) = make(&mut wire, "still-more", 80);
    assert!(code == POLICY_VIOLATION && why.contains("400 by broker.partitions.max"), "{why}");
    assert!(broker.terminate().success());
}

#[test]
fn a_start_with_too_few_descriptors_names_what_it_leaves_out_and_serves_the_rest() {
    if !has_prlimit() {
        return;
    }
    let (_folder, data) = folder();
    let broker = start(&data, 1_024, &[]);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(make(&mut wire, "many", 300).0, 0);
    assert_eq!(led(&mut wire, "many"), (300, 0));
    assert!(broker.terminate().success());
    let broker = start(&data, 256, &[]);
    let mut wire = Wire::connect(&broker.address);
    let (served, left) = led(&mut wire, "many");
    println!("{served} partitions are served with 256 descriptors, {left} are not");
    assert_eq!((served, left), (96, 204));
    let said = std::fs::read_to_string(data.with_extension("log")).expect("said");
    let line = said.lines().find(|line| line.contains("partitions are not served"));
    let line = line.expect("it is said what is not served");
    assert!(line.contains("count=204") && line.contains("many-"), "{line}");
    // Others are let in meanwhile, and nothing was taken for a failing disk.
    let idle: Vec<Wire> = (0..50).map(|_| Wire::connect(&broker.address)).collect();
    assert_eq!(led(&mut Wire::connect(&broker.address), "many"), (96, 204));
    assert!(!said.contains("is offline until"), "{said}");
    drop(idle);
    assert!(broker.terminate().success());
    let broker = start(&data, 1_024, &[]);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(led(&mut wire, "many"), (300, 0));
    assert!(broker.terminate().success());
}

#[test]
fn topics_that_are_asked_for_too_fast_wait_for_their_turn_and_everybody_else_is_served() {
    let (_folder, data) = folder();
    let settings = ["max.auto.create.topics.rate.per.ip=4", "max.auto.create.topics.rate=20"];
    let broker = Broker::start_with(&data, &settings);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(make(&mut wire, "good", 1).0, 0);
    let good = Good::begin(&broker, "good", 100);
    let ask = |wire: &mut Wire, from: usize, to: usize| {
        let topic = |n| MetadataRequestTopic::default().with_name(Some(name(&format!("n{n}"))));
        let topics = (from..to).map(topic).collect();
        let asked = MetadataRequest::default().with_topics(Some(topics));
        let answer = wire.ask(9, &asked.with_allow_auto_topic_creation(true));
        answer.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>()
    };
    let begun = Instant::now();
    let mut made = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        for from in (0..2_000).step_by(100) {
            let codes = ask(&mut wire, from, from + 100);
            let waits = codes.iter().filter(|code| **code == LEADER_NOT_AVAILABLE).count();
            assert_eq!(waits + codes.iter().filter(|code| **code == 0).count(), 100);
        }
        let all = wire.ask(9, &MetadataRequest::default().with_topics(None));
        made = all.topics.len() - 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).expect("few");
    println!("{made} of 2000 topics were made on demand in {seconds} s");
    assert!((40..=40 + 4 * (seconds + 2)).contains(&made), "{made} in {seconds} s");
    // Whoever asks for one that is there, or makes one, is not held up.
    assert_eq!(make(&mut wire, "asked-for", 1).0, 0);
    good.end(&broker);
    // One who asks on gets what it asks for in the end.
    eventually("its turn comes", || ask(&mut wire, 1_990, 2_000).iter().all(|code| *code == 0));
    assert!(broker.terminate().success());
}
