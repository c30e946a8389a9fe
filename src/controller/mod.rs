//! The cluster's decisions: topics, partitions, settings, producer ids, as records.
//!
//! Invariants: one command at a time; a command is decided on the newest image, made durable, applied, published,
//! and only then answered; a command that fails changes nothing.
//! Left to the quorum, later: being the only controller.

mod commands;
mod configs;
mod driver;
mod error;
#[cfg(test)]
mod tests;

pub use commands::{NewPartitions, NewTopic};
pub use configs::{ConfigChange, ConfigOperation};
pub use driver::Controller;
pub use error::ControllerError;
