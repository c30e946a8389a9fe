//! `strandline topic`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::cluster_client::{Cluster, check, check_with};
use super::output::{Format, Rows, plain};
use crate::protocol::messages::create_partitions_request::CreatePartitionsTopic;
use crate::protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use crate::protocol::messages::describe_configs_request::DescribeConfigsResource;
use crate::protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use crate::protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest, TopicName,
};
use crate::protocol::text;
use crate::system::clock::{monotonic, sleep};

const TIMEOUT_MS: i32 = 30_000;
/// The kind of a broker's settings.
pub(super) const BROKER: i8 = 4;
pub(super) const EARLIEST: i64 = -2;
pub(super) const LATEST: i64 = -1;
/// Where a log begins on its leader's disk (KIP-405), and the last offset that is in object storage (KIP-1005).
pub(super) const LOCAL_START: i64 = -4;
pub(super) const TIERED_END: i64 = -5;
/// No leader, not the leader, and a leader that does not know yet what is committed.
const BETWEEN_LEADERS: [i16; 3] = [5, 6, 78];
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);
/// The kind of a topic's settings, and the one that says whether it is in object storage.
pub(super) const TOPIC: i8 = 2;
pub(super) const TIERED: &str = "remote.storage.enable";

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Make a topic
    Create(Create),
    /// List topics
    #[command(alias = "list")]
    Ls {
        /// Show the cluster's own topics too
        #[arg(long)]
        internal: bool,
    },
    /// Show partitions, offsets and the settings that are not defaults
    Describe { topic: String },
    /// Change settings: key=value sets, key= takes away
    Alter {
        topic: String,
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Give a topic more partitions
    AddPartitions {
        topic: String,
        #[arg(value_name = "COUNT", help = "Partitions in all")]
        count: i32,
    },
    /// Delete records before an offset
    Trim {
        topic: String,
        #[arg(long, short)]
        partition: i32,
        /// First offset to keep; -1 deletes all
        #[arg(long, short, allow_hyphen_values = true)]
        offset: i64,
    },
    /// Delete topics
    #[command(alias = "delete")]
    Rm {
        #[arg(required = true)]
        topics: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    topic: String,
    /// Partitions; without it the broker's default
    #[arg(long, short, default_value_t = -1, hide_default_value = true)]
    partitions: i32,
    /// Replication factor; without it the broker's default
    #[arg(long, short, default_value_t = -1, hide_default_value = true)]
    replicas: i16,
    /// A setting, e.g. cleanup.policy=compact. Repeatable
    #[arg(long = "config", short, value_name = "KEY=VALUE")]
    configs: Vec<String>,
}

pub(super) async fn run(
    command: TopicCommand,
    cluster: &mut Cluster,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        TopicCommand::Create(create) => make(create, cluster).await,
        TopicCommand::Ls { internal } => list(cluster, internal, format).await,
        TopicCommand::Describe { topic } => describe(cluster, &topic, format).await,
        TopicCommand::Alter { topic, settings } => alter(cluster, &topic, &settings).await,
        TopicCommand::AddPartitions { topic, count } => {
            let wanted = CreatePartitionsTopic::default()
                .with_name(TopicName(text(topic.as_str())))
                .with_count(count)
                .with_assignments(None);
            let request = CreatePartitionsRequest::default()
                .with_topics(vec![wanted])
                .with_timeout_ms(TIMEOUT_MS);
            for result in cluster.any().await?.call(2, &request).await?.results {
                check_with(
                    result.error_code,
                    result.error_message.as_deref(),
                    &format!("topic {topic}"),
                )?;
            }
            say!("{topic} has {count} partitions.");
            Ok(())
        }
        TopicCommand::Trim { topic, partition, offset } => {
            trim(cluster, &topic, partition, offset).await
        }
        TopicCommand::Rm { topics } => remove(cluster, topics).await,
    }
}

fn pair(item: &str) -> anyhow::Result<(&str, &str)> {
    match item.split_once('=') {
        Some(pair) => Ok(pair),
        None => bail!("'{item}' is not of the form key=value"),
    }
}

