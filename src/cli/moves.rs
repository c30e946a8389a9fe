//! What commands that move replicas share: how things lie, moving them with progress, settings of one broker.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use super::balance::{Held, Holder, Move};
use super::cluster_client::{Cluster, check, check_with};
use super::output::{Format, Rows, spinner};
use super::topic::BROKER;
use crate::protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use crate::protocol::messages::elect_leaders_request::TopicPartitions;
use crate::protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use crate::protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, DescribeLogDirsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest, TopicName,
};
use crate::protocol::text;
use crate::system::clock::sleep;

const TIMEOUT_MS: i32 = 30_000;
/// Partitions that move at a time.
const AT_ONCE: usize = 20;
const LOOK: Duration = Duration::from_millis(300);
/// What ElectLeaders says of a partition that its preferred replica leads already.
const ELECTION_NOT_NEEDED: i16 = 84;

/// Every broker and every partition as they lie; traffic is what was written in `sample`.
pub(super) async fn how_things_lie(
    cluster: &mut Cluster,
    sample: Duration,
) -> anyhow::Result<(BTreeMap<i32, Holder>, Vec<Held>)> {
    let found = cluster.metadata(None).await?;
    let mut brokers = BTreeMap::new();
    for broker in &found.brokers {
        let rack = broker.rack.as_ref().map(ToString::to_string);
        brokers.insert(broker.node_id.0, Holder { rack, is_leaving: false });
    }
    let ids: Vec<i32> = brokers.keys().copied().collect();
    let before = sizes(cluster, &ids).await?;
    let now = if sample.is_zero() {
        before.clone()
    } else {
        sleep(sample).await;
        sizes(cluster, &ids).await?
    };
    let mut partitions = Vec::new();
    for topic in &found.topics {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        for partition in &topic.partitions {
            let key = (name.clone(), partition.partition_index);
            let bytes = now.get(&key).copied().unwrap_or(0);
            let grown = bytes.saturating_sub(before.get(&key).copied().unwrap_or(bytes));
            partitions.push(Held {
                topic: name.clone(),
                partition: key.1,
                replicas: partition.replica_nodes.iter().map(|id| id.0).collect(),
                bytes,
                bytes_per_second: grown / sample.as_secs().max(1),
            });
        }
    }
    Ok((brokers, partitions))
}

/// The size of each partition's largest replica.
pub(super) async fn sizes(
    cluster: &mut Cluster,
    ids: &[i32],
) -> anyhow::Result<BTreeMap<(String, i32), u64>> {
    let mut sizes: BTreeMap<(String, i32), u64> = BTreeMap::new();
    for id in ids {
        let request = DescribeLogDirsRequest::default().with_topics(None);
        for directory in cluster.node(*id).await?.call(4, &request).await?.results {
            for topic in directory.topics {
                for partition in topic.partitions {
                    let key = (topic.name.to_string(), partition.partition_index);
                    let size = u64::try_from(partition.partition_size).unwrap_or(0);
                    let known = sizes.entry(key).or_default();
                    *known = size.max(*known);
                }
            }
        }
    }
    Ok(sizes)
}

/// Shows what would be moved.
pub(super) fn show(moves: &[Move], format: Format) {
    let mut rows = Rows::new(&["partition", "replicas", "new replicas", "bytes to copy"]);
    for change in moves {
        rows.add(vec![
            json!(format!("{}-{}", change.topic, change.partition)),
            json!(list(&change.from)),
            json!(list(&change.to)),
            json!(change.bytes),
        ]);
    }
    rows.print(format);
}

