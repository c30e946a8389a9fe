//! Every metric in one table, and the registry that shows them.
//!
//! Invariants: a metric that is not in the table can't be set; counting on the hot path is one atomic addition;
//! gauges of topics, partitions and groups are only worked out when somebody asks, and belong to whoever asked.
//! Left to others: reading the values (`http/exporter.rs`).

mod registry;
mod table;

pub(crate) use registry::{Metrics, Scrape};
pub(crate) use table::Name;
#[cfg(test)]
pub(crate) use table::reference_page;
