//! Starting, wiring together, following the metadata, stopping.
//!
//! Invariants: nothing is served before everything is loaded; a stop answers what was asked, then closes every log
//! and marks the stop as clean.
//! Absent: decisions.

mod error;
mod publisher;
mod settings;
mod start;

pub use error::BrokerError;
pub use settings::check;
pub use start::{Broker, Started};
