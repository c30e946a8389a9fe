//! The client families, each of which reads a topic from its start to its last record.

use std::fmt::Write as _;

use super::lives::{Life, Outcome};
use super::read::Read;
use crate::compacted::{by_go, by_java, by_kafkajs, shapes};

/// What KafkaJS can't read.
const NOT_KAFKAJS: [i16; 3] = [2, 3, 4];

/// Whether the families can tell a topic's records: these have keys, and there are some.
pub(crate) fn can_tell(life: &Life, read: &Read) -> bool {
    life.model.point.keys > 0 && !read.records.is_empty()
}

/// Offset and key of each record, a line each.
fn lines(read: &Read) -> String {
    read.records.iter().fold(String::new(), |mut all, seen| {
        let _ = writeln!(all, "{} k{}", seen.offset, seen.key.unwrap_or_default());
        all
    })
}

/// Reads a topic, of which nothing changes any more, with every family.
pub(crate) fn read(address: &str, life: &Life, read: &Read, outcome: &mut Outcome) {
    let name = life.name();
    let expected = lines(read);
    let last = read.records.last().expect("a record").offset.to_string();
    let count = read.records.len().to_string();
    let python = |family: &str| shapes(address, &[family, &name, &last]);
    let mut all = vec![
        ("librdkafka", python("librdkafka")),
        ("kafka-python", python("kafka-python")),
        ("aiokafka", python("aiokafka")),
        ("franz-go", by_go("franz", address, &name, &last)),
        ("sarama", by_go("sarama", address, &name, &last)),
        ("kafka-go", by_go("kafka-go", address, &name, &last)),
        ("Java", by_java(address, &name, &count)),
    ];
    let point = &life.model.point;
    let has_other = NOT_KAFKAJS.contains(&point.codec) && point.stored != Some("uncompressed");
    if !has_other && point.stored != Some("zstd") {
        all.push(("KafkaJS", by_kafkajs(address, &name, &last)));
    }
    for (family, found) in all {
        outcome.count("topics read by client families", 1);
        if found != expected {
            let differs = found.lines().zip(expected.lines()).find(|(a, b)| a != b);
            let (is, should) = (found.lines().count(), expected.lines().count());
            outcome.findings.push(format!(
                "{name}: {family} reads {is} records instead of {should}; first difference {differs:?}"
            ));
        }
    }
}
