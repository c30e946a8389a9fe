//! The response to Fetch, written by hand so that record bytes can stay in their files.
//!
//! Invariants: equal to what the crate writes (a test compares every version); the chunks and the records left out
//! between them add up to the length at the front.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::ApiKey;
use uuid::Uuid;

use super::frame::RequestHead;
use crate::model::number::{to_i32, to_u32};

/// Fetch is flexible from this version (KIP-482).
const FLEXIBLE: i16 = 12;

/// The records of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FetchedRecords<'a> {
    Inline(&'a [u8]),
    /// So many bytes follow the chunk.
    External(usize),
}

/// A partition's answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchedPartition<'a> {
    pub index: i32,
    pub error: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start: i64,
    /// Null or empty: there are no transactions.
    pub has_aborted: bool,
    /// Who leads, for a client that asked the wrong one (KIP-951).
    pub leader: Option<(i32, i32)>,
    /// Who the consumer is to read from instead; -1: nobody (KIP-392).
    pub preferred: i32,
    /// Where a follower's log leaves this one: epoch and end offset (KIP-595).
    pub diverging: Option<(i32, i64)>,
    pub records: FetchedRecords<'a>,
}

/// A topic's answers.
#[derive(Debug, Clone)]
pub(crate) struct FetchedTopic<'a> {
    pub name: &'a str,
    pub id: Uuid,
    pub partitions: Vec<FetchedPartition<'a>>,
}

/// A node that a client is pointed to.
#[derive(Debug, Clone)]
pub(crate) struct FetchNode {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

struct Writer {
    out: BytesMut,
    chunks: Vec<BytesMut>,
    version: i16,
    external: usize,
}

/// Writes the response. External records belong after each chunk but the last, in order.
pub(crate) fn encode_fetch(
    head: &RequestHead,
    error: i16,
    session_id: i32,
    topics: &[FetchedTopic<'_>],
    nodes: &[FetchNode],
) -> Vec<BytesMut> {
    let inline = |p: &FetchedPartition<'_>| match p.records {
        FetchedRecords::Inline(bytes) => bytes.len() + 64,
        FetchedRecords::External(_) => 64,
    };
    let size: usize = topics.iter().flat_map(|t| &t.partitions).map(inline).sum::<usize>()
        + 64 * topics.len()
        + 64;
    let mut w = Writer {
        out: BytesMut::with_capacity(size),
        chunks: Vec::new(),
        version: head.version,
        external: 0,
    };
    w.out.put_i32(0);
    w.out.put_i32(head.correlation_id);
    if ApiKey::Fetch.response_header_version(head.version) >= 1 {
        w.out.put_u8(0);
    }
    w.out.put_i32(0);
    if w.version >= 7 {
        w.out.put_i16(error);
        w.out.put_i32(session_id);
    }
    w.length(Some(topics.len()));
    topics.iter().for_each(|topic| w.topic(topic));
    w.nodes(nodes);
    w.finish()
}

impl Writer {
    fn flexible(&self) -> bool {
        self.version >= FLEXIBLE
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value.to_le_bytes()[0]);
    }

    /// The length of an array or of bytes.
    fn length(&mut self, length: Option<usize>) {
        if self.flexible() {
            self.varint(length.map_or(0, |length| to_u32(length) + 1));
        } else {
            self.out.put_i32(length.map_or(-1, to_i32));
        }
    }

    fn text(&mut self, text: Option<&str>) {
        let bytes = text.unwrap_or_default().as_bytes();
        if self.flexible() {
            self.length(text.map(str::len));
        } else {
            self.out.put_i16(text.map_or(-1, |t| i16::try_from(t.len()).unwrap_or(i16::MAX)));
        }
        self.out.put_slice(bytes);
    }

    fn no_tags(&mut self) {
        if self.flexible() {
            self.out.put_u8(0);
        }
    }

    fn topic(&mut self, topic: &FetchedTopic<'_>) {
        if self.version >= 13 {
            self.out.put_slice(topic.id.as_bytes());
        } else {
            self.text(Some(topic.name));
        }
        self.length(Some(topic.partitions.len()));
        topic.partitions.iter().for_each(|partition| self.partition(partition));
        self.no_tags();
    }

