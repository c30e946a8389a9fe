//! `strandline cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use super::balance::plan;
use super::cluster_client::{Cluster, check_with};
use super::moves::{carry_out, how_things_lie, show};
use super::output::{Format, Rows};
use super::topic::{BROKER, configs};
use crate::metadata::{VERSION_FEATURE, level_max};
use crate::protocol::messages::add_raft_voter_request::Listener;
use crate::protocol::messages::describe_quorum_request::{
    PartitionData as QuorumPartition, TopicData,
};
use crate::protocol::messages::describe_quorum_response::PartitionData;
use crate::protocol::messages::update_features_request::FeatureUpdateKey;
use crate::protocol::messages::{
    AddRaftVoterRequest, DescribeQuorumRequest, RemoveRaftVoterRequest, TopicName,
    UpdateFeaturesRequest,
};
use crate::protocol::text;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show the cluster and its brokers
    Info,
    /// Say whether every partition has a leader and all its replicas; exit code 1 if not
    Health,
    /// Even out replicas, bytes, traffic and leaders over the brokers
    Balance {
        /// Only show what would be moved
        #[arg(long)]
        dry_run: bool,
        /// Seconds for which traffic is measured first
        #[arg(long, default_value_t = 2)]
        sample: u64,
    },
    /// Show the metadata quorum: who leads it, who votes, how far they are
    Voters,
    /// Finalize the newest feature level that every node knows, once all of them run the new release
    Upgrade,
    /// Let a node vote that was started with controller.quorum.bootstrap.servers
    AddVoter {
        node: i32,
        /// Its controller listener, as host:port
        address: String,
    },
    /// Take a node's vote away
    RemoveVoter { node: i32 },
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
        ClusterCommand::Balance { dry_run, sample } => {
            balance(cluster, dry_run, Duration::from_secs(sample), format).await
        }
        ClusterCommand::Voters => voters(cluster, format).await,
        ClusterCommand::Upgrade => upgrade(cluster).await,
        ClusterCommand::AddVoter { node, address } => add_voter(cluster, node, &address).await,
        ClusterCommand::RemoveVoter { node } => {
            let request =
                RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(node);
            let response = cluster.any().await?.call(0, &request).await?;
            let message = response.error_message.as_deref();
            check_with(response.error_code, message, &format!("node {node}"))?;
            say!("Node {node} votes no more.");
            Ok(())
        }
        ClusterCommand::Config { broker, all } => {
            let mut rows = Rows::new(&["setting", "value", "set"]);
            for (name, value, source) in configs(cluster, BROKER, &broker.to_string()).await? {
                if all || source != 5 {
                    rows.add(vec![json!(name), json!(value), json!(source != 5)]);
                }
            }
            rows.print(format);
            Ok(())
        }
    }
}

async fn balance(
    cluster: &mut Cluster,
    dry_run: bool,
    sample: Duration,
    format: Format,
) -> anyhow::Result<()> {
    let (mut brokers, partitions) = how_things_lie(cluster, sample).await?;
    for (id, holder) in &mut brokers {
        let settings = configs(cluster, BROKER, &id.to_string()).await?;
        let is_drained =
            |(name, value, _): &(String, String, i8)| name == "broker.drain" && value == "true";
        holder.is_leaving = settings.iter().any(is_drained);
    }
    let moves = plan(&brokers, &partitions).map_err(|why| anyhow::anyhow!("{why}"))?;
    if moves.is_empty() {
        say!("The brokers are even: nothing is to be moved.");
        return Ok(());
    }
    show(&moves, format);
    if dry_run {
        return Ok(());
    }
    carry_out(cluster, &moves).await?;
    say!("Moved.");
    Ok(())
}

async fn voters(cluster: &mut Cluster, format: Format) -> anyhow::Result<()> {
    // Only the leader knows how far the others are.
    let leader = quorum(cluster, -1).await?.leader_id.0;
    let found = match quorum(cluster, leader).await {
        Ok(found) => found,
        Err(_) => quorum(cluster, -1).await?,
    };
    let mut rows = Rows::new(&["node", "votes", "leads", "log end", "directory"]);
    let voters = found.current_voters.iter().map(|replica| (replica, true));
    for (replica, votes) in voters.chain(found.observers.iter().map(|replica| (replica, false))) {
        rows.add(vec![
            json!(replica.replica_id.0),
            json!(votes),
            json!(replica.replica_id.0 == found.leader_id.0),
            json!(replica.log_end_offset),
            json!(replica.replica_directory_id.to_string()),
        ]);
    }
    rows.print(format);
    Ok(())
}

async fn quorum(cluster: &mut Cluster, node: i32) -> anyhow::Result<PartitionData> {
    let topic = TopicData::default()
        .with_topic_name(TopicName(text("__cluster_metadata")))
        .with_partitions(vec![QuorumPartition::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let response = cluster.node(node).await?.call(2, &request).await?;
    check_with(response.error_code, response.error_message.as_deref(), "quorum")?;
    let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    partitions
        .into_iter()
        .next()
        .ok_or_else(|| anyhow::anyhow!("the broker says nothing of the quorum"))
}

async fn upgrade(cluster: &mut Cluster) -> anyhow::Result<()> {
    let update = FeatureUpdateKey::default()
        .with_feature(text(VERSION_FEATURE))
        .with_max_version_level(level_max())
        .with_upgrade_type(1);
    let request =
        UpdateFeaturesRequest::default().with_timeout_ms(30_000).with_feature_updates(vec![update]);
    let response = cluster.any().await?.call(2, &request).await?;
    check_with(response.error_code, response.error_message.as_deref(), "upgrade")?;
    say!("The cluster is at {VERSION_FEATURE} {}.", level_max());
    Ok(())
}

async fn add_voter(cluster: &mut Cluster, node: i32, address: &str) -> anyhow::Result<()> {
    let Some((host, port)) = address.rsplit_once(':') else {
        bail!("'{address}' is not of the form host:port");
    };
    let port = port.parse().with_context(|| format!("'{address}' is not of the form host:port"))?;
    let listener =
        Listener::default().with_name(text("CONTROLLER")).with_host(text(host)).with_port(port);
    let request = AddRaftVoterRequest::default()
        .with_cluster_id(None)
        .with_timeout_ms(30_000)
        .with_voter_id(node)
        .with_listeners(vec![listener]);
    let response = cluster.any().await?.call(0, &request).await?;
    let message = response.error_message.as_deref();
    check_with(response.error_code, message, &format!("node {node}"))?;
    say!("Node {node} votes from now on.");
    Ok(())
}

async fn info(cluster: &mut Cluster, format: Format) -> anyhow::Result<()> {
    let found = cluster.metadata(None).await?;
    if format == Format::Table {
        let id = found.cluster_id.map(|id| id.to_string()).unwrap_or_default();
        let partitions: usize = found.topics.iter().map(|topic| topic.partitions.len()).sum();
        say!("cluster {id}: {} topics, {partitions} partitions", found.topics.len());
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
        say!(
            "Healthy: {brokers} brokers, {topics} topics, {partitions} partitions, all replicas in sync."
        );
        return Ok(());
    }
    let mut report = Vec::new();
    for (id, replicas) in missing {
        report.push(format!(
            "broker {id} is not there ({replicas} replicas): start it again; if it is gone for good, move its partitions \
             (strandline broker decommission) and forget it (strandline broker unregister)"
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
