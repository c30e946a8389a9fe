//! Strandline: a log service that speaks the Kafka wire protocol and loses no acknowledged message.
//!
//! The modules in reading order; each may use those above it, as `tidy` checks.

#[cfg(test)]
mod tidy;

/// One file per Kafka API.
mod api;
/// Starting and stopping.
mod broker;
/// The command line.
pub mod cli;
/// Every setting.
mod config;
/// The cluster's decisions.
mod controller;
/// Consumer groups.
mod coordinator;
/// The table of Kafka error codes.
mod error;
/// Health and metrics over HTTP.
mod http;
/// One partition's local log.
mod log;
/// The cluster's metadata as a log of records.
mod metadata;
/// Every metric.
mod metrics;
/// The nouns.
mod model;
/// Listeners and connections.
mod network;
/// Requests and responses as bytes.
mod protocol;
/// Record batches.
mod record;
/// Replicas of partitions.
mod replication;
/// Who may do what.
mod security;
/// The only door to the operating system.
mod system;
