//! samsa.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use samsa::prelude::{
    BrokerAddress, Compression, ConsumerBuilder, ConsumerGroupBuilder, Header, KafkaCode,
    ProduceMessage, ProducerBuilder, TcpConnection, TopicPartitionsBuilder,
};

use crate::{Failure, RECORDS, key, value};

/// Longest time until the next record.
const PATIENCE: Duration = Duration::from_secs(30);

fn brokers(address: &str) -> Result<Vec<BrokerAddress>, Failure> {
    let (host, port) = address.rsplit_once(':').ok_or("host:port")?;
    Ok(vec![BrokerAddress { host: host.to_owned(), port: port.parse()? }])
}

fn text(bytes: &[u8]) -> Result<String, Failure> {
    Ok(String::from_utf8(bytes.to_vec())?)
}

/// The codecs with which it writes what others can read: its lz4 is not in frames as Kafka's is, and its requests are of versions that know no
/// zstd, which is refused, here as by Apache Kafka.
pub const WRITES: [&str; 3] = ["none", "gzip", "snappy"];

/// The codecs that it reads, by others.
pub const READS: [&str; 4] = ["none", "gzip", "snappy", "zstd"];

/// More than a topic has: it does not know of batches that are cut off where an answer ends.
const BYTES_MAX: i32 = 4_000_000;

/// Fills its topics.
pub async fn write(address: &str) -> Result<(), Failure> {
    for codec in WRITES {
        let topic = format!("samsa-{codec}");
        let mut producer =
            ProducerBuilder::<TcpConnection>::new(brokers(address)?, vec![topic.clone()])
                .await
                .map_err(|error| format!("{error:?}"))?;
        // It does not read the answer where that is -1, and takes it for that to its next request.
        producer.required_acks(1).timeout_ms(10_000);
        match codec {
            "gzip" => producer.compression(Compression::Gzip),
            "snappy" => producer.compression(Compression::Snappy),
            _ => &mut producer,
        };
        let name = topic.clone();
        let messages = stream::iter(0..RECORDS).map(move |n| ProduceMessage {
            topic: name.clone(),
            partition_id: 0,
            key: Some(key(n).into_bytes().into()),
            value: Some(value(n).into_bytes().into()),
            headers: vec![Header::new("n".to_owned(), n.to_string().into())],
        });
        let answers = producer.clone().build_from_stream(messages.chunks(250)).await;
        tokio::pin!(answers);
        let mut acknowledged = 0;
        while let Some(answer) = answers.next().await {
            for response in answer.into_iter().flatten().flat_map(|answer| answer.responses) {
                for partition in response.partition_responses {
                    if partition.error_code != KafkaCode::None {
                        return Err(format!("{topic}: {:?}", partition.error_code).into());
                    }
                    acknowledged += 1;
                }
            }
        }
        if acknowledged != RECORDS / 250 {
            return Err(format!("{topic}: {acknowledged} batches acknowledged").into());
        }
    }
    Ok(())
}

pub async fn read(address: &str, topic: &str) -> Result<Vec<(String, String)>, Failure> {
    let assignment = TopicPartitionsBuilder::new().assign(topic.to_owned(), vec![0]).build();
    let consumer = ConsumerBuilder::<TcpConnection>::new(brokers(address)?, assignment)
        .await
        .map_err(|error| format!("{error:?}"))?
        .max_bytes(BYTES_MAX)
        .max_partition_bytes(BYTES_MAX)
        .build()
        .into_stream();
    tokio::pin!(consumer);
    let mut found = Vec::new();
    while found.len() < RECORDS {
        let batch = tokio::time::timeout(PATIENCE, consumer.next()).await?;
        for message in batch.ok_or("it ended")?.map_err(|error| format!("{error:?}"))? {
            if message.offset != found.len() {
                return Err(format!("{topic}: {} at {}", message.offset, found.len()).into());
            }
            found.push((text(&message.key)?, text(&message.value)?));
        }
    }
    Ok(found)
}

/// Reads as a group, of one topic: of an answer with two it makes a muddle.
pub async fn group(address: &str) -> Result<(), Failure> {
    let topic = "rskafka-gzip";
    let assignment = TopicPartitionsBuilder::new().assign(topic.to_owned(), vec![0]).build();
    let member = ConsumerGroupBuilder::<TcpConnection>::new(
        brokers(address)?,
        "samsas".to_owned(),
        assignment,
    )
    .await
    .map_err(|error| format!("{error:?}"))?
    .max_bytes(BYTES_MAX)
    .max_partition_bytes(BYTES_MAX)
    .build()
    .await
    .map_err(|error| format!("{error:?}"))?
    .into_stream();
    tokio::pin!(member);
    let mut found = BTreeSet::new();
    while found.len() < RECORDS {
        let batch = tokio::time::timeout(PATIENCE, member.next()).await?;
        for message in batch.ok_or("it ended")?.map_err(|error| format!("{error:?}"))? {
            if text(&message.key)? != key(message.offset)
                || text(&message.value)? != value(message.offset)
            {
                return Err(format!(
                    "{}: another record at {}",
                    message.topic_name, message.offset
                )
                .into());
            }
            found.insert(message.offset);
        }
    }
    // What it read last it commits with its next round.
    let _ = tokio::time::timeout(Duration::from_secs(2), member.next()).await;
    Ok(())
}
