//! Batches with a true checksum whose records no client could read: what another client writes stops nobody.

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, ListOffsetsRequest, MetadataRequest};

use super::good::{OFTEN, beside_a_good_client};
use super::poison::{CODECS, NOW, bomb, good, idempotent, poisons};
use crate::broker::{Broker, folder};
use crate::compacted::every_family_reads;
use crate::first_run::create as create_with;
use crate::wire::{Wire, create, name, produce, text};

const INVALID_RECORD: i16 = 87;
const INVALID_TIMESTAMP: i16 = 32;

/// What Apache Kafka 4.3.1 answers; `apache_kafka_is_asked_anew` writes it.
const ANSWERS: &str = include_str!("kafka-4.3.1.txt");

/// Where Kafka answers otherwise, and why that is not enough: its own consumers, or others, can't read what it stores.
const DIFFERENCES: &[(&str, &str)] = &[
    ("record length -1", "Kafka believes no length under a codec, but stores it."),
    ("record length 0", "As with -1."),
    ("record length 2^31", "As with -1."),
    ("record length 2^31-1", "As with -1."),
    ("record length of the last too long", "As with -1."),
    ("record length too short", "As with -1."),
    ("offset delta of 33 bits", "Kafka drops the bits, other readers refuse them."),
    ("offset deltas out of order", "Kafka stores them as they are, or fails on its own check."),
    ("offset deltas twice the same", "As those out of order."),
    ("offset deltas with a gap", "As those out of order."),
    ("offset delta negative", "As those out of order."),
    ("key length -2", "Kafka takes every negative length for null, other readers only -1."),
    ("value length -2", "As of keys."),
    ("header value length -2", "As of keys."),
    (
        "header key that is no text",
        "Kafka's format says text; the clients of Python fail on what is none.",
    ),
    ("record attribute of the highest bit", "kafka-python takes the attributes for a varint."),
    ("garbage", "Kafka fails with an error of its own (-1)."),
    ("nothing", "As garbage."),
    ("cut in the middle", "As garbage."),
    ("bytes after the end", "Kafka does not look; librdkafka does."),
    ("two members", "librdkafka reads one."),
    ("two frames", "Some readers read one."),
    ("a frame to skip before it", "Some readers don't know such frames."),
    ("blocks that need those before them", "As garbage."),
];

/// What is wrong in these is corrected, or means nothing to any client.
const STORED: &[&str] = &[
    "record attributes",
    "largest timestamp too large",
    "largest timestamp too small",
    "largest timestamp -1",
    "attribute bits 7 to 15",
    "attribute of a delete horizon",
    "attribute of log append time",
];

/// What is told of some of the others.
const TOLD: &[(&str, &str)] = &[
    ("record length -1", "record 1 of the batch has a negative length"),
    (
        "record length 2^31",
        "record 1 of the batch has a length that is cut or is no number of 32 bits",
    ),
    ("record length 2^31-1", "record 1 of the batch is longer than its fields"),
    ("record length of the last too long", "record 2 of the batch is longer than its fields"),
    (
        "offset deltas out of order",
        "record 0 of the batch has an offset delta that is not its place",
    ),
    ("header count -1", "record 1 of the batch has a count of headers that is none"),
    ("header count 2^31-1", "record 1 of the batch has a count of headers that is none"),
    (
        "header key that is no text",
        "record 1 of the batch has a header with a key that is not UTF-8",
    ),
    (
        "one record of two announced",
        "record 1 of the batch comes after all that the batch's count announces",
    ),
    ("bytes at the end of a record", "record 1 of the batch is longer than its fields"),
    ("two frames", "are not one"),
];

fn send(wire: &mut Wire, topic: &str, batch: &Bytes) -> PartitionProduceResponse {
    let mut answer = wire.ask(9, &produce(topic, -1, batch.clone()));
    answer.responses.remove(0).partition_responses.remove(0)
}

/// The offset of a time, and its time.
fn at_time(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    ListOffsetsRequest::default().with_topics(vec![topic])
}

fn offset_at(wire: &mut Wire, topic: &str, timestamp: i64) -> (i64, i64) {
    let answer = wire.ask(7, &at_time(topic, timestamp));
    let found = &answer.topics[0].partitions[0];
    assert_eq!(found.error_code, 0);
    (found.offset, found.timestamp)
}

