//! Starting, wiring together, following the metadata, stopping.
//!
//! Invariants: nothing is served before everything is loaded; a stop answers what was asked, then closes every log
//! and marks the stop as clean.
//! Absent: decisions.

mod error;
mod fetcher;
mod joining;
mod membership;
mod publisher;
mod settings;
mod start;

pub(crate) use settings::check;
#[cfg(any(test, feature = "internals"))]
pub(crate) use settings::{groups as group_settings, replicas as replica_settings};
pub(crate) use start::Broker;
#[cfg(test)]
pub(crate) use start::Parts;
