//! What can be asked of the controller, by a client's request or by another broker.
//!
//! Invariants: commands and answers travel as JSON between nodes; fields are only added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::configs::ConfigChange;
use super::error::ControllerError;
use crate::config::{MOUNT, RESTORE, Restore};
use crate::metadata::{BrokerEndpoint, Capacity, ConfigResource};
use crate::model::{BrokerId, LeaderEpoch, PartitionId, ProducerId, TopicId};
use crate::quorum::{QuorumStatus, Room};

/// A topic that somebody wants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct NewTopic {
    pub name: String,
    /// -1: the broker's default.
    pub partitions: i32,
    /// -1: the broker's default, as far as there are brokers.
    pub replication_factor: i16,
    /// Replicas by partition; empty: the controller chooses.
    pub assignments: Vec<(PartitionId, Vec<BrokerId>)>,
    pub configs: BTreeMap<String, Option<String>>,
}

impl NewTopic {
    /// Whether its records are another cluster's.
    pub(super) fn is_mounted(&self) -> bool {
        let mount = self.configs.get(MOUNT).and_then(Option::as_deref);
        mount.is_some_and(|text| !text.trim().is_empty())
    }

    /// Where it comes from, if it is one that is brought back.
    pub(super) fn restore(&self) -> Result<Option<Restore>, ControllerError> {
        let wanted = self.configs.get(RESTORE).and_then(Option::as_deref).unwrap_or_default();
        Restore::parse(wanted).map_err(ControllerError::Config)
    }
}

/// Partitions that somebody wants.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct NewPartitions {
    pub topic: String,
    /// In all, with those that are there.
    pub count: i32,
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// A broker that wants to take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub broker: BrokerId,
    /// Made up at each start.
    pub incarnation: Uuid,
    pub endpoints: Vec<BrokerEndpoint>,
    pub rack: Option<String>,
    pub directories: Vec<Uuid>,
    /// Whether further ones of its configuration can't be used now: nothing that may lie there is begun anew.
    #[serde(default)]
    pub is_incomplete: bool,
    /// The epoch in which its last stop was clean; `None`: it was not.
    pub clean_epoch: Option<i64>,
    /// The newest feature level that it knows; 0: it is of a release that does not say.
    #[serde(default)]
    pub level_max: i16,
    /// What it can hold; `None`: it is of a release that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

/// A registered broker's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub broker: BrokerId,
    pub epoch: i64,
    /// Whether it follows the metadata closely enough to serve.
    pub is_ready: bool,
    /// It wants to stop, and first to lead nothing.
    pub wants_to_stop: bool,
    /// Leaders that do not answer its fetches.
    #[serde(default)]
    pub unreachable: Vec<BrokerId>,
    /// Index after the newest entry that it has applied; 0: it is of a release that does not say.
    #[serde(default)]
    pub applied: u64,
    /// What it can hold now; `None`: it is of a release that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

/// A leader's wish for another ISR (AlterPartition).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IsrChange {
    pub topic: TopicId,
    pub partition: PartitionId,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    /// Members and the broker epochs they were heard with; -1: not known.
    pub isr: Vec<(BrokerId, i64)>,
    /// Who has everything and leads from now on; -1: whoever was to lead does not get there.
    #[serde(default)]
    pub hand_over: Option<BrokerId>,
}