/// `KAFKA=HOST:PORT cargo test --test integration hostile::records::apache_kafka_is_asked -- --ignored`
#[test]
#[ignore = "needs a running Apache Kafka, at KAFKA=HOST:PORT"]
fn apache_kafka_is_asked_anew() {
    let address = std::env::var("KAFKA").expect("KAFKA=HOST:PORT");
    let mut wire = Wire::connect(&address);
    let mut answers = String::new();
    for codec in CODECS {
        let topic = format!("poisoned-{codec}-{}", std::process::id());
        wire.ask(5, &create(&topic, 1, 1));
        for poison in poisons(codec) {
            let answer = loop {
                let answer = send(&mut wire, &topic, &poison.batch);
                // The topic may be new.
                if !matches!(answer.error_code, 3 | 6) {
                    break answer;
                }
                thread::sleep(Duration::from_millis(20));
            };
            let _ = writeln!(answers, "{codec}: {} => {}", poison.name, answer.error_code);
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/hostile/kafka-4.3.1.txt");
    std::fs::write(file, answers).expect("written");
}

/// What a batch is answered with here.
fn expected(poison: &str) -> i16 {
    match poison {
        stored if STORED.contains(&stored) => 0,
        "timestamp delta that wraps" => INVALID_TIMESTAMP,
        _ => INVALID_RECORD,
    }
}

#[test]
fn what_differs_from_apache_kafka_has_its_reason() {
    let mut differing = Vec::new();
    for codec in CODECS {
        for poison in poisons(codec) {
            let question = format!("{codec}: {} => ", poison.name);
            let theirs = ANSWERS.lines().find_map(|line| line.strip_prefix(&question));
            let theirs: i16 = theirs.expect(&question).parse().expect("a number");
            if theirs != expected(poison.name) {
                differing.push(poison.name);
            }
        }
    }
    for name in &differing {
        assert!(DIFFERENCES.iter().any(|(known, _)| known == name), "{name} differs");
    }
    for (name, _) in DIFFERENCES {
        assert!(differing.contains(name), "{name}: named as a difference, but equal");
    }
}

/// Sends a poison and looks at its answer; how many records are stored.
fn check(wire: &mut Wire, topic: &str, codec: &str, (poison, batch): (&str, &Bytes)) -> i64 {
    let answer = send(wire, topic, batch);
    assert_eq!(answer.error_code, expected(poison), "{topic}, {codec}: {poison}: {answer:?}");
    let told = answer.error_message.map(|told| told.to_string()).unwrap_or_default();
    if let Some((_, what)) = TOLD.iter().find(|(name, _)| *name == poison) {
        assert!(told.contains(what), "{topic}, {codec}: {poison}: {told}");
    }
    if answer.error_code == 0 { 3 } else { 0 }
}

/// Says that it is over, however it ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Produces while something else is done; everything is taken.
fn beside<T>(address: &str, topic: &str, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut wire = Wire::connect(address);
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) || sent < 10 {
                let batch = good(CODECS[sent % CODECS.len()], 3);
                let answer = send(&mut wire, topic, &batch);
                assert_eq!(answer.error_code, 0, "{answer:?}");
                sent += 1;
                thread::sleep(Duration::from_millis(5));
            }
            sent
        });
        let over = Over(&is_over);
        let done = work();
        drop(over);
        let sent = client.join().expect("no error");
        println!("{sent} good batches beside it");
        done
    })
}

#[test]
fn a_batch_that_some_client_could_not_read_is_refused_and_every_family_reads_on() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let mut wire = Wire::connect(&broker.address);
    for codec in CODECS {
        create_with(&broker, &format!("sent-{codec}"), &[]);
        let stored_as = if codec == "none" { "uncompressed" } else { codec };
        create_with(&broker, &format!("kept-{codec}"), &[&format!("compression.type={stored_as}")]);
    }
    let mut ends = Vec::new();
    for codec in CODECS {
        let (sent, kept) = (format!("sent-{codec}"), format!("kept-{codec}"));
        beside(&broker.address, &sent, || {
            for poison in poisons(codec) {
                check(&mut wire, &sent, codec, (poison.name, &poison.batch));
            }
        });
        let mut stored = 0;
        for from in CODECS {
            for poison in poisons(from) {
                stored += check(&mut wire, &kept, from, (poison.name, &poison.batch));
            }
            assert_eq!(send(&mut wire, &kept, &good(from, 3)).error_code, 0);
            stored += 3;
        }
        assert_eq!(offset_at(&mut wire, &kept, -1).0, stored, "{kept}");
        ends.push((sent, codec));
        // KafkaJS reads no more than these.
        if matches!(codec, "none" | "gzip") {
            ends.push((kept, codec));
        }
    }
    for (topic, codec) in &ends {
        // What a false timestamp said would lead whoever asks for a time astray.
        assert_eq!(offset_at(&mut wire, topic, NOW + (1 << 39)), (-1, -1), "{topic}");
        assert_eq!(offset_at(&mut wire, topic, -3).1, NOW + 2, "{topic}");
        assert_eq!(offset_at(&mut wire, topic, NOW + 2).0, 2, "{topic}");
        let end = offset_at(&mut wire, topic, -1).0;
        // In the first, the codecs of the good client are mixed.
        let codec = if topic.starts_with("sent") { "zstd" } else { codec };
        let read = every_family_reads(&broker.address, topic, codec);
        assert_eq!(i64::try_from(read.lines().count()).expect("few"), end, "{topic}");
    }
    assert!(broker.terminate().success());
}

