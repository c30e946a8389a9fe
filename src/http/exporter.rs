//! Looks at the broker's state when somebody asks for metrics.
//!
//! Invariants: what it finds belongs to the one who asks; a partition's lock is held to read numbers, never for a disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::server::Http;
use crate::metrics::{Name, Scrape};
use crate::model::TopicPartition;
use crate::model::number::{to_f64, to_i64};

/// The text of `/metrics`. Blocks: looks at logs.
pub(super) fn text(http: &Http) -> String {
    let mut found = Scrape::default();
    broker(http, &mut found);
    directories(http, &mut found);
    topics(http, &mut found);
    tier(http, &mut found);
    groups(http, &mut found);
    http.metrics.text(found)
}

fn broker(http: &Http, found: &mut Scrape) {
    let count = |value: usize| to_f64(to_i64(value));
    found.show(Name::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
    found.show(Name::Ready, &[], 1.0);
    found.show(Name::Connections, &[], count(http.limits.open()));
    found.show(Name::RequestBytes, &[], count(http.budgets.requests.used()));
    found.show(Name::KeptBytes, &[], count(http.budgets.kept.used()));
    found.show(Name::FetchSessions, &[], count(http.context.sessions.count()));
    let image = http.context.controller.image();
    let alive = image.brokers.iter().filter(|(_, broker)| !broker.is_fenced);
    for (id, broker) in alive.clone() {
        let address = broker.endpoints.first().map(|e| format!("{}:{}", e.host, e.port));
        let labels = [&id.to_string(), &address.unwrap_or_default()];
        found.show(Name::ExporterBrokerInfo, &labels.map(String::as_str), 1.0);
    }
    let alive = alive.count();
    found.show(Name::ExporterBrokers, &[], count(alive));
    found.show(Name::FencedBrokers, &[], count(image.brokers.len() - alive));
    let discarded = to_i64(http.context.replicas.discarded_records());
    found.show(Name::DiscardedRecords, &[], to_f64(discarded));
    let unread = to_i64(http.context.replicas.unread());
    found.show(Name::UnreadRecords, &[], to_f64(unread));
    let is_active = http.context.controller.controller_id() == http.context.node_id;
    found.show(Name::ActiveController, &[], f64::from(u8::from(is_active)));
}

fn directories(http: &Http, found: &mut Scrape) {
    let flag = |is_set: bool| f64::from(u8::from(is_set));
    for directory in http.context.replicas.directories() {
        let path = directory.path.display().to_string();
        found.show(Name::DirectoryOffline, &[&path], flag(directory.is_offline()));
        found.show(Name::DirectoryFull, &[&path], flag(directory.is_full()));
        if let Some(space) = directory.space() {
            found.show(Name::DirectoryTotal, &[&path], to_f64(to_i64(space.total)));
            found.show(Name::DirectoryUsable, &[&path], to_f64(to_i64(space.usable)));
        }
    }
}

/// What is in object storage, and what is not yet.
fn tier(http: &Http, found: &mut Scrape) {
    let Some(counts) = http.context.replicas.tier_counts() else { return };
    let number = |count: &AtomicU64| to_f64(to_i64(count.load(Ordering::Relaxed)));
    for (name, count) in [
        (Name::RemoteCopiedBytes, &counts.copied_bytes),
        (Name::RemoteReadBytes, &counts.read_bytes),
        (Name::RemoteReads, &counts.reads),
        (Name::RemoteFailures, &counts.failures),
        (Name::RemoteCacheHits, &counts.cache_hits),
        (Name::RemoteDiskCacheHits, &counts.disk_cache_hits),
        (Name::RemoteOrphans, &counts.orphans),
    ] {
        found.show(name, &[], number(count));
    }
    if let Some(tier) = http.context.replicas.tier() {
        let requests = tier.store.counts();
        for (kind, count) in requests.requests() {
            found.show(Name::RemoteRequests, &[kind], to_f64(to_i64(count)));
        }
        for (reason, count) in requests.errors() {
            found.show(Name::RemoteRequestErrors, &[reason], to_f64(to_i64(count)));
        }
    }
    let (mut unknown, now_ms) = (0, http.context.clock.now_ms());
    let directories = http.context.replicas.directories();
    for partition in directories.iter().flat_map(|directory| directory.partitions()) {
        let Some(extent) = partition.tiered_extent().filter(|_| partition.is_leader()) else {
            continue;
        };
        unknown += i32::from(!extent.is_known);
        let labels: &[&str] = &[&partition.name.topic, &partition.name.partition.to_string()];
        found.show(Name::RemoteBytes, labels, to_f64(to_i64(extent.bytes)));
        let uncopied = to_f64(to_i64(extent.uncopied_bytes));
        found.show(Name::RemoteUncopiedBytes, labels, uncopied);
        let oldest_ms = partition.timestamp_at(extent.end).unwrap_or(now_ms);
        let age_ms = (now_ms - oldest_ms).max(0);
        found.show(Name::RemoteUncopiedSeconds, labels, to_f64(age_ms) / 1000.0);
    }
    found.show(Name::RemoteUnknown, &[], f64::from(unknown));
}

fn topics(http: &Http, found: &mut Scrape) {
    let (mut offline, mut under_replicated) = (0, 0);
    for topic in http.context.controller.image().topics.values() {
        let name: &str = &topic.name;
        found.show(Name::ExporterTopicPartitions, &[name], to_f64(to_i64(topic.partitions.len())));
        for (index, partition) in (0_i32..).zip(&topic.partitions) {
            let labels: &[&str] = &[name, &index.to_string()];
            // Every partition is told by its leader.
            if partition.leader != http.context.node_id {
                offline += i32::from(partition.leader < 0);
                continue;
            }
            let handle = http.context.replicas.partition(&TopicPartition::new(name, index));
            let bounds = handle.as_ref().and_then(|handle| handle.bounds(-1).ok());
            let Some((start, high_watermark, _)) = bounds else {
                offline += i32::from(handle.is_none_or(|handle| !handle.is_online()));
                continue;
            };
            found.show(Name::ExporterOldestOffset, labels, to_f64(start));
            found.show(Name::ExporterCurrentOffset, labels, to_f64(high_watermark));
            found.show(Name::ExporterLeader, labels, f64::from(partition.leader));
            let is_preferred = partition.replicas.first() == Some(&partition.leader);
            found.show(Name::ExporterPreferred, labels, f64::from(u8::from(is_preferred)));
            found.show(Name::ExporterReplicas, labels, to_f64(to_i64(partition.replicas.len())));
            found.show(Name::ExporterInSync, labels, to_f64(to_i64(partition.isr.len())));
            let is_under = partition.isr.len() < partition.replicas.len();
            under_replicated += i32::from(is_under);
            found.show(Name::ExporterUnderReplicated, labels, f64::from(u8::from(is_under)));
            if let Some(bytes) = handle.and_then(|handle| handle.with_log(crate::log::Log::bytes)) {
                found.show(Name::PartitionBytes, labels, to_f64(to_i64(bytes)));
            }
        }
    }
    found.show(Name::OfflinePartitions, &[], f64::from(offline));
    found.show(Name::UnderReplicated, &[], f64::from(under_replicated));
}

fn groups(http: &Http, found: &mut Scrape) {
    let now_ms = http.context.clock.now_ms();
    let mut sums: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
    for (group, members) in http.context.groups.sizes() {
        found.show(Name::ExporterGroupMembers, &[&group], to_f64(to_i64(members)));
    }
    for (group, topic, partition, offset) in http.context.groups.committed() {
        let Some(handle) = http.context.replicas.partition(&TopicPartition::new(&topic, partition))
        else {
            continue;
        };
        let Ok((start, high_watermark, _)) = handle.bounds(-1) else { continue };
        let lag = (high_watermark - offset.max(start)).max(0);
        let labels: &[&str] = &[&group, &topic, &partition.to_string()];
        found.show(Name::ExporterGroupOffset, labels, to_f64(offset));
        found.show(Name::ExporterGroupLag, labels, to_f64(lag));
        let oldest_ms = if lag > 0 { handle.timestamp_at(offset.max(start)) } else { None };
        let age_ms = oldest_ms.map_or(0, |ms| (now_ms - ms).max(0));
        found.show(Name::LagSeconds, labels, to_f64(age_ms) / 1000.0);
        let sum = sums.entry((group, topic)).or_default();
        sum.0 += offset;
        sum.1 += lag;
    }
    for ((group, topic), (offsets, lag)) in sums {
        found.show(Name::ExporterGroupOffsetSum, &[&group, &topic], to_f64(offsets));
        found.show(Name::ExporterGroupLagSum, &[&group, &topic], to_f64(lag));
    }
}