fn list(ids: &[i32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Moves replicas, some at a time, and leaders where they belong then; returns when all are where they should be.
pub(super) async fn carry_out(cluster: &mut Cluster, moves: &[Move]) -> anyhow::Result<()> {
    let bar = spinner("{spinner} {msg}");
    let mut done = 0;
    for some in moves.chunks(AT_ONCE) {
        begin(cluster, some).await?;
        loop {
            let left = under_way(cluster, some).await?;
            let arrived = done + some.len() - left;
            bar.set_message(format!("{arrived} of {} partitions moved", moves.len()));
            bar.tick();
            if left == 0 {
                break;
            }
            sleep(LOOK).await;
        }
        elect_preferred(cluster, some).await?;
        done += some.len();
    }
    bar.finish_and_clear();
    Ok(())
}

async fn begin(cluster: &mut Cluster, moves: &[Move]) -> anyhow::Result<()> {
    let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
    for change in moves {
        let replicas = change.to.iter().map(|id| BrokerId(*id)).collect();
        let wanted = ReassignablePartition::default()
            .with_partition_index(change.partition)
            .with_replicas(Some(replicas));
        topics.entry(&change.topic).or_default().push(wanted);
    }
    let topic = |(name, partitions): (&str, Vec<ReassignablePartition>)| {
        ReassignableTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
    };
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(topics.into_iter().map(topic).collect());
    let response = cluster.any().await?.call(0, &request).await?;
    check_with(response.error_code, response.error_message.as_deref(), "reassignment")?;
    for topic in response.responses {
        for partition in topic.partitions {
            let about = format!("{}-{}", topic.name.as_str(), partition.partition_index);
            check_with(partition.error_code, partition.error_message.as_deref(), &about)?;
        }
    }
    Ok(())
}

/// How many of these partitions are still moving.
async fn under_way(cluster: &mut Cluster, moves: &[Move]) -> anyhow::Result<usize> {
    let request =
        ListPartitionReassignmentsRequest::default().with_timeout_ms(TIMEOUT_MS).with_topics(None);
    let response = cluster.any().await?.call(0, &request).await?;
    check(response.error_code, "reassignments")?;
    let is_ours = |topic: &str, partition: i32| {
        moves.iter().any(|change| change.topic == topic && change.partition == partition)
    };
    let mut left = 0;
    for topic in &response.topics {
        let ours = topic.partitions.iter().filter(|p| is_ours(&topic.name, p.partition_index));
        left += ours.count();
    }
    Ok(left)
}

async fn elect_preferred(cluster: &mut Cluster, moves: &[Move]) -> anyhow::Result<()> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for change in moves {
        topics.entry(&change.topic).or_default().push(change.partition);
    }
    let topic = |(name, partitions): (&str, Vec<i32>)| {
        TopicPartitions::default().with_topic(TopicName(text(name))).with_partitions(partitions)
    };
    let request = ElectLeadersRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topic_partitions(Some(topics.into_iter().map(topic).collect()));
    let response = cluster.any().await?.call(1, &request).await?;
    check(response.error_code, "election of preferred leaders")?;
    for topic in response.replica_election_results {
        for partition in topic.partition_result {
            if partition.error_code != ELECTION_NOT_NEEDED {
                let about = format!("{}-{}", topic.topic.as_str(), partition.partition_id);
                check_with(partition.error_code, partition.error_message.as_deref(), &about)?;
            }
        }
    }
    Ok(())
}

/// Sets one dynamic setting of one broker, or takes it away.
pub(super) async fn set_broker(
    cluster: &mut Cluster,
    id: i32,
    name: &str,
    value: Option<&str>,
) -> anyhow::Result<()> {
    let change = AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(id.to_string()))
        .with_configs(vec![change]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    // Brokers change their own settings only.
    for result in cluster.node(id).await?.call(1, &request).await?.responses {
        if result.error_code != 0 {
            check_with(
                result.error_code,
                result.error_message.as_deref(),
                &format!("broker {id}"),
            )?;
        }
    }
    Ok(())
}

/// How many partitions a broker leads, and how many replicas it has.
pub(super) async fn held_by(cluster: &mut Cluster, id: i32) -> anyhow::Result<(usize, usize)> {
    let found = cluster.metadata(None).await?;
    let (mut leads, mut replicas) = (0, 0);
    for partition in found.topics.iter().flat_map(|topic| &topic.partitions) {
        leads += usize::from(partition.leader_id.0 == id);
        replicas += usize::from(partition.replica_nodes.iter().any(|replica| replica.0 == id));
    }
    Ok((leads, replicas))
}

/// The broker has to be in the cluster's metadata.
pub(super) async fn known(cluster: &mut Cluster, id: i32) -> anyhow::Result<()> {
    let found = cluster.metadata(None).await?;
    if found.brokers.iter().any(|broker| broker.node_id.0 == id) {
        return Ok(());
    }
    let ids: Vec<i32> = found.brokers.iter().map(|broker| broker.node_id.0).collect();
    bail!("broker {id} is not there; these are: {}", list(&ids))
}
