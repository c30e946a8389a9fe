//! Topics as a bucket has them.
//!
//! Invariants: a topic that was deleted is not found; of two of the same name none is taken without being told which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::cluster_client::Cluster;
use super::topic::{LATEST, TIERED, offsets};
use crate::model::{PartitionId, TopicId};
use crate::remote_log::{Inventory, Manifest, Tier, TopicNote};
use crate::system::clock::{monotonic, sleep};

/// How long the brokers may take to find out where the logs begin.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(200);
/// More than any topic has.
const PARTITIONS_MAX: i32 = 10_000;

/// Which topics are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Names or ids; none: all.
    pub topics: &'a [String],
    pub cluster: Option<&'a String>,
    /// The bucket, for errors.
    pub location: &'a str,
}

/// A topic as the bucket has it.
pub(super) struct Found {
    pub note: TopicNote,
    pub manifests: BTreeMap<PartitionId, Manifest>,
    /// Whether the cluster has a topic of this name; then whether it is this one.
    pub there: Option<bool>,
}

impl Found {
    /// Where each partition goes on.
    pub(super) fn ends(&self) -> BTreeMap<PartitionId, i64> {
        let end = |index| self.manifests.get(&index).map_or(0, |m| m.end().unwrap_or(m.log_start));
        (0..self.note.partitions).map(|index| (index, end(index))).collect()
    }

    /// A leader epoch that no leader had before.
    pub(super) fn next_epoch(&self) -> i32 {
        let epochs = self.manifests.values().map(|manifest| manifest.leader_epoch);
        epochs.chain([self.note.leader_epoch]).max().unwrap_or(-1).saturating_add(1)
    }

    pub(super) fn records(&self) -> i64 {
        let of = |m: &Manifest| m.end().unwrap_or(m.log_start) - m.log_start;
        self.manifests.values().map(of).sum()
    }
}

/// The topics that are wanted.
pub(super) async fn select(
    tier: &Arc<Tier>,
    inventory: Inventory,
    wanted: Wanted<'_>,
) -> anyhow::Result<Vec<Found>> {
    let Wanted { topics: names, cluster, location } = wanted;
    let mut topics: BTreeMap<TopicId, Found> = BTreeMap::new();
    for note in inventory.topics {
        topics.insert(note.topic_id, Found { note, manifests: BTreeMap::new(), there: None });
    }
    for manifest in inventory.manifests {
        let found = topics.entry(manifest.topic_id).or_insert_with(|| {
            // A bucket of an earlier release: its topics begin with the settings of the cluster.
            let mut note = TopicNote::new("", &manifest.topic, manifest.topic_id);
            note.configs.insert(TIERED.to_owned(), true.to_string());
            Found { note, manifests: BTreeMap::new(), there: None }
        });
        found.note.partitions = found.note.partitions.max(manifest.partition.saturating_add(1));
        found.manifests.insert(manifest.partition, manifest);
    }
    let is_wanted = |found: &Found| {
        let note = &found.note;
        let is_named = |name: &String| *name == note.topic || *name == note.topic_id.to_string();
        (names.is_empty() || names.iter().any(is_named))
            && cluster.is_none_or(|id| *id == note.cluster_id)
    };
    let (mut wanted, mut seen) = (Vec::new(), BTreeSet::new());
    for found in topics.into_values().filter(is_wanted) {
        let TopicNote { topic, topic_id, partitions, .. } = &found.note;
        if tier.is_deleted(topic, *topic_id).await? {
            eprintln!("{topic} ({topic_id}) was deleted, and is left alone.");
            continue;
        }
        if !(1..=PARTITIONS_MAX).contains(partitions) {
            bail!("{location} says that {topic} has {partitions} partitions, which can't be");
        }
        if !seen.insert(topic.clone()) {
            bail!(
                "{location} has two topics of the name {topic}: choose with --topic ID or --cluster ID (strandline tier ls shows ids)"
            );
        }
        wanted.push(found);
    }
    let is_there = |name: &String| {
        wanted.iter().any(|f| f.note.topic == *name || f.note.topic_id.to_string() == *name)
    };
    if let Some(missing) = names.iter().find(|name| !is_there(name)) {
        bail!("there is nothing of a topic {missing} in {location}");
    }
    if wanted.is_empty() {
        bail!("there is no such topic in {location}");
    }
    wanted.sort_by(|a, b| a.note.topic.cmp(&b.note.topic));
    Ok(wanted)
}

/// Waits until every partition begins where the bucket ends.
pub(super) async fn wait_for(
    cluster: &mut Cluster,
    topic: &str,
    wanted: &BTreeMap<PartitionId, i64>,
) -> anyhow::Result<()> {
    let until = monotonic() + PATIENCE;
    loop {
        let now = offsets(cluster, topic, LATEST).await;
        let is_back = |now: &BTreeMap<i32, i64>| {
            wanted.iter().all(|(index, end)| now.get(index).is_some_and(|now| now >= end))
        };
        match now {
            Ok(now) if is_back(&now) => return Ok(()),
            _ if monotonic() < until => {}
            Ok(now) => bail!("{topic} is at {now:?}, and the bucket goes up to {wanted:?}"),
            Err(error) => {
                let why = "is made, but not there yet: the brokers go on trying, and their logs say why (do they know this \
                           bucket?)";
                return Err(error).with_context(|| format!("{topic} {why}"));
            }
        }
        sleep(LOOK).await;
    }
}
