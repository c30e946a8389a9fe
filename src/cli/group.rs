//! `strandline group`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use super::cluster_client::{Cluster, check};
use super::consume::fetch;
use super::output::{Format, Rows, plain};
use super::topic::{EARLIEST, LATEST, offsets, offsets_at};
use crate::error::ErrorCode;
use crate::protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetFetchRequest, TopicName,
};
use crate::protocol::text;
use crate::record::BatchHeader;
use crate::system::Clock;

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List groups
    #[command(alias = "list")]
    Ls,
    /// Show members
    Describe { group: String },
    /// Show committed offsets and how far they are behind
    Lag { group: String },
    /// Set the committed offsets of a group without members
    Seek {
        group: String,
        topic: String,
        /// start, end, an offset, or @time in milliseconds
        #[arg(allow_hyphen_values = true)]
        to: String,
        /// Only this partition
        #[arg(long, short)]
        partition: Option<i32>,
    },
    /// Delete groups without members
    #[command(alias = "delete")]
    Rm {
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

pub(super) async fn run(
    command: GroupCommand,
    cluster: &mut Cluster,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        GroupCommand::Ls => list(cluster, format).await,
        GroupCommand::Describe { group } => describe(cluster, &group, format).await,
        GroupCommand::Lag { group } => lag(cluster, &group, format).await,
        GroupCommand::Seek { group, topic, to, partition } => {
            seek(cluster, &group, &topic, &to, partition).await
        }
        GroupCommand::Rm { groups } => {
            for group in groups {
                let request = DeleteGroupsRequest::default()
                    .with_groups_names(vec![GroupId(text(group.as_str()))]);
                for result in cluster.coordinator(&group).await?.call(2, &request).await?.results {
                    check(result.error_code, &format!("group {group}"))?;
                }
                say!("{} is deleted.", plain(&group));
            }
            Ok(())
        }
    }
}

async fn list(cluster: &mut Cluster, format: Format) -> anyhow::Result<()> {
    let mut ids: Vec<i32> =
        cluster.metadata(Some(Vec::new())).await?.brokers.iter().map(|b| b.node_id.0).collect();
    ids.sort_unstable();
    let mut rows = Rows::new(&["group", "state", "protocol"]);
    for id in ids {
        let answered = cluster.node(id).await?.call(4, &ListGroupsRequest::default()).await?;
        check(answered.error_code, &format!("broker {id}"))?;
        for group in answered.groups {
            rows.add(vec![
                json!(group.group_id.as_str()),
                json!(group.group_state.as_str()),
                json!(group.protocol_type.as_str()),
            ]);
        }
    }
    rows.print(format);
    Ok(())
}

async fn describe(cluster: &mut Cluster, name: &str, format: Format) -> anyhow::Result<()> {
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(name))]);
    let answered = cluster.coordinator(name).await?.call(5, &request).await?;
    let mut rows = Rows::new(&["member", "instance", "client", "host"]);
    for group in answered.groups {
        check(group.error_code, &format!("group {name}"))?;
        if group.group_state.as_str() == "Dead" {
            bail!("group {name} is not there: `strandline group ls` lists the groups");
        }
        if format == Format::Table {
            say!(
                "{} is {} ({}).",
                plain(name),
                plain(&group.group_state),
                plain(&group.protocol_data)
            );
        }
        for member in group.members {
            rows.add(vec![
                json!(member.member_id.as_str()),
                json!(member.group_instance_id.map(|id| id.to_string())),
                json!(member.client_id.as_str()),
                json!(member.client_host.as_str()),
            ]);
        }
    }
    rows.print(format);
    Ok(())
}

/// Every committed offset of a group.
pub(super) async fn committed(
    cluster: &mut Cluster,
    group: &str,
) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
    let request =
        OffsetFetchRequest::default().with_group_id(GroupId(text(group))).with_topics(None);
    let answered = cluster.coordinator(group).await?.call(7, &request).await?;
    check(answered.error_code, &format!("group {group}"))?;
    let mut found = BTreeMap::new();
    for topic in answered.topics {
        for partition in topic.partitions {
            check(partition.error_code, &format!("group {group}"))?;
            found.insert(
                (topic.name.to_string(), partition.partition_index),
                partition.committed_offset,
            );
        }
    }
    Ok(found)
}

