//! The table of Kafka error codes that this server sends, with the text clients see.
//!
//! Invariants: codes and names are Kafka's (`Errors.java`); one row a code.
//! Left to others: `api/errors.rs` maps module errors to these.

macro_rules! error_codes {
    ($($name:ident = $code:literal $text:literal;)*) => {
        /// A Kafka error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum ErrorCode { $($name,)* }

        impl ErrorCode {
            /// The table, for the generated reference page.
            pub(crate) const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The number on the wire.
            pub(crate) const fn code(self) -> i16 {
                match self { $(ErrorCode::$name => $code,)* }
            }

            /// The text sent beside the code where the response has a place for it.
            pub(crate) const fn text(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1 "The server experienced an unexpected error when processing the request.";
    None = 0 "";
    OffsetOutOfRange = 1 "The requested offset is not within the range of offsets maintained by the server.";
    CorruptMessage = 2 "This message has failed its CRC checksum, exceeds the valid size, has a null key for a compacted topic, or is otherwise corrupt.";
    UnknownTopicOrPartition = 3 "This server does not host this topic-partition.";
    LeaderNotAvailable = 5 "There is no leader for this topic-partition as we are in the middle of a leadership election.";
    NotLeaderOrFollower = 6 "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition.";
    RequestTimedOut = 7 "The request timed out.";
    ReplicaNotAvailable = 9 "The replica is not available for the requested topic-partition. Produce/Fetch requests and other requests intended only for the leader or follower return NOT_LEADER_OR_FOLLOWER if the broker is not a replica of the topic-partition.";
    MessageTooLarge = 10 "The request included a message larger than the max message size the server will accept.";
    OffsetMetadataTooLarge = 12 "The committing offset data size is not valid.";
    CoordinatorLoadInProgress = 14 "The coordinator is loading and hence can't process requests.";
    CoordinatorNotAvailable = 15 "The coordinator is not available.";
    NotCoordinator = 16 "This is not the correct coordinator.";
    InvalidTopicException = 17 "The request attempted to perform an operation on an invalid topic.";
    NotEnoughReplicas = 19 "Messages are rejected since there are fewer in-sync replicas than required.";
    NotEnoughReplicasAfterAppend = 20 "Messages are written to the log, but to fewer in-sync replicas than required.";
    InvalidRequiredAcks = 21 "Produce request specified an invalid value for required acks.";
    IllegalGeneration = 22 "Specified group generation id is not valid.";
    InconsistentGroupProtocol = 23 "The group member's supported protocols are incompatible with those of existing members or first group member tried to join with empty protocol type or empty protocol list.";
    InvalidGroupId = 24 "The group id is invalid.";
    UnknownMemberId = 25 "The coordinator is not aware of this member.";
    InvalidSessionTimeout = 26 "The session timeout is not within the range allowed by the broker (as configured by group.min.session.timeout.ms and group.max.session.timeout.ms).";
    RebalanceInProgress = 27 "The group is rebalancing, so a rejoin is needed.";
    TopicAuthorizationFailed = 29 "Topic authorization failed.";
    GroupAuthorizationFailed = 30 "Group authorization failed.";
    ClusterAuthorizationFailed = 31 "Cluster authorization failed.";
    InvalidTimestamp = 32 "The timestamp of the message is out of acceptable range.";
    UnsupportedVersion = 35 "The version of API is not supported.";
    TopicAlreadyExists = 36 "Topic with this name already exists.";
    InvalidPartitions = 37 "Number of partitions is below 1.";
    InvalidReplicationFactor = 38 "Replication factor is below 1 or larger than the number of available brokers.";
    InvalidReplicaAssignment = 39 "Replica assignment is invalid.";
    InvalidConfig = 40 "Configuration is invalid.";
    NotController = 41 "This is not the correct controller for this cluster.";
    InvalidRequest = 42 "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details.";
    PolicyViolation = 44 "Request parameters do not satisfy the configured policy.";
    OutOfOrderSequenceNumber = 45 "The broker received an out of order sequence number.";
    DuplicateSequenceNumber = 46 "The broker received a duplicate sequence number.";
    InvalidProducerEpoch = 47 "Producer attempted to produce with an old epoch.";
    InvalidTxnState = 48 "The producer attempted a transactional operation in an invalid state.";
    SecurityDisabled = 54 "Security features are disabled.";
    KafkaStorageError = 56 "Disk error when trying to access log file on the disk.";
    LogDirNotFound = 57 "The user-specified log directory is not found in the broker config.";
    NonEmptyGroup = 68 "The group is not empty.";
    GroupIdNotFound = 69 "The group id does not exist.";
    FetchSessionIdNotFound = 70 "The fetch session ID was not found.";
    InvalidFetchSessionEpoch = 71 "The fetch session epoch is invalid.";
    TopicDeletionDisabled = 73 "Topic deletion is disabled.";
    FencedLeaderEpoch = 74 "The leader epoch in the request is older than the epoch on the broker.";
    UnknownLeaderEpoch = 75 "The leader epoch in the request is newer than the epoch on the broker.";
    UnsupportedCompressionType = 76 "The requesting client does not support the compression type of given partition.";
    StaleBrokerEpoch = 77 "Broker epoch has changed.";
    OffsetNotAvailable = 78 "The leader high watermark has not caught up from a recent leader election so the offsets cannot be guaranteed to be monotonically increasing.";
    MemberIdRequired = 79 "The group member needs to have a valid member id before actually entering a consumer group.";
    PreferredLeaderNotAvailable = 80 "The preferred leader was not available.";
    GroupMaxSizeReached = 81 "The consumer group has reached its max size.";
    FencedInstanceId = 82 "The broker rejected this static consumer since another consumer with the same group.instance.id has registered with a different member.id.";
    EligibleLeadersNotAvailable = 83 "Eligible topic partition leaders are not available.";
    ElectionNotNeeded = 84 "Leader election not needed for topic partition.";
    NoReassignmentInProgress = 85 "No partition reassignment is in progress.";
    GroupSubscribedToTopic = 86 "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it.";
    InvalidRecord = 87 "This record has failed the validation on broker and hence will be rejected.";
    ThrottlingQuotaExceeded = 89 "The throttling quota has been exceeded.";
    InvalidUpdateVersion = 95 "The given update version was invalid.";
    FeatureUpdateFailed = 96 "Unable to update finalized features due to an unexpected server error.";
    UnknownTopicId = 100 "This server does not host this topic ID.";
    DuplicateBrokerRegistration = 101 "This broker ID is already in use.";
    BrokerIdNotRegistered = 102 "The given broker ID was not registered.";
    InconsistentTopicId = 103 "The log's topic ID did not match the topic ID in the request.";
    InconsistentClusterId = 104 "The clusterId in the request does not match that found on the server.";
    FetchSessionTopicIdError = 106 "The fetch session encountered inconsistent topic ID usage.";
    IneligibleReplica = 107 "The new ISR contains at least one ineligible replica.";
    OffsetMovedToTieredStorage = 109 "The requested offset is moved to tiered storage.";
    MismatchedEndpointType = 114 "The request was sent to an endpoint of the wrong type.";
    UnsupportedEndpointType = 115 "This endpoint type is not supported yet.";
    InvalidVoterKey = 125 "The voter key doesn't match the receiving replica's key.";
    DuplicateVoter = 126 "The voter is already part of the set of voters.";
    VoterNotFound = 127 "The voter is not part of the set of voters.";
}

impl ErrorCode {
    /// The error of a number; `None` where we do not know it.
    pub(crate) fn of(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|error| error.code() == code)
    }

    /// Whether the request succeeded.
    pub(crate) fn is_none(self) -> bool {
        self == ErrorCode::None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::ErrorCode;

    #[test]
    fn every_code_stands_once_and_every_error_has_a_text() {
        let codes: HashSet<i16> = ErrorCode::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|e| e.is_none() == e.text().is_empty()));
    }
}
