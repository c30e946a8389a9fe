//! The cluster's decisions: topics, partitions, brokers, leaders, settings, producer ids, as records.
//!
//! Invariants: a command is decided on the newest image by the quorum's leader, committed, applied, and only then
//! answered; a command that fails changes nothing; a decision on an old image is void.
//! Absent: agreement (`quorum`), the image (`metadata`), carrying anything out (`broker`, `replication`).

mod active;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod alone;
mod brokers;
mod client;
mod command;
mod commands;
mod configs;
mod decide;
mod error;
#[cfg(test)]
mod partition_tests;
mod partitions;
mod placement;
mod sessions;
mod state;
#[cfg(test)]
mod tests;
mod voters;

pub(crate) use active::ActiveController;
pub(crate) use client::Controller;
#[cfg(any(test, feature = "internals"))]
pub(crate) use command::read_command;
pub(crate) use command::{
    Answer, Command, ElectionKind, Heartbeat, IsrChange, NewPartitions, NewTopic, QuorumView,
    Registration,
};
pub(crate) use commands::check_replicas;
pub(crate) use configs::{ConfigChange, ConfigOperation};
pub(crate) use error::ControllerError;
pub(crate) use state::ClusterState;
