//! A client of a simulated cluster: an idempotent producer and a reader of one partition that finds its leader.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::client::{TOPIC, fetch_request};
use super::net::{SimDialer, SimNet};
use super::nodes::STARTED_MS;
use crate::model::number::{to_i32, to_u64, to_usize};
use crate::network::client::FramedClient;
use crate::protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::protocol::messages::metadata_request::MetadataRequestTopic;
use crate::protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::protocol::messages::{
    BrokerId, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
    ProducerId, TopicName,
};
use crate::protocol::{Request, decode_response, encode_request, text};
use crate::record::{BatchBuilder, Records, next_batch};
use crate::system::Random;
use crate::system::clock::{Instant, monotonic, sleep, timeout_at, uptime_ms};

/// Different keys, where records have some.
const KEYS: u64 = 9;
const PATIENCE: Duration = Duration::from_secs(3);

/// See the file's header.
pub(super) struct Producer {
    pub partition: i32,
    /// Whether records have keys, of which only the newest record has to stay.
    pub is_keyed: bool,
    /// What is kept at least, where the oldest records go: those past the start that bring as many bytes have to be there.
    pub retention_bytes: Option<u64>,
    /// Where the log began when it was last looked.
    pub start: i64,
    /// Bytes of acknowledged batches, by their base offsets.
    sizes: BTreeMap<i64, u64>,
    /// Whether some are large: on the other side of what is read and sent at once.
    pub has_large: bool,
    dialer: SimDialer,
    nodes: u32,
    random: Random,
    leader: Option<FramedClient>,
    id: Option<i64>,
    sequence: i32,
    next_value: u64,
    /// Sent, and not known to be stored or not.
    open: Option<(Vec<u64>, Vec<u8>)>,
    pub acked: BTreeMap<i64, u64>,
    pub seen: BTreeMap<i64, u64>,
    pub refused: usize,
    pub trace: Vec<String>,
    pub wrong: Vec<String>,
}

fn key_of(value: u64) -> u64 {
    value % KEYS
}

async fn call<R: Request>(
    client: &mut FramedClient,
    version: i16,
    request: &R,
) -> Option<R::Response> {
    let frame = encode_request(version, 7, request).expect("encodes");
    let exchange = async {
        client.send(&frame).await.ok()?;
        client.receive().await.ok()
    };
    let answer = timeout_at(monotonic() + PATIENCE, exchange).await.ok()??;
    decode_response::<R>(version, 7, answer).ok()
}

impl Producer {
    pub(super) fn new(partition: i32, nodes: u32, net: &SimNet, random: &Random) -> Self {
        let from = 100 + u32::try_from(partition).expect("small");
        Self {
            partition,
            is_keyed: false,
            retention_bytes: None,
            start: 0,
            sizes: BTreeMap::new(),
            has_large: false,
            dialer: SimDialer { net: net.clone(), from },
            nodes,
            random: Random::seeded(random.next_u64()),
            leader: None,
            id: None,
            sequence: 0,
            next_value: 0,
            open: None,
            acked: BTreeMap::new(),
            seen: BTreeMap::new(),
            refused: 0,
            trace: Vec::new(),
            wrong: Vec::new(),
        }
    }

    async fn connect(&self, address: &str) -> Option<FramedClient> {
        let dialing = FramedClient::dial(&self.dialer, address);
        timeout_at(monotonic() + Duration::from_secs(1), dialing).await.ok()?.ok()
    }

