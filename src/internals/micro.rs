//! The steps of a produce and a fetch, one by one, for `benches/micro.rs`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Config, Origin, TopicConfig};
use crate::controller::alone::alone;
use crate::coordinator::{CommitRequest, GroupSettings, Groups, JoinRequest, SyncRequest};
use crate::log::{FileCache, Log, LogParts, RecoveryPoint, Stamp};
use crate::model::TopicPartition;
use crate::protocol::messages::ProduceRequest;
use crate::protocol::messages::TopicName;
use crate::protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::protocol::{
    FetchedPartition, FetchedRecords, FetchedTopic, decode, encode_fetch, encode_request,
    parse_head, text,
};
use crate::record::{BatchBuilder, BatchHeader, BatchRules, TimestampRules, validate};
use crate::replication::{Lease, PartitionSpec, PartitionState, Replicas};
use crate::system::{Clock, Disk, OsDisk, Random, SharedDisk};

/// A batch of `records` records of 1 KiB.
pub fn batch(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder = builder.record(1, None, Some(&[7; 1024]));
    }
    builder.build()
}

/// A batch that a producer closes at so many bytes, of records as applications send them, under a codec.
pub fn typical_batch(bytes: usize, record_bytes: usize, codec: &str) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["customer", "order", "pending", "shipped", "amount", "currency", "EUR", "address"];
    let mut state = 7_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).expect("small")
    };
    let mut record = |number: usize| {
        let mut text = format!("{{\"id\":{number}");
        while text.len() < record_bytes {
            let word = WORDS.get(next() % WORDS.len()).expect("a word");
            let _ = write!(text, ",\"{word}\":\"{:x}\"", next() % (1 << 20));
        }
        text.truncate(record_bytes);
        text.into_bytes()
    };
    let codec = crate::record::Codec::from_name(codec).expect("a codec");
    let mut builder = BatchBuilder::new().codec(codec);
    let (mut number, mut built) = (0, Vec::new());
    // As producers do: the batch is closed by the size that its records have once they are compressed.
    loop {
        for _ in 0..(bytes / record_bytes / 16).max(1) {
            let value = record(number);
            builder = builder.record(1, Some(&number.to_be_bytes()), Some(&value));
            number += 1;
        }
        let now = builder.clone().build();
        if now.len() > bytes {
            return if built.is_empty() { now } else { built };
        }
        built = now;
    }
}

/// What a batch takes that is checked on a thread that runs tasks, as it is guessed.
pub fn guessed_effort(batch: &[u8]) -> std::time::Duration {
    crate::record::effort(batch, &rules(batch, true), None, 1).time
}

fn rules(batch: &[u8], walks: bool) -> BatchRules {
    BatchRules {
        bytes_max: batch.len(),
        plain_bytes_max: 1 << 30,
        walks,
        keys_required: false,
        timestamps: Some(TimestampRules { before_max_ms: i64::MAX, after_max_ms: i64::MAX }),
    }
}

/// A produce request for six partitions, each with the batch.
pub fn produce_frame(batch: &[u8]) -> Bytes {
    let data = |index| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(Bytes::copy_from_slice(batch)))
    };
    let topic = TopicProduceData::default()
        .with_name(TopicName(text("topic")))
        .with_partition_data((0..6).map(data).collect());
    let request = ProduceRequest::default().with_acks(1).with_topic_data(vec![topic]);
    encode_request(9, 1, &request).expect("encodes").freeze().slice(4..)
}

/// Decodes a produce request; returns the bytes of its batches.
pub fn decode_produce(frame: &Bytes) -> usize {
    let mut body = frame.clone();
    let head = parse_head(&mut body).expect("a head");
    let request: ProduceRequest = decode(&head, &mut body).expect("a request");
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    partitions.map(|p| p.records.as_ref().map_or(0, Bytes::len)).sum()
}

/// Checks a batch as a leader does, its checksum with it.
pub fn validate_batch(batch: &[u8], walks: bool) -> i32 {
    let rules = rules(batch, walks);
    let header = validate::check_frame(batch, batch.len()).expect("a frame");
    validate::check_header(&header, batch.len()).expect("a header");
    validate::check_records(&header, batch, &rules, 1).expect("records");
    header.count
}

/// A log in a folder, on the real disk.
#[derive(Debug)]
pub struct MeasuredLog {
    log: Log,
}

impl MeasuredLog {
    /// Opens an empty log.
    pub fn open(folder: PathBuf) -> Self {
        let disk: SharedDisk = Arc::new(OsDisk);
        disk.create_dir_all(&folder).expect("a folder");
        let cache = Arc::new(FileCache::new(disk, 4, 4));
        let overrides = [("segment.bytes".to_owned(), "268435456".to_owned())].into();
        let config = Arc::new(TopicConfig::resolve(&Config::default(), &overrides));
        let (name, point) = (TopicPartition::new("t", 0), RecoveryPoint::default());
        let opened = Log::open(name, folder, LogParts { cache, config }, point, 0);
        Self { log: opened.expect("opens").0 }
    }

    /// Appends a checked batch; keeps at most a gigabyte.
    pub fn append(&mut self, batch: &[u8]) {
        let header = BatchHeader::parse(batch).expect("a header");
        self.log.append(&header, batch, Stamp { leader_epoch: 0, now_ms: 1 }).expect("appended");
        if self.log.bytes() > 1 << 30 {
            let end = self.log.log_end();
            let job = self.log.flush_job().expect("something to flush");
            self.log.flushed(&job);
            self.log.trim(end);
            let deleted = self.log.apply_retention(1, end).expect("retention");
            for path in deleted.iter().flat_map(|segment| &segment.files) {
                OsDisk.remove(path).expect("removed");
            }
        }
    }

