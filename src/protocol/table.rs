//! The table of APIs and versions that this broker serves.
//!
//! Invariants: a version stands here only if the crate decodes its request and encodes its response, or those of a version that is
//! the same on the wire (a test asks);
//! low ends are kept for old librdkafka (it looks for exact versions). What does not say otherwise is carried out alone on its
//! connection, as Apache Kafka carries out everything.

#[cfg(test)]
use std::fmt::Write;

use super::ApiKey;
use crate::model::Turn;
use crate::model::number::be16;

/// One served API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedApi {
    pub key: ApiKey,
    pub name: &'static str,
    /// Oldest version that is decoded.
    pub min: i16,
    pub max: i16,
    /// Oldest version that is advertised; Produce says 0 (KAFKA-18659).
    pub advertised_min: i16,
    /// What may be on its way at the same time on one connection.
    pub turn: Turn,
}

macro_rules! served {
    ($($name:ident $min:literal ..= $max:literal as $low:literal $(, $turn:ident)?;)*) => {
        /// Every API of this broker, by key.
        pub(crate) const SERVED: &[ServedApi] = &[$(
            ServedApi {
                key: ApiKey::$name,
                name: stringify!($name),
                min: $min,
                max: $max,
                advertised_min: $low,
                turn: served!(@turn $name $($turn)?),
            },
        )*];
    };
    (@turn $name:ident) => { Turn::Alone };
    (@turn $name:ident WithItsKind) => { Turn::WithItsKind(key_number(ApiKey::$name)) };
    (@turn $name:ident HoldsUpNobody) => { Turn::HoldsUpNobody };
}

served! {
    Produce 3..=13 as 0, WithItsKind;
    Fetch 4..=18 as 4, HoldsUpNobody;
    ListOffsets 1..=11 as 1;
    Metadata 0..=13 as 0;
    OffsetCommit 2..=9 as 2, WithItsKind;
    OffsetFetch 1..=9 as 1;
    FindCoordinator 0..=6 as 0;
    JoinGroup 0..=9 as 0;
    Heartbeat 0..=4 as 0;
    LeaveGroup 0..=5 as 0;
    SyncGroup 0..=5 as 0;
    DescribeGroups 0..=6 as 0;
    ListGroups 0..=5 as 0;
    ApiVersions 0..=4 as 0;
    CreateTopics 2..=7 as 2;
    DeleteTopics 1..=6 as 1;
    DeleteRecords 0..=2 as 0;
    InitProducerId 0..=5 as 0;
    OffsetForLeaderEpoch 2..=4 as 2;
    DescribeAcls 1..=3 as 1;
    CreateAcls 1..=3 as 1;
    DeleteAcls 1..=3 as 1;
    DescribeConfigs 1..=4 as 1;
    AlterConfigs 0..=2 as 0;
    AlterReplicaLogDirs 1..=2 as 1;
    DescribeLogDirs 1..=4 as 1;
    CreatePartitions 0..=3 as 0;
    DeleteGroups 0..=2 as 0;
    ElectLeaders 0..=2 as 0;
    IncrementalAlterConfigs 0..=1 as 0;
    AlterPartitionReassignments 0..=1 as 0;
    ListPartitionReassignments 0..=0 as 0;
    OffsetDelete 0..=0 as 0;
    DescribeQuorum 0..=2 as 0;
    UpdateFeatures 0..=2 as 0;
    DescribeCluster 0..=2 as 0;
    DescribeProducers 0..=0 as 0;
    UnregisterBroker 0..=0 as 0;
    ConsumerGroupHeartbeat 0..=0 as 0;
    ListConfigResources 0..=1 as 0;
    DescribeTopicPartitions 0..=0 as 0;
    AddRaftVoter 0..=0 as 0;
    RemoveRaftVoter 0..=0 as 0;
}

/// The number of a key on the wire.
#[expect(clippy::as_conversions, reason = "the crate's enum is its number")]
pub(crate) const fn key_number(key: ApiKey) -> i16 {
    key as i16
}

/// The version by which the crate reads and writes one that it does not know yet, but that is the same on the wire.
pub(super) const fn codec_version(key: i16, version: i16) -> i16 {
    // KIP-1023 gave a timestamp a meaning.
    if key == key_number(ApiKey::ListOffsets) && version == 11 { 10 } else { version }
}

/// The row of a key.
pub(super) fn served(key: i16) -> Option<&'static ServedApi> {
    SERVED.iter().find(|api| key_number(api.key) == key)
}

/// When a request may begin; one that will be refused comes alone.
pub(crate) fn turn_of(frame: &[u8]) -> Turn {
    let key = (frame.len() >= 2).then(|| be16(frame, 0));
    key.and_then(served).map_or(Turn::Alone, |api| api.turn)
}

/// `docs/reference/protocol.md`.
#[cfg(test)]
pub(crate) fn reference_page() -> String {
    let mut page = String::from(
        "# Protocol\n\nGenerated from `src/protocol/table.rs`; `UPDATE=1 cargo test tidy` rewrites it.\n\n\
         What is not listed is absent from ApiVersions, and a request for it closes the connection as Apache Kafka does; a line in the log says \
         who asked for what. ACLs are answered as without an authorizer (SECURITY_DISABLED), ConsumerGroupHeartbeat as with the classic protocol \
         only (UNSUPPORTED_VERSION), and a transactional id ends with CLUSTER_AUTHORIZATION_FAILED and a text.\n\n\
         A connection's requests are carried out one after the other, as by Apache Kafka: each finds what those before it did. The last \
         column says what may be on its way at the same time: produce requests beside each other, commits of offsets beside each other \
         (what they write is written in their order), and anything behind a fetch that waits for records. Answers always leave in the order of their requests.\n\n\
         | key | API | versions | advertised as | on one connection |\n|---|---|---|---|---|\n",
    );
    for api in SERVED {
        let key = key_number(api.key);
        let turn = match api.turn {
            Turn::Alone => "alone",
            Turn::WithItsKind(_) => "beside others of its kind",
            Turn::HoldsUpNobody => "holds up nobody",
            Turn::Free => "at once",
        };
        let _ = writeln!(
            page,
            "| {key} | {} | {}-{} | {}-{} | {turn} |",
            api.name, api.min, api.max, api.advertised_min, api.max
        );
    }
    page
}
