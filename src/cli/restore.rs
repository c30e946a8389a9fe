//! `strandline tier restore`: topics come back from a bucket.
//!
//! Invariants: nothing in the bucket is changed from here; a topic that the cluster has stays as it is; a group that has committed
//! something in the cluster keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::Args;

use super::cluster_client::Cluster;
use super::found::{Found, Wanted, select, wait_for};
use super::group::{commit_request, committed, send_commit};
use super::output::{Format, Rows, spinner};
use super::tier::{StoreArguments, complain, tier};
use super::tier_status::ClusterArguments;
use super::topic::{self, TOPIC, configs};
use crate::config::{RESTORE, Restore};
use crate::protocol::messages::TopicName;
use crate::protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::protocol::text;
use crate::remote_log::{Manifest, Tier};

#[derive(Debug, Args)]
pub(super) struct RestoreArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// Only this topic, by its name or its id; without it all. Repeatable
    #[arg(long = "topic", short, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only topics of the cluster with this id
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    /// Replication factor; without it what the topic had, as far as there are brokers
    #[arg(long, short)]
    replicas: Option<i16>,
    /// Leave out where groups were
    #[arg(long)]
    no_offsets: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    into: ClusterArguments,
}

pub(super) async fn run(arguments: RestoreArguments, format: Format) -> anyhow::Result<()> {
    let tier = tier(&arguments.store)?;
    let inventory = tier.inventory().await?;
    complain(&inventory)?;
    let (topics, location) = (&*arguments.topics, &*arguments.store.location);
    let wanted = Wanted { topics, cluster: arguments.cluster.as_ref(), location };
    let mut found = select(&tier, inventory, wanted).await?;
    let mut cluster = arguments.into.connect().await?;
    look_up(&mut cluster, &mut found).await?;
    if arguments.dry_run {
        show(&found, "to be restored", format);
        return Ok(());
    }
    for topic in found.iter().filter(|topic| topic.there.is_none()) {
        create(&mut cluster, topic, arguments.replicas).await?;
    }
    let progress = spinner("{spinner} {msg}");
    for topic in found.iter().filter(|topic| topic.there != Some(false)) {
        progress.set_message(topic.note.topic.clone());
        wait_for(&mut cluster, &topic.note.topic, &topic.ends()).await?;
    }
    progress.finish_and_clear();
    show(&found, "restored", format);
    if !arguments.no_offsets {
        let groups = put_groups_back(&tier, &mut cluster, &found).await?;
        eprintln!("{groups} groups go on where they were.");
    }
    Ok(())
}

/// Finds out which topics the cluster has.
async fn look_up(cluster: &mut Cluster, found: &mut [Found]) -> anyhow::Result<()> {
    let there: BTreeSet<String> =
        cluster.topics(None).await?.into_iter().map(|topic| topic.name).collect();
    for topic in found.iter_mut().filter(|found| there.contains(&found.note.topic)) {
        let values = configs(cluster, TOPIC, &topic.note.topic).await?;
        let restore = values.iter().find(|(name, ..)| name == RESTORE);
        let restore = restore.and_then(|(_, text, _)| Restore::parse(text).ok().flatten());
        topic.there = Some(restore.is_some_and(|restore| restore.topic_id == topic.note.topic_id));
    }
    Ok(())
}

async fn create(cluster: &mut Cluster, found: &Found, replicas: Option<i16>) -> anyhow::Result<()> {
    let note = &found.note;
    let brokers = cluster.metadata(Some(Vec::new())).await?.brokers.len();
    let most = i16::try_from(brokers).unwrap_or(i16::MAX);
    let factor = replicas.unwrap_or(note.replication_factor.min(most));
    if replicas.is_none() && factor < note.replication_factor {
        eprintln!(
            "{} had {} replicas and gets {factor}: there are no more brokers.",
            note.topic, note.replication_factor
        );
    }
    let restore = Restore { topic_id: note.topic_id, leader_epoch: found.next_epoch() };
    let set = |name: &str, value: &str| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let mut settings: Vec<_> = note.configs.iter().map(|(name, value)| set(name, value)).collect();
    settings.push(set(RESTORE, &restore.to_string()));
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(note.topic.as_str())))
        .with_num_partitions(note.partitions)
        .with_replication_factor(factor)
        .with_configs(settings);
    topic::create(cluster, topic).await
}

/// Commits where groups were, as far as the bucket goes; returns how many groups got something.
async fn put_groups_back(
    tier: &Arc<Tier>,
    cluster: &mut Cluster,
    found: &[Found],
) -> anyhow::Result<usize> {
    let back = found.iter().filter(|topic| topic.there != Some(false));
    let topics: BTreeMap<&str, &Found> = back.map(|t| (t.note.topic.as_str(), t)).collect();
    let clusters: BTreeSet<&str> = topics.values().map(|t| t.note.cluster_id.as_str()).collect();
    let mut count = 0;
    for cluster_id in clusters.into_iter().filter(|id| !id.is_empty()) {
        for (group, noted) in tier.noted_groups(cluster_id).await? {
            let mut wanted: BTreeMap<&str, BTreeMap<i32, (i64, &str)>> = BTreeMap::new();
            for at in &noted {
                let Some(topic) = topics.get(at.topic.as_str()) else { continue };
                let Some(end) = topic.ends().get(&at.partition).copied() else { continue };
                if topic.note.cluster_id == cluster_id {
                    let place = (at.offset.min(end), at.metadata.as_str());
                    wanted.entry(&at.topic).or_default().insert(at.partition, place);
                }
            }
            if wanted.is_empty() {
                continue;
            }
            let known = committed(cluster, &group).await?;
            let mut is_put = false;
            for (topic, mut places) in wanted {
                places.retain(|index, _| !known.contains_key(&(topic.to_owned(), *index)));
                if !places.is_empty() {
                    put_back(cluster, (&group, topic), &places).await?;
                    is_put = true;
                }
            }
            count += usize::from(is_put);
        }
    }
    Ok(count)
}

async fn put_back(
    cluster: &mut Cluster,
    (group, topic): (&str, &str),
    places: &BTreeMap<i32, (i64, &str)>,
) -> anyhow::Result<()> {
    let positions = places.iter().map(|(index, (at, _))| (*index, *at)).collect();
    let mut request =
        commit_request(group, topic, &positions).with_generation_id_or_member_epoch(-1);
    for partition in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let place = places.get(&partition.partition_index);
        partition.committed_metadata = place.map(|(_, metadata)| text(*metadata));
    }
    send_commit(cluster, group, &request).await
}

fn show(found: &[Found], done: &str, format: Format) {
    let mut rows = Rows::new(&["topic", "id", "partitions", "records", "bytes", "result"]);
    for topic in found {
        let result = match topic.there {
            None => done,
            Some(true) => "restored before",
            Some(false) => "not restored: the cluster has another topic of this name",
        };
        rows.add(vec![
            topic.note.topic.as_str().into(),
            topic.note.topic_id.to_string().into(),
            topic.note.partitions.into(),
            topic.records().into(),
            topic.manifests.values().map(Manifest::bytes).sum::<u64>().into(),
            result.into(),
        ]);
    }
    rows.print(format);
}