    /// Asks any node who leads, and connects to it.
    async fn find_leader(&mut self) -> Option<()> {
        let node = 1 + self.random.below(self.nodes.into());
        let mut any = self.connect(&format!("n{node}:9092")).await?;
        if self.id.is_none() {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1);
            let answered = call(&mut any, 4, &request).await?;
            self.id = (answered.error_code == 0).then_some(answered.producer_id.0);
            self.id?;
        }
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(TOPIC))));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(false);
        let answered = call(&mut any, 9, &request).await?;
        let partitions = &answered.topics.first()?.partitions;
        let found = partitions.iter().find(|p| p.partition_index == self.partition)?;
        let leader = answered.brokers.iter().find(|b| b.node_id == found.leader_id)?;
        self.leader = Some(self.connect(&format!("{}:{}", &*leader.host, leader.port)).await?);
        Some(())
    }

    /// One step: something is produced or read, or the leader is looked for.
    pub(super) async fn step(&mut self) {
        if self.leader.is_none() && self.find_leader().await.is_none() {
            sleep(Duration::from_millis(50)).await;
            return;
        }
        // What goes too early is noticed only as long as little comes after it.
        if self.retention_bytes.is_some()
            && self.random.below(4) == 0
            && self.find_start().await.is_none()
        {
            self.leader = None;
            return;
        }
        let went_on =
            if self.random.below(4) == 0 { self.read().await } else { self.write().await };
        if went_on.is_none() {
            self.leader = None;
        }
    }

    /// Produces and reads until the time is over.
    pub(super) async fn live(&mut self, until: Instant) {
        while monotonic() < until {
            self.step().await;
            sleep(Duration::from_millis(self.random.below(40))).await;
        }
    }

    /// Whether everything that was sent is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.open.is_none()
    }

    /// Goes on until what is open is acknowledged.
    pub(super) async fn settle(&mut self, until: Instant) {
        while !self.is_settled() && monotonic() < until {
            if self.leader.is_none() && self.find_leader().await.is_none() {
                sleep(Duration::from_millis(50)).await;
            } else if self.write().await.is_none() {
                self.leader = None;
            }
        }
    }

    /// How much a record has besides its value.
    fn padding(&self) -> usize {
        let kind = if self.has_large { self.random.below(8) } else { 7 };
        to_usize(match kind {
            0 => 31_000 + self.random.below(4_000),
            1 => 3_500 + self.random.below(1_200),
            _ => self.random.below(200),
        })
    }

    async fn write(&mut self) -> Option<()> {
        let id = self.id?;
        if self.open.is_none() {
            let values: Vec<u64> =
                (0..=self.random.below(3)).map(|n| self.next_value + n).collect();
            self.next_value += to_u64(values.len());
            let now_ms = STARTED_MS + uptime_ms();
            let mut builder = BatchBuilder::new().producer(id, 0, self.sequence);
            for value in &values {
                let padding = vec![7; self.padding()];
                let bytes = [&value.to_be_bytes()[..], &padding].concat();
                // Of the run's own time: what is much older makes a log forget its producers (KIP-98).
                let key = self.is_keyed.then(|| key_of(*value).to_be_bytes());
                builder = builder.record(now_ms, key.as_ref().map(|key| &key[..]), Some(&bytes));
            }
            self.open = Some((values, builder.build()));
        }
        let (values, batch) = self.open.clone()?;
        let bytes = to_u64(batch.len());
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
        let answered = call(self.leader.as_mut()?, 9, &request).await?;
        let answer = answered.responses.first()?.partition_responses.first()?.clone();
        match answer.error_code {
            0 => {
                self.trace
                    .push(format!("p{}: {values:?} at {}", self.partition, answer.base_offset));
                self.sequence += to_i32(values.len());
                self.sizes.insert(answer.base_offset, bytes);
                for (offset, value) in (answer.base_offset..).zip(values) {
                    if self.acked.insert(offset, value).is_some_and(|before| before != value) {
                        self.wrong
                            .push(format!("p{}: {offset} acknowledged twice", self.partition));
                    }
                }
                self.open = None;
                Some(())
            }
            // Unknown partition, no leader, not the leader, timed out, too few in sync (before and after), storage.
            3 | 5 | 6 | 7 | 19 | 20 | 56 => {
                self.refused += 1;
                self.trace.push(format!("p{}: refused {}", self.partition, answer.error_code));
                sleep(Duration::from_millis(20)).await;
                None
            }
            other => {
                let now_ms = uptime_ms();
                let what =
                    format!("p{}: {now_ms} ms: error {other} for {values:?}", self.partition);
                self.trace.push(what.clone());
                self.wrong.push(what);
                None
            }
        }
    }

    async fn read(&mut self) -> Option<()> {
        let newest = self.seen.last_key_value().map_or(0, |(offset, _)| offset + 1);
        let from = if self.random.below(2) == 0 {
            newest
        } else {
            i64::try_from(self.random.below(to_u64(newest) + 1)).unwrap_or(0)
        };
        self.read_from(from).await.map(drop)
    }

    /// Reads once from an offset and compares with what was seen before; returns the next offset.
    async fn read_from(&mut self, from: i64) -> Option<i64> {
        let request = fetch_request(self.partition, from, 20);
        let answered = call(self.leader.as_mut()?, 10, &request).await?;
        let answer = answered.responses.first()?.partitions.first()?.clone();
        match answer.error_code {
            0 => {}
            // 78: a new leader that does not know yet what is in the bucket.
            3 | 5 | 6 | 56 | 78 => return None,
            1 if self.retention_bytes.is_some() => {
                self.find_start().await?;
                return Some(self.start).filter(|start| *start > from);
            }
            // A new leader that does not know yet what is committed has nothing there.
            1 if from > 0 => return None,
            other => {
                self.wrong.push(format!("p{}: read at {from}: error {other}", self.partition));
                return None;
            }
        }
        let bytes = answer.records.unwrap_or_default();
        let (mut rest, mut next): (&[u8], i64) = (&bytes, from);
        let mut is_bare = !bytes.is_empty();
        while let Some((header, batch, after)) = next_batch(rest) {
            rest = after;
            next = header.last_offset() + 1;
            if next > answer.high_watermark {
                self.wrong.push(format!("p{}: read past the high watermark", self.partition));
            }
            for record in &Records::open(header, batch, 1 << 20).expect("opens") {
                let record = record.expect("whole");
                is_bare = false;
                let value = record.value.and_then(|v| v.get(..8)?.try_into().ok());
                let value = u64::from_be_bytes(value.unwrap_or_default());
                let before = self.seen.insert(record.offset, value);
                if before.is_some_and(|before| before != value) {
                    let what = format!("p{}: offset {} changed", self.partition, record.offset);
                    self.wrong.push(what);
                }
            }
        }
        // The newest acknowledged record is there, or one of its key that came later. A new leader may not know yet that it is committed.
        let is_visible = |newest: i64| (next..answer.high_watermark).contains(&newest);
        if is_bare && self.acked.last_key_value().is_some_and(|(newest, _)| is_visible(*newest)) {
            self.wrong.push(format!(
                "p{}: no records from {from} to {next} of {}",
                self.partition, answer.high_watermark
            ));
        }
        Some(next)
    }

    /// Asks where the log begins, and says what is gone that ought to be there.
    async fn find_start(&mut self) -> Option<()> {
        let Some(retention_bytes) = self.retention_bytes else { return Some(()) };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(self.partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(-2);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_partitions(vec![partition]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answered = call(self.leader.as_mut()?, 7, &request).await?;
        let answer = answered.topics.first()?.partitions.first()?.clone();
        if answer.error_code != 0 {
            return None;
        }
        let start = answer.offset;
        // A new leader that does not know yet what retention did to the bucket may begin earlier for a while.
        self.start = self.start.max(start);
        // What is open may be there as well.
        let open = self.open.as_ref().map_or(0, |(_, batch)| to_u64(batch.len()));
        let left = self.sizes.range(start..).map(|(_, bytes)| bytes).sum::<u64>() + open;
        if start > 0 && left < retention_bytes {
            let what = format!("begins at {start}, with {left} bytes of {retention_bytes}");
            self.wrong.push(format!("p{}: {what}", self.partition));
        }
        Some(())
    }

    /// Whether there is a newer record of the same key.
    fn is_superseded(&self, offset: i64, value: u64) -> bool {
        let mut newer = self.seen.range(offset + 1..);
        self.is_keyed
            && !self.seen.contains_key(&offset)
            && newer.any(|(_, other)| key_of(*other) == key_of(value))
    }

    /// Reads everything and says what is missing, doubled or changed.
    pub(super) async fn verify(&mut self, until: Instant) {
        let before = std::mem::take(&mut self.seen);
        let newest = self.acked.keys().chain(before.keys()).max().copied().unwrap_or(-1);
        let mut at = 0;
        while at <= newest && monotonic() < until {
            if self.leader.is_none() && self.find_leader().await.is_none() {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            if at == 0 && self.find_start().await.is_none() {
                self.leader = None;
                continue;
            }
            match self.read_from(at).await {
                Some(next) => at = next,
                None => self.leader = None,
            }
        }
        for (what, known) in [("acknowledged", &self.acked), ("seen", &before)] {
            for (offset, value) in known.range(self.start..) {
                if self.seen.get(offset) != Some(value) && !self.is_superseded(*offset, *value) {
                    let found = self.seen.get(offset);
                    self.wrong.push(format!(
                        "p{}: {what} {value} at {offset} is now {found:?}",
                        self.partition
                    ));
                }
            }
        }
        let mut values: Vec<u64> = self.seen.values().copied().collect();
        if !values.is_sorted() {
            self.wrong.push(format!("p{}: out of order {values:?}", self.partition));
        }
        values.dedup();
        if values.len() != self.seen.len() {
            self.wrong.push(format!("p{}: doubled", self.partition));
        }
    }
}