    /// Finds the bytes of the last batch, as a consumer at the tail does.
    pub fn read_tail(&self, bytes_max: usize) -> usize {
        let at = self.log.log_end() - 1;
        let slice = self.log.slice(at, self.log.end(), bytes_max, true).expect("found");
        slice.map_or(0, |slice| slice.bytes)
    }
}

/// Encodes a fetch answer of six partitions whose records are sent from files.
pub fn encode_fetch_answer(frame: &Bytes) -> usize {
    let mut body = frame.clone();
    let mut head = parse_head(&mut body).expect("a head");
    head.version = 12;
    let partition = |index| FetchedPartition {
        index,
        error: 0,
        high_watermark: 100,
        last_stable_offset: 100,
        log_start: 0,
        has_aborted: false,
        leader: None,
        preferred: -1,
        diverging: None,
        records: FetchedRecords::External(1 << 20),
    };
    let topic = FetchedTopic {
        name: "topic",
        id: uuid::Uuid::nil(),
        partitions: (0..6).map(partition).collect(),
    };
    encode_fetch(&head, 0, 0, &[topic], &[]).iter().map(bytes::BytesMut::len).sum()
}

/// A loaded coordinator over one partition of its topic in `folder`, and the replicas below it.
pub(crate) async fn coordinator(
    disk: &SharedDisk,
    folder: &Path,
    mut config: Config,
    settings: GroupSettings,
) -> (Arc<Groups>, Arc<Replicas>) {
    config.set("log.dirs", &folder.to_string_lossy(), Origin::File).expect("valid");
    let (clock, random) = (Clock::system(), Random::seeded(5));
    let parts = (clock.clone(), random.clone());
    let lease = (Lease::endless(), None);
    let replicas = crate::broker::replica_settings(&config);
    let replicas = Replicas::open(disk, replicas, parts, lease).expect("opens");
    let controller = alone(disk, folder, config.clone(), random.clone()).await;
    replicas.awake().keep_counting();
    let groups =
        Groups::new(settings, Arc::clone(&replicas), Arc::clone(&controller), clock, random);
    if groups.is_new() {
        controller.create_topic(&groups.offsets_topic(), false).await.expect("made");
    }
    let spec = PartitionSpec {
        name: TopicPartition::new("__consumer_offsets", 0),
        topic_id: uuid::Uuid::from_u128(1),
        state: PartitionState {
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            replicas: vec![1],
            isr: vec![1],
            transfer_to: None,
        },
        config: Arc::new(TopicConfig::resolve(&config, &[].into())),
    };
    replicas.start(&[spec]).expect("starts");
    groups.load_all().await;
    (groups, replicas)
}

/// The group coordinator over a log on the real disk.
#[derive(Debug)]
pub struct MeasuredGroups {
    groups: Arc<Groups>,
    members: Vec<String>,
}

impl MeasuredGroups {
    /// Starts a coordinator without groups in an empty folder; needs a runtime.
    pub async fn open(folder: &Path) -> Self {
        let mut config = Config::default();
        config.set("offsets.topic.num.partitions", "1", Origin::File).expect("valid");
        let settings = crate::broker::group_settings(&config);
        let disk: SharedDisk = Arc::new(OsDisk);
        let (groups, _) = coordinator(&disk, folder, config, settings).await;
        groups.start_timers();
        Self { groups, members: Vec::new() }
    }

    /// Members join one group, all get its generation, the first assigns, all get their part.
    pub async fn rebalance(&mut self, members: usize) {
        self.members.resize(members, String::new());
        let joining: Vec<_> = self
            .members
            .iter()
            .map(|id| self.groups.join(&join_request("g", id)).expect("joins"))
            .collect();
        let (mut generation, mut leader) = (0, String::new());
        for (receiver, id) in joining.into_iter().zip(&mut self.members) {
            let joined = receiver.await.expect("an answer");
            assert!(joined.error.is_none(), "{:?}", joined.error);
            *id = joined.member_id;
            (generation, leader) = (joined.generation, joined.leader);
        }
        let part = |id: &String| (id.clone(), Bytes::from_static(b"partitions"));
        let syncing: Vec<_> = self
            .members
            .iter()
            .map(|id| {
                let assigns = *id == leader;
                let request = SyncRequest {
                    group: "g".to_owned(),
                    generation,
                    member_id: id.clone(),
                    assignments: self.members.iter().filter(|_| assigns).map(part).collect(),
                    ..SyncRequest::default()
                };
                self.groups.sync(&request).expect("syncs")
            })
            .collect();
        for receiver in syncing {
            receiver.await.expect("an answer").expect("synced");
        }
    }

    /// Heartbeats of every member.
    pub fn heartbeats(&self) {
        for id in &self.members {
            let _ = self.groups.heartbeat("g", id, None, 1);
        }
    }

    /// So many groups commit an offset each.
    pub async fn commits(&self, groups: usize) {
        let mut pending = Vec::new();
        for number in 0..groups {
            let request = CommitRequest {
                group: format!("group-{number}"),
                generation: -1,
                offsets: vec![("t".into(), 0, 7, -1, String::new())],
                ..CommitRequest::default()
            };
            pending.push(self.groups.commit(request).expect("written"));
        }
        for done in pending {
            done.await.expect("durable");
        }
    }
}

fn join_request(group: &str, member_id: &str) -> JoinRequest {
    JoinRequest {
        group: group.to_owned(),
        member_id: member_id.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"subscription"))],
        ..JoinRequest::default()
    }
}
