//! Requests about a hundred thousand things: answered as Apache Kafka 4.3.1 answers them, beside a client that is not held up by them.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest,
};

use super::good::{Good, Quiet};
use crate::broker::{Broker, folder};
use crate::first_run::create;
use crate::kit::eventually;
use crate::wire::{Wire, name, text};

const MANY: i32 = 100_000;

/// How often each answer was given.
fn counted<T: Ord>(codes: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    codes.for_each(|code| *counts.entry(code).or_default() += 1);
    counts
}

fn timed<T>(what: &str, ask: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let answer = ask();
    println!("{what}: {} ms", begun.elapsed().as_millis());
    answer
}

fn metadata(wire: &mut Wire, topic: impl Fn(i32) -> String) -> BTreeMap<i16, usize> {
    let topic = |n| MetadataRequestTopic::default().with_name(Some(name(&topic(n))));
    let asked = MetadataRequest::default().with_topics(Some((0..MANY).map(topic).collect()));
    let answer = wire.ask(9, &asked.with_allow_auto_topic_creation(false));
    counted(answer.topics.iter().map(|topic| topic.error_code))
}

fn coordinators(wire: &mut Wire) -> BTreeMap<i16, usize> {
    let keys = (0..MANY).map(|n| text(&format!("group-{n}"))).collect();
    let answer = wire.ask(4, &FindCoordinatorRequest::default().with_coordinator_keys(keys));
    counted(answer.coordinators.iter().map(|found| found.error_code))
}

fn offsets(wire: &mut Wire, topics: Vec<ListOffsetsTopic>) -> BTreeMap<(i16, i64), usize> {
    let answer = wire.ask(4, &ListOffsetsRequest::default().with_topics(topics));
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    counted(partitions.map(|partition| (partition.error_code, partition.offset)))
}

fn asked(topic: &str, partitions: impl Iterator<Item = i32>) -> ListOffsetsTopic {
    let partition = |n| {
        ListOffsetsPartition::default()
            .with_partition_index(n)
            .with_current_leader_epoch(-1)
            .with_timestamp(-1)
    };
    ListOffsetsTopic::default()
        .with_name(name(topic))
        .with_partitions(partitions.map(partition).collect())
}

fn topics(
    wire: &mut Wire,
    count: i32,
    partitions: i32,
    topic: impl Fn(i32) -> String,
) -> BTreeMap<(i16, String), usize> {
    let topic = |n| {
        CreatableTopic::default()
            .with_name(name(&topic(n)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
    };
    let asked = CreateTopicsRequest::default()
        .with_topics((0..count).map(topic).collect())
        .with_timeout_ms(60_000)
        .with_validate_only(true);
    let answer = wire.ask(4, &asked);
    counted(answer.topics.iter().map(|topic| {
        let message = topic.error_message.as_deref().unwrap_or_default();
        (topic.error_code, message.to_owned())
    }))
}

#[test]
fn a_hundred_thousand_of_anything_is_answered_as_by_apache_kafka() {
    const TOO_MANY: &str = "Excessively large number of partitions per request.";
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    create(&broker, "there", &[]);
    create(&broker, "good", &[]);
    let good = Good::begin(&broker, "good", 100);
    let mut wire = Wire::connect(&broker.address);
    let before = broker.resident_kib();
    let found = timed("metadata", || metadata(&mut wire, |n| format!("none{n}")));
    assert_eq!(found, [(3, 100_000)].into());
    let found = timed("metadata, one topic", || metadata(&mut wire, |_| "there".to_owned()));
    assert_eq!(found, [(0, 1)].into(), "each topic is told once");
    eventually("groups have coordinators", || {
        timed("coordinators", || coordinators(&mut wire)) == [(0, 100_000)].into()
    });
    let quiet = Quiet::of(&broker);
    let there = vec![asked("there", 0..MANY)];
    let found = timed("offsets", || offsets(&mut wire, there));
    assert_eq!(found, [((0, 0), 1), ((3, -1), 99_999)].into());
    let there = vec![asked("there", (0..MANY).map(|_| 0))];
    let found = timed("offsets, one partition", || offsets(&mut wire, there));
    assert_eq!(found, [((42, -1), 1)].into());
    let none = (0..MANY).map(|n| asked(&format!("none{n}"), 0..1)).collect();
    let found = timed("offsets, no topics", || offsets(&mut wire, none));
    assert_eq!(found, [((3, -1), 100_000)].into());
    let refused = timed("topics", || topics(&mut wire, MANY, 1, |n| format!("new{n}")));
    assert_eq!(refused, [((44, TOO_MANY.to_owned()), 100_000)].into());
    // Apache Kafka does not answer within two minutes here.
    let refused = timed("topics, one name", || topics(&mut wire, MANY, 1, |_| "new".to_owned()));
    assert_eq!(refused, [((44, TOO_MANY.to_owned()), 100_000)].into());
    assert_eq!(topics(&mut wire, 1, 10_001, |_| "new".to_owned()).len(), 1);
    let refused = topics(&mut wire, 10, 2_000, |n| format!("new{n}"));
    assert_eq!(refused, [((44, TOO_MANY.to_owned()), 10)].into());
    let refused =
        timed("5000 topics, one name", || topics(&mut wire, 5_000, 1, |_| "new".to_owned()));
    assert_eq!(refused, [((42, "Duplicate topic name.".to_owned()), 5_000)].into());
    let valid = timed("5000 topics", || topics(&mut wire, 5_000, 1, |n| format!("new{n}")));
    assert_eq!(valid, [((0, String::new()), 5_000)].into());
    good.end(&broker);
    let more = broker.resident_kib().saturating_sub(before);
    println!("{} MiB more are resident", more >> 10);
    assert!(more < 200 << 10, "{more} KiB");
    drop(wire);
    quiet.comes_back(&broker, 200);
    assert!(broker.terminate().success());
}
