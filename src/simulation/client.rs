//! A simulated client: an idempotent producer and a reader of one partition.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::model::number::{be32, to_i32, to_u64, to_usize};
use crate::protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use crate::protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::protocol::messages::{
    BrokerId, FetchRequest, InitProducerIdRequest, ProduceRequest, ProducerId, TopicName,
};
use crate::protocol::{Request, decode_response, encode_request, text};
use crate::record::{BatchBuilder, Records, next_batch};
use crate::system::Random;
use crate::system::clock::{Instant, monotonic, sleep, timeout_at};

pub(super) const TOPIC: &str = "sim";

/// What a client knows; it outlives brokers.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub partition: i32,
    producer: Option<i64>,
    sequence: i32,
    next_value: u64,
    /// Sent, and not known to be stored or not.
    open: Option<(Vec<u64>, Vec<u8>)>,
    /// Value by offset, as acknowledged.
    pub acked: BTreeMap<i64, u64>,
    /// Value by offset, as read.
    pub seen: BTreeMap<i64, u64>,
    pub refused: usize,
    pub trace: Vec<String>,
    pub wrong: Vec<String>,
}

async fn call<R: Request>(
    stream: &mut DuplexStream,
    version: i16,
    request: &R,
) -> Option<R::Response> {
    let frame = encode_request(version, 7, request).expect("encodes");
    let answer = async {
        stream.write_all(&frame).await.ok()?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.ok()?;
        let mut answer = vec![0; to_usize(be32(&length, 0))];
        stream.read_exact(&mut answer).await.ok()?;
        Some(decode_response::<R>(version, 7, Bytes::from(answer)).expect("decodes"))
    };
    timeout_at(monotonic() + Duration::from_secs(5), answer).await.ok()?
}

pub(super) fn fetch_request(partition: i32, from: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20);
    let topic =
        FetchTopic::default().with_topic(TopicName(text(TOPIC))).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Sends a fetch that will wait for minutes.
pub(super) async fn ask_and_wait_long(stream: &mut DuplexStream) {
    let frame = encode_request(12, 7, &fetch_request(0, 0, 600_000)).expect("encodes");
    stream.write_all(&frame).await.expect("taken");
}

impl Client {
    pub(super) fn new(partition: i32) -> Self {
        Self { partition, ..Self::default() }
    }

    /// Produces and reads until the time is over or the broker goes.
    pub(super) async fn live(&mut self, mut stream: DuplexStream, random: Random, until: Instant) {
        while monotonic() < until {
            let went_on = if random.below(4) == 0 {
                self.read(&mut stream, &random).await
            } else {
                self.write(&mut stream, &random).await
            };
            if went_on.is_none() {
                self.trace.push(format!("client {}: connection lost", self.partition));
                return;
            }
            sleep(Duration::from_millis(random.below(20))).await;
        }
    }

    async fn write(&mut self, stream: &mut DuplexStream, random: &Random) -> Option<()> {
        let producer = if let Some(producer) = self.producer {
            producer
        } else {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let answered = call(stream, 4, &request).await?;
            if answered.error_code != 0 {
                return Some(());
            }
            *self.producer.insert(answered.producer_id.0)
        };
        if self.open.is_none() {
            let values: Vec<u64> = (0..=random.below(3)).map(|n| self.next_value + n).collect();
            self.next_value += to_u64(values.len());
            let mut builder = BatchBuilder::new().producer(producer, 0, self.sequence);
            for value in &values {
                let padding = vec![7; to_usize(random.below(400))];
                let bytes = [&value.to_be_bytes()[..], &padding].concat();
                builder = builder.record(1_000, None, Some(&bytes));
            }
            self.open = Some((values, builder.build()));
        }
        let (values, batch) = self.open.clone()?;
        let data = PartitionProduceData::default()
            .with_index(self.partition)
            .with_records(Some(Bytes::from(batch)));
        let topic = TopicProduceData::default()
            .with_name(TopicName(text(TOPIC)))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(1_000)
            .with_topic_data(vec![topic]);
        let answered = call(stream, 9, &request).await?;
        let answer = &answered.responses.first()?.partition_responses.first()?.clone();
        match answer.error_code {
            0 => {
                self.trace.push(format!(
                    "client {}: {values:?} at {}",
                    self.partition, answer.base_offset
                ));
                self.sequence += to_i32(values.len());
                self.acked.extend((answer.base_offset..).zip(values));
                self.open = None;
            }
            // Retriable: timed out, storage, no leader.
            7 | 56 | 3 => {
                self.refused += 1;
                self.trace
                    .push(format!("client {}: refused {}", self.partition, answer.error_code));
                sleep(Duration::from_millis(50)).await;
            }
            other => self.wrong.push(format!("client {}: error {other}", self.partition)),
        }
        Some(())
    }

    async fn read(&mut self, stream: &mut DuplexStream, random: &Random) -> Option<()> {
        let newest = self.seen.last_key_value().map_or(0, |(offset, _)| offset + 1);
        let from = if random.below(2) == 0 {
            newest
        } else {
            i64::try_from(random.below(to_u64(newest) + 1)).unwrap_or(0)
        };
        self.read_from(stream, from).await.map(|_| ())
    }

    /// Reads once from an offset and compares with what was seen before; returns the next offset.
    pub(super) async fn read_from(&mut self, stream: &mut DuplexStream, from: i64) -> Option<i64> {
        let request = fetch_request(self.partition, from, 20);
        let answered = call(stream, 12, &request).await?;
        let answer = answered.responses.first()?.partitions.first()?.clone();
        match answer.error_code {
            0 => {}
            56 | 3 => return Some(from),
            other => {
                self.wrong
                    .push(format!("client {}: read at {from}: error {other}", self.partition));
                return Some(from);
            }
        }
        let bytes = answer.records.unwrap_or_default();
        let (mut rest, mut next): (&[u8], i64) = (&bytes, from);
        while let Some((header, batch, after)) = next_batch(rest) {
            rest = after;
            next = header.last_offset() + 1;
            if next > answer.high_watermark {
                self.wrong.push(format!("client {}: read past the high watermark", self.partition));
            }
            for record in &Records::open(header, batch, 1 << 20).expect("opens") {
                let record = record.expect("whole");
                let value = record.value.and_then(|v| v.get(..8)?.try_into().ok());
                let value = u64::from_be_bytes(value.unwrap_or_default());
                let before = self.seen.insert(record.offset, value);
                if before.is_some_and(|before| before != value) {
                    self.wrong.push(format!(
                        "client {}: offset {} changed",
                        self.partition, record.offset
                    ));
                }
            }
        }
        Some(next)
    }

    /// Reads everything and says what is missing, doubled or changed.
    pub(super) async fn verify(&mut self, mut stream: DuplexStream) {
        let before = std::mem::take(&mut self.seen);
        let mut at = 0;
        loop {
            match self.read_from(&mut stream, at).await {
                Some(next) if next > at => at = next,
                _ => break,
            }
        }
        for (what, known) in [("acknowledged", &self.acked), ("seen", &before)] {
            for (offset, value) in known {
                if self.seen.get(offset) != Some(value) {
                    let found = self.seen.get(offset);
                    self.wrong.push(format!(
                        "client {}: {what} {value} at {offset} is now {found:?}",
                        self.partition
                    ));
                }
            }
        }
        let mut values: Vec<u64> = self.seen.values().copied().collect();
        if !values.is_sorted() {
            self.wrong.push(format!("client {}: out of order {values:?}", self.partition));
        }
        values.dedup();
        if values.len() != self.seen.len() {
            self.wrong.push(format!("client {}: doubled", self.partition));
        }
    }
}
