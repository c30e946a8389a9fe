//! Replicas of partitions: who leads, what is committed, who waits, which disk holds what.
//!
//! Invariants: the high watermark counts only what is on stable storage (unless the topic says `write.caching`);
//! it never moves back; an acknowledgement leaves only after the high watermark passed it.
//! Absent: groups, requests, sockets (the broker's fetchers carry batches from leader to follower).

mod by_time;
mod checking;
mod checkpoints;
mod cleaning;
mod compacting;
mod disabling;
mod error;
mod flusher;
mod following;
mod identity;
#[cfg(test)]
mod identity_tests;
mod lease;
mod log_directory;
mod maintenance;
mod mounting;
mod moving;
mod opening;
mod pace;
mod partition;
mod proposals;
mod reading;
mod removing;
mod replica;
#[cfg(test)]
mod replica_tests;
mod replicas;
mod restoring;
mod roles;
mod rounds;
#[cfg(test)]
mod tests;
mod throttle;
mod tiering;
mod waiting;

pub(crate) use checking::is_short;
#[cfg(any(test, feature = "internals"))]
pub(crate) use checkpoints::read_checkpoints;
pub(crate) use error::{PartitionError, StartError};
pub(crate) use following::{Diverging, FetchPosition, FetchedBatches, FollowerFetch};
pub(crate) use lease::Lease;
pub(crate) use log_directory::LogDirectory;
pub(crate) use moving::{MoveError, follow_move};
pub(crate) use partition::{AppendRequest, Appending, PartitionHandle};
pub(crate) use reading::{ReadRules, RemoteRead};
pub(crate) use replica::{IsrProposal, PartitionState};
pub(crate) use replicas::{PartitionSpec, ReplicaSettings, Replicas, Topic};
pub(crate) use rounds::TierSettings;
pub(crate) use waiting::{AckWaiter, FetchWaiter};