async fn make(wish: Create, cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut configs = Vec::new();
    for item in &wish.configs {
        let (name, value) = pair(item)?;
        configs.push(
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))),
        );
    }
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(wish.topic.as_str())))
        .with_num_partitions(wish.partitions)
        .with_replication_factor(wish.replicas)
        .with_configs(configs);
    create(cluster, topic).await?;
    wait_for_leaders(cluster, &wish.topic).await?;
    say!("{} is made.", wish.topic);
    Ok(())
}

/// Makes a topic, whose partitions may have no leaders yet.
pub(super) async fn create(cluster: &mut Cluster, topic: CreatableTopic) -> anyhow::Result<()> {
    let about = format!("topic {}", topic.name.as_str());
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    for result in cluster.any().await?.call(5, &request).await?.topics {
        check_with(result.error_code, result.error_message.as_deref(), &about)?;
    }
    Ok(())
}

/// Apache Kafka answers before the partitions have leaders; the next command shall not meet that.
async fn wait_for_leaders(cluster: &mut Cluster, topic: &str) -> anyhow::Result<()> {
    for _ in 0..50 {
        let found = cluster.metadata(Some(vec![topic.to_owned()])).await?;
        let is_led =
            |topic: &crate::protocol::messages::metadata_response::MetadataResponseTopic| {
                topic.error_code == 0
                    && topic.partitions.iter().all(|partition| partition.error_code == 0)
            };
        if found.topics.iter().all(is_led) {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("topic {topic} is made, but its partitions have no leaders yet")
}

async fn list(cluster: &mut Cluster, internal: bool, format: Format) -> anyhow::Result<()> {
    let mut rows = Rows::new(&["topic", "partitions", "replicas", "records"]);
    for topic in
        cluster.topics(None).await?.into_iter().filter(|topic| internal || !topic.is_internal)
    {
        let ends = offsets(cluster, &topic.name, LATEST).await?;
        let starts = offsets(cluster, &topic.name, EARLIEST).await?;
        let records: i64 =
            ends.iter().map(|(p, end)| end - starts.get(p).copied().unwrap_or(0)).sum();
        let replicas =
            topic.partitions.values().map(|(_, replicas, _)| replicas.len()).max().unwrap_or(0);
        rows.add(vec![
            json!(topic.name),
            json!(topic.partitions.len()),
            json!(replicas),
            json!(records),
        ]);
    }
    rows.print(format);
    Ok(())
}

/// One offset of every partition, by a time or by `EARLIEST` and `LATEST`. Between two leaders nobody tells them: then it is asked again, for a while.
pub(super) async fn offsets(
    cluster: &mut Cluster,
    topic: &str,
    at: i64,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let until = monotonic() + PATIENCE;
    loop {
        match ask_offsets(cluster, topic, at).await? {
            Err(error) if monotonic() >= until => return Err(error),
            Err(_) => sleep(AGAIN).await,
            Ok(offsets) => return Ok(offsets),
        }
    }
}

/// The inner error is one that passes.
async fn ask_offsets(
    cluster: &mut Cluster,
    topic: &str,
    at: i64,
) -> anyhow::Result<Result<BTreeMap<i32, i64>, anyhow::Error>> {
    let found = cluster.topic(topic).await?;
    let mut by_leader: BTreeMap<i32, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (index, (leader, ..)) in &found.partitions {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_current_leader_epoch(-1)
            .with_timestamp(at);
        by_leader.entry(*leader).or_default().push(wanted);
    }
    let mut offsets = BTreeMap::new();
    for (leader, partitions) in by_leader {
        let wanted = ListOffsetsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(partitions);
        let request = ListOffsetsRequest::default()
            .with_replica_id(crate::protocol::messages::BrokerId(-1))
            .with_topics(vec![wanted]);
        let answered = cluster.node(leader).await?.call(9, &request).await?;
        for partition in answered.topics.into_iter().flat_map(|topic| topic.partitions) {
            let code = partition.error_code;
            let told = check(code, &format!("{topic}-{}", partition.partition_index));
            match told {
                Err(error) if BETWEEN_LEADERS.contains(&code) => return Ok(Err(error)),
                told => told?,
            }
            offsets.insert(partition.partition_index, partition.offset);
        }
    }
    Ok(Ok(offsets))
}

/// The offsets of `@time` in milliseconds; where no record is that young, the end.
pub(super) async fn offsets_at(
    cluster: &mut Cluster,
    topic: &str,
    at: &str,
    ends: &BTreeMap<i32, i64>,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let time: i64 =
        at.trim_start_matches('@').parse().with_context(|| format!("'{at}' is not a time"))?;
    let found = offsets(cluster, topic, time).await?;
    let place =
        |(p, at): (i32, i64)| (p, if at < 0 { ends.get(&p).copied().unwrap_or(0) } else { at });
    Ok(found.into_iter().map(place).collect())
}

async fn describe(cluster: &mut Cluster, name: &str, format: Format) -> anyhow::Result<()> {
    let topic = cluster.topic(name).await?;
    let (starts, ends) =
        (offsets(cluster, name, EARLIEST).await?, offsets(cluster, name, LATEST).await?);
    let mut rows = Rows::new(&["partition", "leader", "replicas", "isr", "start", "end"]);
    for (index, (leader, replicas, isr)) in &topic.partitions {
        rows.add(vec![
            json!(index),
            json!(leader),
            json!(replicas),
            json!(isr),
            json!(starts.get(index)),
            json!(ends.get(index)),
        ]);
    }
    rows.print(format);
    if format == Format::Table {
        let set =
            configs(cluster, TOPIC, name).await?.into_iter().filter(|(_, _, source)| *source == 1);
        for (key, value, _) in set {
            say!("{key}={}", plain(&value));
        }
    }
    Ok(())
}

/// Name, value and source of every setting of a topic (2) or broker (4).
pub(super) async fn configs(
    cluster: &mut Cluster,
    kind: i8,
    name: &str,
) -> anyhow::Result<Vec<(String, String, i8)>> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let mut all = Vec::new();
    // A broker tells its own settings only.
    let asked = if kind == BROKER { name.parse().unwrap_or(-1) } else { -1 };
    for result in cluster.node(asked).await?.call(2, &request).await?.results {
        check_with(result.error_code, result.error_message.as_deref(), name)?;
        for config in result.configs {
            let value = config.value.map(|value| value.to_string()).unwrap_or_default();
            all.push((config.name.to_string(), value, config.config_source));
        }
    }
    all.sort();
    Ok(all)
}

async fn alter(cluster: &mut Cluster, topic: &str, settings: &[String]) -> anyhow::Result<()> {
    let mut changes = Vec::new();
    for item in settings {
        let (name, value) = pair(item)?;
        let (operation, value) = if value.is_empty() { (1, None) } else { (0, Some(text(value))) };
        let change =
            AlterableConfig::default().with_name(text(name)).with_config_operation(operation);
        changes.push(change.with_value(value));
    }
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(changes);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    for result in cluster.any().await?.call(1, &request).await?.responses {
        check_with(result.error_code, result.error_message.as_deref(), &format!("topic {topic}"))?;
    }
    say!("{topic} is changed.");
    Ok(())
}

async fn trim(
    cluster: &mut Cluster,
    topic: &str,
    partition: i32,
    offset: i64,
) -> anyhow::Result<()> {
    let found = cluster.topic(topic).await?;
    let Some((leader, ..)) = found.partitions.get(&partition) else {
        bail!("topic {topic} has no partition {partition}");
    };
    let wanted =
        DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let request = DeleteRecordsRequest::default()
        .with_topics(vec![
            DeleteRecordsTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![wanted]),
        ])
        .with_timeout_ms(TIMEOUT_MS);
    let response = cluster.node(*leader).await?.call(2, &request).await?;
    for result in response.topics.into_iter().flat_map(|topic| topic.partitions) {
        check(result.error_code, &format!("{topic}-{partition}"))?;
        say!("{topic}-{partition} begins at {}.", result.low_watermark);
    }
    Ok(())
}

async fn remove(cluster: &mut Cluster, topics: Vec<String>) -> anyhow::Result<()> {
    let names = topics.iter().map(|name| TopicName(text(name.as_str()))).collect();
    let request =
        DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(TIMEOUT_MS);
    for result in cluster.any().await?.call(5, &request).await?.responses {
        let name = result.name.map(|name| name.to_string()).unwrap_or_default();
        check_with(result.error_code, result.error_message.as_deref(), &format!("topic {name}"))?;
        say!("{name} is deleted.");
    }
    Ok(())
}
