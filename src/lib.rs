//! Strandline: a log service that speaks the Kafka wire protocol and loses no acknowledged message.
//!
//! The modules in reading order; each may use those above it, and only those that `tidy` lists for it.

#[cfg(test)]
mod tidy;

/// The nouns.
mod model;
/// The table of Kafka error codes.
mod error;
/// The only door to the operating system.
mod system;
/// Record batches.
mod record;
/// Every setting.
mod config;
/// Every metric.
mod metrics;
/// Requests and responses as bytes.
mod protocol;
/// Listeners and connections.
mod network;
/// Object storage.
mod objects;
/// One partition's local log.
mod log;
/// Agreement of the voters on one log.
mod quorum;
/// The cluster's metadata as a log of records.
mod metadata;
/// The cluster's decisions.
mod controller;
/// Who may do what.
mod security;
/// Closed segments in object storage.
mod remote_log;
/// Replicas of partitions.
mod replication;
/// Consumer groups.
mod coordinator;
/// One file per Kafka API.
mod api;
/// Health and metrics over HTTP.
mod http;
/// Starting and stopping.
mod broker;
/// The command line.
pub mod cli;
/// A broker, its clients and its disk in one thread, from one seed.
#[cfg(test)]
mod simulation;
/// Doors to the inside for fuzz targets and micro-benchmarks.
#[cfg(any(test, feature = "internals"))]
pub mod internals;
