//! The steps of a produce and a fetch, one by one, for `benches/micro.rs`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Config, TopicConfig};
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
use crate::system::{Disk, OsDisk, SharedDisk};

/// A batch of `records` records of 1 KiB.
pub fn batch(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder = builder.record(1, None, Some(&[7; 1024]));
    }
    builder.build()
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
pub fn validate_batch(batch: &[u8]) -> i32 {
    let rules = BatchRules {
        bytes_max: batch.len(),
        plain_bytes_max: 1 << 30,
        keys_required: false,
        timestamps: Some(TimestampRules { before_max_ms: i64::MAX, after_max_ms: i64::MAX }),
    };
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
            self.log.flushed(end);
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
        records: FetchedRecords::External(1 << 20),
    };
    let topic = FetchedTopic {
        name: "topic",
        id: uuid::Uuid::nil(),
        partitions: (0..6).map(partition).collect(),
    };
    encode_fetch(&head, 0, 0, &[topic], &[]).iter().map(bytes::BytesMut::len).sum()
}