async fn lag(cluster: &mut Cluster, group: &str, format: Format) -> anyhow::Result<()> {
    let committed = committed(cluster, group).await?;
    if committed.is_empty() {
        bail!("group {group} has no committed offsets: `strandline group ls` lists the groups");
    }
    let mut bounds = BTreeMap::new();
    for (topic, _) in committed.keys() {
        if !bounds.contains_key(topic) {
            let starts = offsets(cluster, topic, EARLIEST).await?;
            bounds.insert(topic.clone(), (starts, offsets(cluster, topic, LATEST).await?));
        }
    }
    let mut rows = Rows::new(&["topic", "partition", "committed", "end", "lag", "seconds"]);
    let now_ms = Clock::system().now_ms();
    for ((topic, partition), at) in &committed {
        let (start, end) = bounds.get(topic).map_or((None, None), |(starts, ends)| {
            (starts.get(partition).copied(), ends.get(partition).copied())
        });
        // What lies before the log's start is gone: nobody lags behind for it.
        let next = start.map_or(*at, |start| start.max(*at));
        let lag = end.map(|end| (end - next).max(0));
        let seconds = match lag {
            Some(lag) if lag > 0 => {
                let oldest_ms = timestamp_at(cluster, topic, *partition, next).await?;
                oldest_ms.map(|ms| (now_ms - ms).max(0) / 1000)
            }
            Some(_) => Some(0),
            None => None,
        };
        rows.add(vec![
            json!(topic),
            json!(partition),
            json!(at),
            json!(end),
            json!(lag),
            json!(seconds),
        ]);
    }
    rows.print(format);
    Ok(())
}

/// When the batch that holds an offset was made; `None` if it is gone.
async fn timestamp_at(
    cluster: &mut Cluster,
    topic: &str,
    partition: i32,
    offset: i64,
) -> anyhow::Result<Option<i64>> {
    let found = cluster.topic(topic).await?;
    let Some((leader, ..)) = found.partitions.get(&partition) else { return Ok(None) };
    // One byte is allowed, and the first batch comes whole.
    let fetched = fetch(cluster, topic, *leader, &[(partition, offset)], 1).await;
    let Ok(fetched) = fetched else { return Ok(None) };
    let bytes = fetched.into_iter().next().map(|(_, bytes)| bytes).unwrap_or_default();
    Ok(BatchHeader::parse(&bytes).map(|header| header.max_timestamp))
}

async fn seek(
    cluster: &mut Cluster,
    group: &str,
    topic: &str,
    to: &str,
    partition: Option<i32>,
) -> anyhow::Result<()> {
    let ends = offsets(cluster, topic, LATEST).await?;
    let mut positions = match to {
        "start" => offsets(cluster, topic, EARLIEST).await?,
        "end" => ends.clone(),
        at if at.starts_with('@') => offsets_at(cluster, topic, at, &ends).await?,
        at => {
            let at: i64 = at
                .parse()
                .with_context(|| format!("'{at}' is not an offset: start, end, 7 or @time"))?;
            ends.keys().map(|p| (*p, at)).collect()
        }
    };
    positions.retain(|index, _| partition.is_none_or(|wanted| wanted == *index));
    if positions.is_empty() {
        bail!("topic {topic} has no such partition");
    }
    commit(cluster, group, topic, &positions).await?;
    for (index, at) in positions {
        say!("{} is at {at} of {topic}-{index}.", plain(group));
    }
    Ok(())
}

/// Commits offsets as a consumer without membership; refused while the group has members.
pub(super) async fn commit(
    cluster: &mut Cluster,
    group: &str,
    topic: &str,
    positions: &BTreeMap<i32, i64>,
) -> anyhow::Result<()> {
    let request = commit_request(group, topic, positions).with_generation_id_or_member_epoch(-1);
    send_commit(cluster, group, &request).await
}

/// Sends what `commit_request` made for a consumer without membership.
pub(super) async fn send_commit(
    cluster: &mut Cluster,
    group: &str,
    request: &OffsetCommitRequest,
) -> anyhow::Result<()> {
    let answered = cluster.coordinator(group).await?.call(8, request).await?;
    for partition in answered.topics.into_iter().flat_map(|topic| topic.partitions) {
        if ErrorCode::of(partition.error_code) == Some(ErrorCode::UnknownMemberId) {
            bail!("group {group} has members: stop them first");
        }
        check(partition.error_code, &format!("group {group}"))?;
    }
    Ok(())
}

pub(super) fn commit_request(
    group: &str,
    topic: &str,
    positions: &BTreeMap<i32, i64>,
) -> OffsetCommitRequest {
    let partition = |(index, at): (&i32, &i64)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(*at)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(positions.iter().map(partition).collect());
    OffsetCommitRequest::default().with_group_id(GroupId(text(group))).with_topics(vec![topic])
}
