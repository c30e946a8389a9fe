//! `strandline cluster`.

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
    let mut sick = Vec::new();
    for topic in &found.topics {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        for partition in &topic.partitions {
            if partition.leader_id.0 < 0 {
                sick.push(format!("{name}-{} has no leader", partition.partition_index));
            } else if partition.isr_nodes.len() < partition.replica_nodes.len() {
                sick.push(format!("{name}-{} has replicas out of sync", partition.partition_index));
            }
        }
    }
    if sick.is_empty() {
        println!("Healthy: {} brokers, {} topics.", found.brokers.len(), found.topics.len());
        return Ok(());
    }
    bail!("{}", sick.join("\n"))
}
