//! Health, metrics and the configuration in force, over HTTP.
//!
//! Invariants: shows, never changes; nothing here slows the Kafka listener (work runs on the blocking pool).

mod connections;
mod exporter;
mod hosts;
mod server;

pub(crate) use hosts::Hosts;
pub(crate) use server::{Http, SCRAPES_MAX, listen};
