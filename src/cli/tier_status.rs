//! `strandline tier status`: what of a cluster's tiered topics is in the bucket, on disk, and not copied yet.
//!
//! Invariants: nothing is changed; prices are an estimate, and say so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::cluster_client::{Cluster, FoundTopic};
use super::consume::{PLAIN_BYTES_MAX, fetch};
use super::moves::sizes;
use super::output::{Format, Rows};
use super::secure;
use super::tier::{StoreArguments, complain, tier};
use super::topic::{EARLIEST, LATEST, LOCAL_START, TIERED, TIERED_END, TOPIC, configs, offsets};
use crate::model::number::{to_f64, to_i64};
use crate::record::{Records, next_batch};
use crate::remote_log::{Inventory, Manifest, requests_to_copy};
use crate::system::Clock;

const GIGABYTE: f64 = 1e9;

/// Which cluster is asked.
#[derive(Debug, Args)]
pub(super) struct ClusterArguments {
    /// Address of a broker, or several separated by commas
    #[arg(long, short, default_value = "localhost:9092", env = "STRANDLINE_BOOTSTRAP")]
    bootstrap: String,
    /// File of Kafka's client settings: security.protocol, ssl.truststore.location, ssl.keystore.location
    #[arg(long, value_name = "FILE", env = "STRANDLINE_COMMAND_CONFIG")]
    command_config: Option<PathBuf>,
}

impl ClusterArguments {
    pub(super) async fn connect(&self) -> anyhow::Result<Cluster> {
        secure::configure(self.command_config.as_deref())?;
        Cluster::connect(&self.bootstrap).await
    }
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    store: StoreArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// What a gigabyte costs in a month, in any currency; as a default what AWS S3 Standard costs in dollars in us-east-1
    #[arg(long, value_name = "PRICE", default_value_t = 0.023)]
    gigabyte_price: f64,
    /// What a thousand requests that write cost
    #[arg(long, value_name = "PRICE", default_value_t = 0.005)]
    thousand_puts_price: f64,
}

/// What is known of one topic.
#[derive(Default)]
struct Status {
    partitions: usize,
    /// Partitions of which the bucket has no manifest.
    unknown: usize,
    segments: usize,
    remote_bytes: u64,
    local_bytes: u64,
    records: i64,
    local_records: i64,
    uncopied_records: i64,
    /// The age of the oldest of them.
    oldest_uncopied_s: i64,
}

pub(super) async fn run(arguments: StatusArguments, format: Format) -> anyhow::Result<()> {
    let mut cluster = arguments.cluster.connect().await?;
    let inventory = tier(&arguments.store)?.inventory().await?;
    let ids: Vec<i32> = cluster.metadata(None).await?.brokers.iter().map(|b| b.node_id.0).collect();
    let sizes = sizes(&mut cluster, &ids).await?;
    let now_ms = Clock::system().now_ms();
    let columns =
        ["topic", "partitions", "segments", "remote", "local", "records", "local_records"];
    let mut rows =
        Rows::new(&[&columns[..], &["uncopied_records", "oldest_uncopied_s", "unknown"]].concat());
    for topic in cluster.topics(None).await?.into_iter().filter(|topic| !topic.is_internal) {
        if !is_tiered(&mut cluster, &topic.name).await? {
            continue;
        }
        let status = status(&mut cluster, &topic, (&inventory, &sizes), now_ms).await?;
        rows.add(vec![
            topic.name.into(),
            status.partitions.into(),
            status.segments.into(),
            status.remote_bytes.into(),
            status.local_bytes.into(),
            status.records.into(),
            status.local_records.into(),
            status.uncopied_records.into(),
            status.oldest_uncopied_s.into(),
            status.unknown.into(),
        ]);
    }
    rows.print(format);
    estimate(&inventory, &arguments);
    complain(&inventory)
}

async fn is_tiered(cluster: &mut Cluster, topic: &str) -> anyhow::Result<bool> {
    let configs = configs(cluster, TOPIC, topic).await?;
    let mut tiered = configs.iter().filter(|(name, ..)| name == TIERED);
    Ok(tiered.any(|(_, value, _)| value == "true"))
}

async fn status(
    cluster: &mut Cluster,
    found: &FoundTopic,
    (inventory, sizes): (&Inventory, &BTreeMap<(String, i32), u64>),
    now_ms: i64,
) -> anyhow::Result<Status> {
    let topic = &*found.name;
    let starts = offsets(cluster, topic, EARLIEST).await?;
    let local = offsets(cluster, topic, LOCAL_START).await?;
    let tiered = offsets(cluster, topic, TIERED_END).await?;
    let mut status = Status::default();
    for (partition, end) in offsets(cluster, topic, LATEST).await? {
        let at = |all: &BTreeMap<i32, i64>| all.get(&partition).copied().unwrap_or(0);
        status.partitions += 1;
        status.records += end - at(&starts);
        status.local_records += end - at(&local);
        let uncopied = (at(&tiered) + 1).max(at(&starts));
        status.uncopied_records += end - uncopied;
        if uncopied < end
            && let Some(at_ms) = time_of(cluster, found, (partition, uncopied)).await?
        {
            let age_s = now_ms.saturating_sub(at_ms).max(0) / 1_000;
            status.oldest_uncopied_s = status.oldest_uncopied_s.max(age_s);
        }
        let key = (topic.to_owned(), partition);
        status.local_bytes += sizes.get(&key).copied().unwrap_or(0);
        // Brokers that are older than topics' ids say none.
        let is_of = |m: &Manifest| {
            if found.id.is_nil() { m.topic == topic } else { m.topic_id == found.id }
        };
        let its = |m: &&Manifest| is_of(m) && m.partition == partition;
        let Some(manifest) = inventory.manifests.iter().filter(its).max_by_key(|m| m.leader_epoch)
        else {
            status.unknown += 1;
            continue;
        };
        status.segments += manifest.segments.len();
        status.remote_bytes += manifest.bytes();
    }
    Ok(status)
}

/// When the first record at or after an offset was made.
async fn time_of(
    cluster: &mut Cluster,
    topic: &FoundTopic,
    (partition, offset): (i32, i64),
) -> anyhow::Result<Option<i64>> {
    let Some((leader, ..)) = topic.partitions.get(&partition) else { return Ok(None) };
    let wanted = [(partition, offset)];
    for (_, bytes) in fetch(cluster, &topic.name, *leader, &wanted, 1).await? {
        let Some((header, batch, _)) = next_batch(&bytes) else { continue };
        for record in &Records::open(header, batch, PLAIN_BYTES_MAX)? {
            let record = record?;
            if record.offset >= offset {
                return Ok(Some(record.timestamp));
            }
        }
    }
    Ok(None)
}

/// What the bucket costs, about.
fn estimate(inventory: &Inventory, arguments: &StatusArguments) {
    let segments = inventory.manifests.iter().flat_map(|manifest| &manifest.segments);
    let (mut bytes, mut puts) = (0_u64, 0_u64);
    for segment in segments {
        bytes = bytes.saturating_add(segment.object_bytes);
        puts = puts.saturating_add(requests_to_copy(segment.object_bytes));
    }
    let a_month = to_f64(to_i64(bytes)) / GIGABYTE * arguments.gigabyte_price;
    let once = to_f64(to_i64(puts)) / 1_000.0 * arguments.thousand_puts_price;
    eprintln!(
        "{bytes} bytes in the bucket cost about {a_month:.2} a month; the {puts} requests that wrote them cost about {once:.2}."
    );
}
