//! The records of `__consumer_offsets`, in Kafka's own format, so that tools which read it work.
//!
//! Invariants: every length is checked; a record of a kind or version that is not known is skipped, never guessed.
//! Formats: OffsetCommitKey 0-1, OffsetCommitValue 0-3, GroupMetadataKey 2, GroupMetadataValue 0-3.

use bytes::Bytes;

use crate::model::number::{be16, be32, be64, to_i32, to_usize};
use crate::model::{LeaderEpoch, Offset, Timestamp};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const VALUE_VERSION: i16 = 3;
const EXPIRING_VERSION: i16 = 1;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: String,
    pub commit_ms: Timestamp,
    /// Where the client gave a retention time (OffsetCommit 2 to 4).
    pub expire_ms: Option<Timestamp>,
}

/// A member as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredMember {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A generation as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredGroup {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub state_since_ms: Timestamp,
    pub members: Vec<StoredMember>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupRecord {
    Offset { group: String, topic: String, partition: i32, value: Option<CommittedOffset> },
    Group { group: String, value: Option<StoredGroup> },
}

impl GroupRecord {
    /// Key and value; no value is a tombstone.
    pub(super) fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        match self {
            GroupRecord::Offset { group, topic, partition, value } => {
                let mut key = OFFSET_KEY.to_be_bytes().to_vec();
                put_text(&mut key, Some(group));
                put_text(&mut key, Some(topic));
                key.extend(partition.to_be_bytes());
                (key, value.as_ref().map(encode_offset))
            }
            GroupRecord::Group { group, value } => {
                let mut key = GROUP_KEY.to_be_bytes().to_vec();
                put_text(&mut key, Some(group));
                (key, value.as_ref().map(encode_group))
            }
        }
    }

    /// Reads a record; `None` if it is of no known kind, version or form.
    pub(super) fn decode(key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        let mut reader = Reader(key);
        match reader.i16()? {
            0 | OFFSET_KEY => {
                let (group, topic, partition) = (reader.text()??, reader.text()??, reader.i32()?);
                let value = match value {
                    Some(value) => Some(decode_offset(value)?),
                    None => None,
                };
                Some(GroupRecord::Offset { group, topic, partition, value })
            }
            GROUP_KEY => {
                let group = reader.text()??;
                let value = match value {
                    Some(value) => Some(decode_group(value)?),
                    None => None,
                };
                Some(GroupRecord::Group { group, value })
            }
            _ => None,
        }
    }
}

fn encode_offset(value: &CommittedOffset) -> Vec<u8> {
    // As Apache Kafka does: only this version has a time of its own, and it has no leader epoch.
    let version = if value.expire_ms.is_some() { EXPIRING_VERSION } else { VALUE_VERSION };
    let mut out = version.to_be_bytes().to_vec();
    out.extend(value.offset.to_be_bytes());
    if version >= 3 {
        out.extend(value.leader_epoch.to_be_bytes());
    }
    put_text(&mut out, Some(&value.metadata));
    out.extend(value.commit_ms.to_be_bytes());
    if let Some(expire_ms) = value.expire_ms {
        out.extend(expire_ms.to_be_bytes());
    }
    out
}

fn decode_offset(bytes: &[u8]) -> Option<CommittedOffset> {
    let mut reader = Reader(bytes);
    let version = reader.i16()?;
    if !(0..=VALUE_VERSION).contains(&version) {
        return None;
    }
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = reader.text()??;
    let commit_ms = reader.i64()?;
    let expire_ms =
        if version == EXPIRING_VERSION { Some(reader.i64()?).filter(|ms| *ms >= 0) } else { None };
    Some(CommittedOffset { offset, leader_epoch, metadata, commit_ms, expire_ms })
}

