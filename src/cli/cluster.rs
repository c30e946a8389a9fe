//! `strandline cluster`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::cluster_client::Cluster;
use super::output::{Format, Rows};
use super::topic::configs;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the cluster and its brokers
    Info,
    /// Say whether every partition has a leader and all its replicas; exit code 1 if not
    Health,
    /// Show a broker's settings
    Config {
        broker: i32,
        /// Defaults too
        #[arg(long)]
        all: bool,
    },
}

pub(super) async fn run(
    command: ClusterCommand,
    cluster: &mut Cluster,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Info => info(cluster, format).await,
        ClusterCommand::Health => health(cluster).await,
        ClusterCommand::Config { broker, all } => {
            let mut rows = Rows::new(&["setting", "value", "set"]);
            for (name, value, source) in configs(cluster, 4, &broker.to_string()).await? {
                if all || source != 5 {
                    rows.add(vec![json!(name), json!(value), json!(source != 5)]);
                }
            }
            rows.print(format);
            Ok(())
        }
    }
}

async fn info(cluster: &mut Cluster, format: Format) -> anyhow::Result<()> {
    let found = cluster.metadata(None).await?;
    if format == Format::Table {
        let id = found.cluster_id.map(|id| id.to_string()).unwrap_or_default();
        let partitions: usize = found.topics.iter().map(|topic| topic.partitions.len()).sum();
        println!("cluster {id}: {} topics, {partitions} partitions", found.topics.len());
    }
    let mut rows = Rows::new(&["broker", "address", "rack", "controller"]);
    for broker in found.brokers {
        rows.add(vec![
            json!(broker.node_id.0),
            json!(format!("{}:{}", broker.host.as_str(), broker.port)),
            json!(broker.rack.map(|rack| rack.to_string())),
            json!(broker.node_id == found.controller_id),
        ]);
    }
    rows.print(format);
    Ok(())
}

async fn health(cluster: &mut Cluster) -> anyhow::Result<()> {
    let found = cluster.metadata(None).await?;
    let alive: BTreeSet<i32> = found.brokers.iter().map(|broker| broker.node_id.0).collect();
    let mut missing: BTreeMap<i32, usize> = BTreeMap::new();
    let (mut leaderless, mut lagging, mut partitions) = (Vec::new(), Vec::new(), 0);
    for topic in &found.topics {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        for partition in &topic.partitions {
            partitions += 1;
            let place = format!("{name}-{}", partition.partition_index);
            for id in partition.replica_nodes.iter().map(|id| id.0).filter(|id| !alive.contains(id))
            {
                *missing.entry(id).or_default() += 1;
            }
            if partition.leader_id.0 < 0 {
                leaderless.push(place);
            } else if partition.isr_nodes.len() < partition.replica_nodes.len() {
                lagging.push(place);
            }
        }
    }
    if leaderless.is_empty() && lagging.is_empty() && missing.is_empty() {
        let (brokers, topics) = (found.brokers.len(), found.topics.len());
        println!(
            "Healthy: {brokers} brokers, {topics} topics, {partitions} partitions, all replicas in sync."
        );
        return Ok(());
    }
    let mut report = Vec::new();
    for (id, replicas) in missing {
        report.push(format!(
            "broker {id} is not there ({replicas} replicas): start it again; if it is gone for good, move its partitions \
             (kafka-reassign-partitions) and unregister it (kafka-cluster unregister)"
        ));
    }
    let some = |places: &[String]| {
        let shown = places.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        if places.len() > 5 { format!("{shown} and {} more", places.len() - 5) } else { shown }
    };
    if !leaderless.is_empty() {
        report.push(format!(
            "{} partitions have no leader, and can't be written or read: {}: bring back a broker that has them in sync",
            leaderless.len(),
            some(&leaderless)
        ));
    }
    if !lagging.is_empty() {
        report.push(format!(
            "{} partitions have replicas out of sync: {}: they catch up by themselves when their brokers are there",
            lagging.len(),
            some(&lagging)
        ));
    }
    bail!("{}", report.join("\n"))
}
