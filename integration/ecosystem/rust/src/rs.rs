//! rskafka.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

use crate::{CODECS, Failure, RECORDS, key, sam, value};

const BATCH: usize = 250;

fn compression(codec: &str) -> Compression {
    match codec {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::NoCompression,
    }
}

fn at(n: usize) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_700_000_000_000 + n as i64).expect("a time")
}

fn headers(n: usize) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("n".to_owned(), n.to_string().into_bytes()), ("empty".to_owned(), Vec::new())])
}

async fn client(address: &str) -> Result<Client, Failure> {
    Ok(ClientBuilder::new(vec![address.to_owned()]).build().await?)
}

async fn partition(client: &Client, topic: &str) -> Result<PartitionClient, Failure> {
    Ok(client.partition_client(topic, 0, UnknownTopicHandling::Retry).await?)
}

/// Makes the topics of both, and fills its own.
pub async fn write(address: &str) -> Result<(), Failure> {
    let client = client(address).await?;
    let controller = client.controller_client()?;
    for codec in sam::WRITES {
        controller.create_topic(format!("samsa-{codec}"), 1, 1, 5_000).await?;
    }
    for codec in CODECS {
        let topic = format!("rskafka-{codec}");
        controller.create_topic(&topic, 1, 1, 5_000).await?;
        let partition = partition(&client, &topic).await?;
        for first in (0..RECORDS).step_by(BATCH) {
            let records = (first..first + BATCH).map(|n| Record {
                key: Some(key(n).into_bytes()),
                value: Some(value(n).into_bytes()),
                headers: headers(n),
                timestamp: at(n),
            });
            let produced = partition.produce(records.collect(), compression(codec)).await?;
            let expected: Vec<i64> = (first..first + BATCH).map(|n| n as i64).collect();
            if produced != expected {
                return Err(format!("{topic}: offsets {produced:?}").into());
            }
        }
    }
    Ok(())
}

/// Everything in a topic; where the records are its own, headers and times too.
pub async fn read(address: &str, topic: &str) -> Result<Vec<(String, String)>, Failure> {
    let client = client(address).await?;
    let partition = partition(&client, topic).await?;
    let mut found = Vec::new();
    let mut offset = partition.get_offset(OffsetAt::Earliest).await?;
    let end = partition.get_offset(OffsetAt::Latest).await?;
    while offset < end {
        let (records, _) = partition.fetch_records(offset, 1..100_000, 1_000).await?;
        for record in records {
            if record.offset != offset {
                return Err(format!("{topic}: {} where {offset} comes", record.offset).into());
            }
            let n = found.len();
            let is_own = topic.starts_with("rskafka");
            let record = record.record;
            if is_own && (record.headers != headers(n) || record.timestamp != at(n)) {
                return Err(format!("{topic}: {record:?} at {n}").into());
            }
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default());
            found.push((text(record.key)?, text(record.value)?));
            offset += 1;
        }
    }
    Ok(found)
}

/// Offsets by time, and records deleted.
pub async fn ask(address: &str) -> Result<(), Failure> {
    let client = client(address).await?;
    let partition = partition(&client, "rskafka-zstd").await?;
    let by_time = partition.get_offset(OffsetAt::Timestamp(at(1_234))).await?;
    if by_time != 1_234 {
        return Err(format!("the record of a time is at {by_time}").into());
    }
    partition.delete_records(100, 5_000).await?;
    let start = partition.get_offset(OffsetAt::Earliest).await?;
    if start != 100 {
        return Err(format!("the log starts at {start}").into());
    }
    let topics = client.list_topics().await?;
    if topics.iter().filter(|topic| topic.name.contains('-')).count()
        != CODECS.len() + sam::WRITES.len()
    {
        return Err(format!("topics: {topics:?}").into());
    }
    Ok(())
}