fn encode_group(group: &StoredGroup) -> Vec<u8> {
    let mut out = VALUE_VERSION.to_be_bytes().to_vec();
    put_text(&mut out, Some(&group.protocol_type));
    out.extend(group.generation.to_be_bytes());
    put_text(&mut out, group.protocol.as_deref());
    put_text(&mut out, group.leader.as_deref());
    out.extend(group.state_since_ms.to_be_bytes());
    out.extend(to_i32(group.members.len()).to_be_bytes());
    for member in &group.members {
        put_text(&mut out, Some(&member.id));
        put_text(&mut out, member.instance_id.as_deref());
        put_text(&mut out, Some(&member.client_id));
        put_text(&mut out, Some(&member.client_host));
        out.extend(member.rebalance_timeout_ms.to_be_bytes());
        out.extend(member.session_timeout_ms.to_be_bytes());
        for bytes in [&member.subscription, &member.assignment] {
            out.extend(to_i32(bytes.len()).to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
    out
}

fn decode_group(bytes: &[u8]) -> Option<StoredGroup> {
    let mut reader = Reader(bytes);
    let version = reader.i16()?;
    if !(0..=VALUE_VERSION).contains(&version) {
        return None;
    }
    let protocol_type = reader.text()??;
    let generation = reader.i32()?;
    let (protocol, leader) = (reader.text()?, reader.text()?);
    let state_since_ms = if version >= 2 { reader.i64()? } else { -1 };
    let count = reader.i32()?;
    let mut members = Vec::new();
    for _ in 0..count {
        let id = reader.text()??;
        let instance_id = if version >= 3 { reader.text()? } else { None };
        let (client_id, client_host) = (reader.text()??, reader.text()??);
        let rebalance = if version >= 1 { Some(reader.i32()?) } else { None };
        let session_timeout_ms = reader.i32()?;
        members.push(StoredMember {
            id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: reader.bytes()?,
            assignment: reader.bytes()?,
        });
    }
    Some(StoredGroup { protocol_type, generation, protocol, leader, state_since_ms, members })
}

/// The topics of a consumer's subscription (ConsumerProtocolSubscription, any version); `None` if it is not one.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader(metadata);
    reader.i16()?;
    let count = reader.i32()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(reader.text()??);
    }
    Some(topics)
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    // A string that is too long for its length was refused where it came in.
    let length = text.map_or(-1, |text| i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.extend(length.to_be_bytes());
    out.extend(text.unwrap_or_default().bytes().take(to_usize(length.max(0))));
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take(2).map(|bytes| be16(bytes, 0))
    }

    fn i32(&mut self) -> Option<i32> {
        self.take(4).map(|bytes| be32(bytes, 0))
    }

    fn i64(&mut self) -> Option<i64> {
        self.take(8).map(|bytes| be64(bytes, 0))
    }

    /// The outer `None` is an error, the inner one is null.
    fn text(&mut self) -> Option<Option<String>> {
        let length = self.i16()?;
        if length < 0 {
            return (length == -1).then_some(None);
        }
        Some(Some(String::from_utf8(self.take(to_usize(length))?.to_vec()).ok()?))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.i32()?;
        if length < 0 {
            return (length == -1).then(Bytes::new);
        }
        Some(Bytes::copy_from_slice(self.take(to_usize(length))?))
    }
}

/// Reads what may be a record's key and value (for fuzz targets).
#[cfg(any(test, feature = "internals"))]
pub(crate) fn read_record(key: &[u8], value: &[u8]) {
    let _ = (GroupRecord::decode(key, None), GroupRecord::decode(key, Some(value)));
    let _ = subscribed_topics(value);
}

/// Records to begin from: a name, a key, a value.
#[cfg(test)]
pub(crate) fn sample_records() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let encode = |(number, record): (usize, &GroupRecord)| {
        let (key, value) = record.encode();
        (number.to_string(), key, value.unwrap_or_default())
    };
    tests::records().iter().enumerate().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn records() -> Vec<GroupRecord> {
        let member = StoredMember {
            id: "m-1".into(),
            instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"part"),
        };
        let group = StoredGroup {
            protocol_type: "consumer".into(),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            state_since_ms: 99,
            members: vec![member],
        };
        let offset = CommittedOffset {
            offset: 7,
            leader_epoch: 2,
            metadata: "note".into(),
            commit_ms: 5,
            expire_ms: None,
        };
        let expiring = CommittedOffset { leader_epoch: -1, expire_ms: Some(9), ..offset.clone() };
        vec![
            GroupRecord::Group { group: "g".into(), value: Some(group) },
            GroupRecord::Group { group: "g".into(), value: None },
            GroupRecord::Offset {
                group: "g".into(),
                topic: "t".into(),
                partition: 3,
                value: Some(offset),
            },
            GroupRecord::Offset { group: "g".into(), topic: "t".into(), partition: 3, value: None },
            GroupRecord::Offset {
                group: "g".into(),
                topic: "t".into(),
                partition: 4,
                value: Some(expiring),
            },
        ]
    }

    #[test]
    fn a_record_comes_back_and_a_cut_one_does_not() {
        for record in records() {
            let (key, value) = record.encode();
            assert_eq!(GroupRecord::decode(&key, value.as_deref()), Some(record));
            for cut in 0..value.as_ref().map_or(0, Vec::len) {
                assert_eq!(
                    GroupRecord::decode(&key, value.as_deref().map(|v| &v[..cut])),
                    None,
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn an_offset_record_has_kafkas_bytes() {
        let (key, value) = records()[2].encode();
        assert_eq!(key, b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        let expected = b"\0\x03\0\0\0\0\0\0\0\x07\0\0\0\x02\0\x04note\0\0\0\0\0\0\0\x05";
        assert_eq!(value.as_deref(), Some(&expected[..]));
        let (_, value) = records()[4].encode();
        let expected = b"\0\x01\0\0\0\0\0\0\0\x07\0\x04note\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x09";
        assert_eq!(value.as_deref(), Some(&expected[..]));
    }

    #[test]
    fn a_count_that_lies_allocates_nothing() {
        let mut value = encode_group(&StoredGroup::default());
        let at = value.len() - 4;
        value[at..].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(decode_group(&value), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_of_records_panic(
            key in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
            value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            read_record(&key, &value);
            for kind in 0..3 {
                let known = [&[0, kind, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 0][..], &key].concat();
                let _ = GroupRecord::decode(&known, Some(&[&[0, 3], &value[..]].concat()));
            }
        }
    }
}
