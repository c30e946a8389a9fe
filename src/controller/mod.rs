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

pub(crate) use commands::{NewPartitions, NewTopic};
pub(crate) use configs::{ConfigChange, ConfigOperation};
pub(crate) use driver::Controller;
pub(crate) use error::ControllerError;