    fn partition(&mut self, partition: &FetchedPartition<'_>) {
        self.out.put_i32(partition.index);
        self.out.put_i16(partition.error);
        self.out.put_i64(partition.high_watermark);
        self.out.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.out.put_i64(partition.log_start);
        }
        self.length(partition.has_aborted.then_some(0));
        if self.version >= 11 {
            self.out.put_i32(partition.preferred);
        }
        match partition.records {
            FetchedRecords::Inline(bytes) => {
                self.length(Some(bytes.len()));
                self.out.put_slice(bytes);
            }
            FetchedRecords::External(bytes) => {
                self.length(Some(bytes));
                self.external += bytes;
                let chunk = std::mem::take(&mut self.out);
                self.chunks.push(chunk);
            }
        }
        self.partition_tags(partition);
    }

    fn partition_tags(&mut self, partition: &FetchedPartition<'_>) {
        if !self.flexible() {
            return;
        }
        let count = u8::from(partition.diverging.is_some()) + u8::from(partition.leader.is_some());
        self.out.put_u8(count);
        if let Some((epoch, end)) = partition.diverging {
            // Tag 0, thirteen bytes.
            self.out.put_slice(&[0, 13]);
            self.out.put_i32(epoch);
            self.out.put_i64(end);
            self.out.put_u8(0);
        }
        if let Some((id, epoch)) = partition.leader {
            // Tag 1, nine bytes.
            self.out.put_slice(&[1, 9]);
            self.out.put_i32(id);
            self.out.put_i32(epoch);
            self.out.put_u8(0);
        }
    }

    fn nodes(&mut self, nodes: &[FetchNode]) {
        if self.version < 16 || nodes.is_empty() {
            self.no_tags();
            return;
        }
        let before = std::mem::take(&mut self.out);
        self.length(Some(nodes.len()));
        for node in nodes {
            self.out.put_i32(node.id);
            self.text(Some(&node.host));
            self.out.put_i32(node.port);
            self.text(node.rack.as_deref());
            self.no_tags();
        }
        let field = std::mem::replace(&mut self.out, before);
        self.out.put_slice(&[1, 0]);
        self.varint(to_u32(field.len()));
        self.out.put_slice(&field);
    }

    fn finish(mut self) -> Vec<BytesMut> {
        self.chunks.push(self.out);
        let bytes = self.chunks.iter().map(BytesMut::len).sum::<usize>() + self.external;
        if let Some(length) = self.chunks.first_mut().and_then(|first| first.get_mut(..4)) {
            length.copy_from_slice(&to_i32(bytes - 4).to_be_bytes());
        }
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::fetch_response::{
        EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
        PartitionData,
    };
    use kafka_protocol::messages::{BrokerId, TopicName};

    use super::*;
    use crate::protocol::{encode, text};

    fn ours(head: &RequestHead, external: bool) -> Vec<u8> {
        let records =
            if external { FetchedRecords::External(5) } else { FetchedRecords::Inline(b"batch") };
        let leader = (head.version >= 16).then_some((3, 9));
        let found = |index, records, leader| FetchedPartition {
            index,
            error: 6,
            high_watermark: 7,
            last_stable_offset: 7,
            log_start: 2,
            has_aborted: index == 1,
            leader,
            preferred: if head.version >= 11 { 4 } else { -1 },
            diverging: leader.map(|(_, epoch)| (epoch, 12)),
            records,
        };
        let id = Uuid::from_u128(77);
        let partitions =
            vec![found(0, records, leader), found(1, FetchedRecords::Inline(&[]), None)];
        let nodes = [FetchNode { id: 3, host: "h".into(), port: 9, rack: None }];
        let chunks =
            encode_fetch(head, 0, 55, &[FetchedTopic { name: "topic", id, partitions }], &nodes);
        let mut bytes = chunks[0].to_vec();
        if external {
            bytes.extend(b"batch");
            bytes.extend(&chunks[1]);
        }
        bytes
    }

    fn theirs(head: &RequestHead) -> Vec<u8> {
        let version = head.version;
        let partition = |index: i32| {
            let records = if index == 0 { Bytes::from_static(b"batch") } else { Bytes::new() };
            let mut data = PartitionData::default()
                .with_partition_index(index)
                .with_error_code(6)
                .with_high_watermark(7)
                .with_last_stable_offset(7)
                .with_aborted_transactions((index == 1).then(Vec::new))
                .with_records(Some(records));
            data.log_start_offset = if version >= 5 { 2 } else { -1 };
            data.preferred_read_replica = BrokerId(if version >= 11 { 4 } else { -1 });
            if version >= 16 && index == 0 {
                data.diverging_epoch = EpochEndOffset::default().with_epoch(9).with_end_offset(12);
                data.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(BrokerId(3)).with_leader_epoch(9);
            }
            data
        };
        let mut topic =
            FetchableTopicResponse::default().with_partitions(vec![partition(0), partition(1)]);
        if version >= 13 {
            topic.topic_id = Uuid::from_u128(77);
        } else {
            topic.topic = TopicName(text("topic"));
        }
        let mut response = FetchResponse::default().with_responses(vec![topic]);
        response.session_id = if version >= 7 { 55 } else { 0 };
        if version >= 16 {
            let node =
                NodeEndpoint::default().with_node_id(BrokerId(3)).with_host(text("h")).with_port(9);
            response.node_endpoints = vec![node];
        }
        encode(head, &response).expect("encodes").to_vec()
    }

    #[test]
    fn the_bytes_are_those_of_the_schema_in_every_version() {
        for version in 4..=18 {
            let head = RequestHead {
                key: ApiKey::Fetch,
                version,
                correlation_id: 5,
                client_id: None,
                is_future_api_versions: false,
            };
            assert_eq!(ours(&head, false), theirs(&head), "version {version}");
            assert_eq!(ours(&head, true), theirs(&head), "version {version}, records outside");
        }
    }
}