/// Which election is wanted (KIP-460).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ElectionKind {
    Preferred,
    Unclean,
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    CreateTopic {
        topic: NewTopic,
        id: TopicId,
        validate_only: bool,
    },
    DeleteTopic {
        id: TopicId,
    },
    CreatePartitions {
        wish: NewPartitions,
        validate_only: bool,
    },
    AlterConfigs {
        resource: ConfigResource,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    },
    ReplaceConfigs {
        resource: ConfigResource,
        values: Vec<(String, Option<String>)>,
        validate_only: bool,
    },
    ProducerIds,
    Register(Registration),
    Heartbeat(Heartbeat),
    /// How does the quorum stand? Nothing is decided.
    DescribeQuorum,
    AlterIsr {
        broker: BrokerId,
        epoch: i64,
        changes: Vec<IsrChange>,
    },
    /// These replicas of a broker are on a disk that failed.
    ReplicasOffline {
        broker: BrokerId,
        epoch: i64,
        partitions: Vec<(TopicId, PartitionId)>,
    },
    Elect {
        kind: ElectionKind,
        topic: TopicId,
        partition: PartitionId,
    },
    /// New replicas of a partition; `None` takes a move back (KIP-455).
    Reassign {
        topic: TopicId,
        partition: PartitionId,
        replicas: Option<Vec<BrokerId>>,
    },
    Unregister {
        broker: BrokerId,
    },
    /// Finalizes a feature level (KIP-584).
    SetFeature {
        name: String,
        level: i16,
        validate_only: bool,
    },
    /// Whether a broker may lead and get new replicas.
    Drain {
        broker: BrokerId,
        is_draining: bool,
    },
    /// The controller's own: these brokers were not heard of for too long.
    Fence {
        brokers: Vec<(BrokerId, i64)>,
    },
    /// The controller's own: nobody who follows this leader reaches it.
    Avoid {
        leader: BrokerId,
        by: Vec<BrokerId>,
    },
    /// The controller's own: this broker is ready.
    Unfence {
        broker: BrokerId,
        epoch: i64,
    },
    /// The controller's own: this broker says that it can hold another number of partitions than is known of it.
    Capacity {
        broker: BrokerId,
        epoch: i64,
        capacity: Capacity,
    },
    /// The controller's own: leaders go back to the first of their replicas.
    Balance,
    /// The disk that a voter votes from.
    Voter {
        id: BrokerId,
        directory: Uuid,
    },
    /// A node is to vote (KIP-853); a directory of zeros means whichever it has.
    AddVoter {
        id: BrokerId,
        directory: Uuid,
        address: String,
    },
    /// A node that may vote one day wants to be told what is decided.
    Observe {
        id: BrokerId,
        directory: Uuid,
        address: String,
    },
    /// A node is to vote no more; a directory of zeros means whichever it votes from.
    RemoveVoter {
        id: BrokerId,
        directory: Uuid,
    },
    /// The controller's own: this node does not vote.
    ForgetVoter {
        id: BrokerId,
    },
}

impl Command {
    /// How much room there has to be for the metadata: what makes some is carried out with the last of it.
    pub(super) fn needs(&self) -> Room {
        match self {
            Command::CreateTopic { .. }
            | Command::CreatePartitions { .. }
            | Command::Reassign { replicas: Some(_), .. } => Room::Plenty,
            Command::AlterConfigs { .. }
            | Command::ReplaceConfigs { .. }
            | Command::ProducerIds
            | Command::Elect { .. }
            | Command::SetFeature { .. } => Room::Low,
            Command::DeleteTopic { .. }
            | Command::Register(_)
            | Command::Heartbeat(_)
            | Command::DescribeQuorum
            | Command::AlterIsr { .. }
            | Command::ReplicasOffline { .. }
            | Command::Reassign { replicas: None, .. }
            | Command::Unregister { .. }
            | Command::Drain { .. }
            | Command::Fence { .. }
            | Command::Avoid { .. }
            | Command::Unfence { .. }
            | Command::Capacity { .. }
            | Command::Balance
            | Command::Voter { .. }
            | Command::AddVoter { .. }
            | Command::Observe { .. }
            | Command::RemoveVoter { .. }
            | Command::ForgetVoter { .. } => Room::Scarce,
        }
    }
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    /// The topic stands in the image that holds the answer's index; of one that was only validated, its partitions'
    /// replicas.
    Topic {
        id: TopicId,
        replicas: Vec<Vec<BrokerId>>,
    },
    ProducerIds {
        first: ProducerId,
        next: ProducerId,
    },
    Registered {
        epoch: i64,
    },
    Heartbeat {
        is_fenced: bool,
        leads: usize,
    },
    Isr(Vec<Result<(), ControllerError>>),
    Quorum(QuorumView),
}

/// How the quorum stands, as its leader sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct QuorumView {
    pub status: QuorumStatus,
    /// Of brokers: the index after the newest entry that they have applied, and how long ago they said so, in ms.
    pub heard: BTreeMap<BrokerId, (u64, i64)>,
}

/// An answer, and the newest data that it knew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CommandReply {
    pub result: Result<Answer, ControllerError>,
    pub index: u64,
}

/// Reads a command and an answer as they travel (for fuzz targets).
#[cfg(any(test, feature = "internals"))]
pub(crate) fn read_command(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Command>(bytes);
    let _ = serde_json::from_slice::<CommandReply>(bytes);
}
