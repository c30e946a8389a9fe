//! Consumer groups: membership, generations, committed offsets, kept in `__consumer_offsets`.
//!
//! Invariants: what is answered as done stands in the log below the high watermark; offsets that are read are those
//! that a replay of the log would give; one group's work never waits for another's.
//! Absent: the meaning of subscriptions and assignments (clients' own bytes), but for which topics a consumer
//! subscribes to (OffsetDelete asks).

mod commits;
mod error;
mod expiry;
mod group;
mod groups;
mod loading;
mod member;
mod rebalance;
mod records;
#[cfg(test)]
mod tests;
mod timers;

pub(crate) use error::GroupError;
pub(crate) use group::{Joined, JoinedMember, Synced};
pub(crate) use groups::{
    CommitRequest, DescribedMember, GroupSettings, Groups, ListedGroup, commit_bytes,
};
pub(crate) use member::{JoinRequest, SyncRequest};
pub(crate) use records::CommittedOffset;
#[cfg(any(test, feature = "internals"))]
pub(crate) use records::read_record;
#[cfg(test)]
pub(crate) use records::sample_records;
