//! The metadata quorum: agreement of the voters on one log, by a consensus library (openraft).
//!
//! Invariants: what is handed to the state machine is committed, in order, once; a vote and an entry are on the disk
//! before anybody is told; a voter is its id and its disk together.
//! Absent: what the entries mean (`controller`, `metadata`); elections, log matching and snapshots as algorithms, which
//! are the library's.

mod elections;
mod error;
mod machine;
mod node;
mod observer;
mod peers;
mod reserve;
mod service;
mod storage;
#[cfg(test)]
mod tests;
mod transport;
mod types;

pub(crate) use error::{ProposeError, StoreError};
pub(crate) use machine::StateMachine;
pub(crate) use node::{LoadedQuorum, Quorum, QuorumSettings, QuorumStatus};
#[cfg(any(test, feature = "internals"))]
pub(crate) use peers::read_message;
pub(crate) use peers::{Identity, Peers};
pub(crate) use reserve::Room;
pub(crate) use service::{CommandHandler, PeerService};
pub(crate) use storage::{METADATA_FOLDER, QuorumStorage};
pub(crate) use transport::VoterDisks;
