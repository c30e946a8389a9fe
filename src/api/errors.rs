//! The one map from our errors to Kafka's codes; every arm is written.

use crate::controller::ControllerError;
use crate::coordinator::GroupError;
use crate::error::ErrorCode;
use crate::log::SequenceError;
use crate::record::{BatchError, CompressError, RecordError};
use crate::replication::{MoveError, PartitionError};

impl From<&PartitionError> for ErrorCode {
    fn from(error: &PartitionError) -> Self {
        match error {
            PartitionError::Batch(error) => error.into(),
            PartitionError::Sequence(SequenceError::OldEpoch { .. }) => {
                ErrorCode::InvalidProducerEpoch
            }
            PartitionError::Sequence(SequenceError::Stored { .. }) => {
                ErrorCode::DuplicateSequenceNumber
            }
            PartitionError::Sequence(SequenceError::OutOfOrder { .. }) => {
                ErrorCode::OutOfOrderSequenceNumber
            }
            PartitionError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            PartitionError::Offline
            | PartitionError::NoRoom
            | PartitionError::Shortage
            | PartitionError::Remote(_) => ErrorCode::KafkaStorageError,
            PartitionError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
            PartitionError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
            PartitionError::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
            PartitionError::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
            PartitionError::NotLeader { .. }
            | PartitionError::Restoring
            | PartitionError::Moving => ErrorCode::NotLeaderOrFollower,
            PartitionError::Unsettled => ErrorCode::OffsetNotAvailable,
            PartitionError::Transactional => ErrorCode::InvalidTxnState,
            PartitionError::Deleted => ErrorCode::UnknownTopicOrPartition,
            PartitionError::Mounted => ErrorCode::PolicyViolation,
            PartitionError::Tiered { .. } => ErrorCode::OffsetMovedToTieredStorage,
        }
    }
}

impl From<&MoveError> for ErrorCode {
    fn from(error: &MoveError) -> Self {
        match error {
            MoveError::UnknownDirectory => ErrorCode::LogDirNotFound,
            MoveError::OfflineDirectory => ErrorCode::KafkaStorageError,
            MoveError::UnknownReplica => ErrorCode::ReplicaNotAvailable,
        }
    }
}

impl From<&BatchError> for ErrorCode {
    fn from(error: &BatchError) -> Self {
        match error {
            BatchError::Corrupt => ErrorCode::CorruptMessage,
            BatchError::TooLarge { .. }
            | BatchError::Records(RecordError::Compress(CompressError::TooLarge { .. })) => {
                ErrorCode::MessageTooLarge
            }
            BatchError::Records(RecordError::Compress(CompressError::UnknownCodec(_))) => {
                ErrorCode::UnsupportedCompressionType
            }
            // What has a true checksum was sent so, and would be again.
            BatchError::Invalid(_)
            | BatchError::Header(_)
            | BatchError::KeyMissing { .. }
            | BatchError::Records(
                RecordError::Malformed { .. }
                | RecordError::Wrong { .. }
                | RecordError::Compress(CompressError::Damaged(_)),
            ) => ErrorCode::InvalidRecord,
            BatchError::TimestampOutOfRange { .. } => ErrorCode::InvalidTimestamp,
        }
    }
}

impl From<&ControllerError> for ErrorCode {
    fn from(error: &ControllerError) -> Self {
        match error {
            ControllerError::TopicName(_) | ControllerError::TopicCollides { .. } => {
                ErrorCode::InvalidTopicException
            }
            ControllerError::TopicExists(_) => ErrorCode::TopicAlreadyExists,
            ControllerError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
            ControllerError::UnknownTopicId => ErrorCode::UnknownTopicId,
            ControllerError::Partitions(_) => ErrorCode::InvalidPartitions,
            ControllerError::Limit(_) => ErrorCode::PolicyViolation,
            ControllerError::ReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
            ControllerError::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
            ControllerError::Config(_) => ErrorCode::InvalidConfig,
            ControllerError::Request(_) => ErrorCode::InvalidRequest,
            ControllerError::UnknownBroker(_) => ErrorCode::BrokerIdNotRegistered,
            ControllerError::DuplicateBroker(_) => ErrorCode::DuplicateBrokerRegistration,
            ControllerError::StaleBrokerEpoch => ErrorCode::StaleBrokerEpoch,
            ControllerError::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
            ControllerError::InvalidUpdateVersion | ControllerError::Feature(_) => {
                ErrorCode::InvalidUpdateVersion
            }
            ControllerError::IneligibleReplica(_) => ErrorCode::IneligibleReplica,
            ControllerError::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
            ControllerError::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
            ControllerError::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
            ControllerError::NoReassignment => ErrorCode::NoReassignmentInProgress,
            ControllerError::DuplicateVoter(_) => ErrorCode::DuplicateVoter,
            ControllerError::UnknownVoter(_) => ErrorCode::VoterNotFound,
            ControllerError::Voter(_) => ErrorCode::InvalidVoterKey,
            ControllerError::Storage(_) => ErrorCode::KafkaStorageError,
            ControllerError::NotController => ErrorCode::NotController,
            ControllerError::Unavailable(_) => ErrorCode::RequestTimedOut,
        }
    }
}

impl From<&GroupError> for ErrorCode {
    fn from(error: &GroupError) -> Self {
        match error {
            GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
            GroupError::UnknownMember => ErrorCode::UnknownMemberId,
            GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
            GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
            GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
            GroupError::GroupFull => ErrorCode::GroupMaxSizeReached,
            GroupError::FencedInstance => ErrorCode::FencedInstanceId,
            GroupError::NotEmpty => ErrorCode::NonEmptyGroup,
            GroupError::NotFound => ErrorCode::GroupIdNotFound,
            GroupError::Subscribed => ErrorCode::GroupSubscribedToTopic,
            GroupError::NotCoordinator => ErrorCode::NotCoordinator,
            GroupError::Loading => ErrorCode::CoordinatorLoadInProgress,
            GroupError::Unavailable => ErrorCode::CoordinatorNotAvailable,
        }
    }
}
