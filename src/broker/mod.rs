//! Starting, wiring together, following the metadata, stopping.
//!
//! Invariants: nothing is served before everything is loaded; a stop answers what was asked, then closes every log
//! and marks the stop as clean.
//! Absent: decisions.

mod backup;
mod capacity;
mod error;
mod fetcher;
mod joining;
#[cfg(test)]
mod life_tests;
mod membership;
mod opening;
mod publisher;
mod secure;
mod settings;
mod silence;
mod start;
mod tier;

#[cfg(any(test, feature = "internals"))]
pub(crate) use settings::{groups as group_settings, replicas as replica_settings};
pub(crate) use start::Broker;

use crate::config::Config;
use crate::system::SharedDisk;
use error::BrokerError;

#[cfg(test)]
pub(crate) use start::Parts;

/// Checks a configuration, and that the files that it names are good.
pub(crate) fn check(config: &Config, disk: &SharedDisk) -> Result<(), BrokerError> {
    settings::check(config)?;
    secure::check(config, disk)?;
    tier::check_tier(config, disk)
}