#[test]
fn what_is_not_looked_at_is_stored_as_before() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let mut wire = Wire::connect(&broker.address);
    create_with(&broker, "blind", &["record.validation=headers"]);
    create_with(&broker, "compacted", &["record.validation=headers", "cleanup.policy=compact"]);
    for codec in CODECS {
        for poison in poisons(codec) {
            // Without a codec the header alone shows that records are missing.
            let is_short = matches!(poison.name, "nothing" | "a million records announced");
            let answer = send(&mut wire, "blind", &poison.batch);
            let expected = if codec == "none" && is_short { INVALID_RECORD } else { 0 };
            assert_eq!(answer.error_code, expected, "{codec}: {}: {answer:?}", poison.name);
            // Where keys are needed the records are looked at, and then wholly.
            check(&mut wire, "compacted", codec, (poison.name, &poison.batch));
        }
    }
    // The broker's default is what a topic has that says nothing; it changes while the broker runs.
    let garbage = poisons("zstd").into_iter().find(|poison| poison.name == "garbage");
    let garbage = garbage.expect("it is one of them").batch;
    create_with(&broker, "t", &[]);
    assert_eq!(send(&mut wire, "t", &garbage).error_code, INVALID_RECORD);
    drop(broker);
    let broker = Broker::start_with(&data, &["log.record.validation=headers"]);
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(send(&mut wire, "t", &garbage).error_code, 0);
    crate::first_run::cli(&broker, &["topic", "alter", "t", "record.validation=records"]);
    crate::kit::eventually("the topic's own setting counts", || {
        send(&mut wire, "t", &garbage).error_code == INVALID_RECORD
    });
    assert!(broker.terminate().success());
}

#[test]
fn a_connections_batches_are_stored_in_their_order_however_long_each_takes_to_check() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let mut wire = Wire::connect(&broker.address);
    create_with(&broker, "t", &[]);
    let (long, short) = (bomb("zstd", 8 << 20), good("none", 1));
    for round in 0..5 {
        let sent: Vec<_> = (0..20)
            .map(|number| {
                let batch = if number % 3 == 0 { &long } else { &short };
                let sequence = round * 20 + number;
                let batch = idempotent(batch, 4242, sequence);
                (sequence, wire.send(9, &produce("t", -1, batch)))
            })
            .collect();
        for (sequence, sent) in sent {
            let answer = wire.answer(&sent);
            let answer = &answer.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(sequence)));
        }
    }
    // What wants no answer is done before what comes after it, too.
    for end in [101, 102, 103] {
        let answer = wire.ask_after((9, &produce("t", 0, long.clone())), (7, &at_time("t", -1)));
        assert_eq!(answer.topics[0].partitions[0].offset, end);
    }
    // Whoever wants none may go at once.
    let request = produce("t", 0, long.clone());
    let mut leaving = Wire::connect(&broker.address);
    leaving.send(9, &request);
    drop(leaving);
    crate::kit::eventually("what it sent is stored", || offset_at(&mut wire, "t", -1).0 == 104);
    assert!(broker.terminate().success());
}

#[test]
fn bombs_hold_up_nobody_and_take_bounded_memory() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &[OFTEN]);
    create_with(&broker, "bombs", &["retention.bytes=1000000"]);
    create_with(&broker, "packed", &["compression.type=lz4"]);
    create_with(&broker, "t", &[]);
    let is_over = AtomicBool::new(false);
    let bomb = bomb("zstd", 200 << 20);
    let attack = || {
        thread::scope(|scope| {
            let bombs: Vec<_> = (0..8)
                .map(|number| {
                    let (bomb, address, is_over) = (&bomb, &broker.address, &is_over);
                    scope.spawn(move || {
                        let mut wire = Wire::connect(address);
                        let topic = if number % 2 == 0 { "bombs" } else { "packed" };
                        let mut sent = 0;
                        while !is_over.load(Ordering::Relaxed) {
                            let answer = send(&mut wire, topic, bomb);
                            assert_eq!(answer.error_code, 0, "{answer:?}");
                            sent += 1;
                        }
                        sent
                    })
                })
                .collect();
            let over = Over(&is_over);
            let found = beside(&broker.address, "t", || {
                let mut wire = Wire::connect(&broker.address);
                let heartbeat = HeartbeatRequest::default()
                    .with_group_id(GroupId(text("g")))
                    .with_member_id(text("nobody"));
                let (mut slowest, mut asked) = (Duration::ZERO, 0);
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(8) {
                    let at = Instant::now();
                    wire.ask(3, &heartbeat);
                    wire.ask(8, &MetadataRequest::default().with_topics(None));
                    slowest = slowest.max(at.elapsed());
                    asked += 1;
                    thread::sleep(Duration::from_millis(10));
                }
                (slowest, asked)
            });
            drop(over);
            let sent: i32 = bombs.into_iter().map(|client| client.join().expect("no error")).sum();
            assert!(sent >= 8, "{sent} bombs");
            println!("{sent} bombs");
            found
        })
    };
    let (slowest, asked) = beside_a_good_client(&broker, 1_000, attack);
    println!("{asked} times asked, the slowest {slowest:?}; {} KiB", broker.resident_kib());
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(broker.resident_kib() < 400 << 10, "{} KiB", broker.resident_kib());
    assert!(broker.terminate().success());
}
