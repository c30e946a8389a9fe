//! `strandline produce`: lines of stdin, or files, become records.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;

use super::cluster_client::{Cluster, check_with};
use super::output::spinner;
use crate::model::number::{to_i32, to_u64};
use crate::protocol::messages::metadata_request::MetadataRequestTopic;
use crate::protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::protocol::messages::{MetadataRequest, ProduceRequest, TopicName};
use crate::protocol::text;
use crate::record::{BatchBuilder, Codec};
use crate::system::clock::{monotonic, sleep};
use crate::system::{Clock, OsDisk};

/// A batch is sent when its records have this many bytes.
const BATCH_BYTES: usize = 512 << 10;
/// How long a leader may be missing.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
const TIMEOUT_MS: i32 = 30_000;

#[derive(Debug, Args)]
pub(super) struct ProduceArguments {
    topic: String,
    /// What stands between key and value in a line; without it lines have no key
    #[arg(long, short, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header for every record. Repeatable
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The partition; without it records are spread, or go by the hash of their key
    #[arg(long, short)]
    partition: Option<i32>,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', default_value = "none")]
    compression: String,
    /// all, 1 or 0
    #[arg(long, default_value = "all", value_parser = ["all", "-1", "1", "0"])]
    acks: String,
    /// A file whose bytes become one record (repeatable); without it, lines of stdin
    #[arg(long = "file", short, value_name = "FILE")]
    files: Vec<PathBuf>,
}

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Collects records by partition and sends them.
struct Sender<'a> {
    cluster: &'a mut Cluster,
    topic: &'a str,
    leaders: Vec<i32>,
    batches: Vec<BatchBuilder>,
    codec: Codec,
    acks: i16,
    next: usize,
    sent: u64,
}

pub(super) async fn run(arguments: ProduceArguments, cluster: &mut Cluster) -> anyhow::Result<()> {
    let Some(codec) = Codec::from_name(&arguments.compression) else {
        bail!("'{}' is not a codec: none, gzip, snappy, lz4 or zstd", arguments.compression);
    };
    let headers = headers(&arguments.headers)?;
    let leaders = leaders(cluster, &arguments.topic).await?;
    if let Some(partition) = arguments.partition.filter(|p| !(0..to_i32(leaders.len())).contains(p))
    {
        bail!(
            "topic {} has {} partitions, and no partition {partition}",
            arguments.topic,
            leaders.len()
        );
    }
    let acks = match arguments.acks.as_str() {
        "1" => 1,
        "0" => 0,
        _ => -1,
    };
    let batches = leaders.iter().map(|_| BatchBuilder::new().codec(codec)).collect();
    let topic = &arguments.topic;
    let mut sender = Sender { cluster, topic, leaders, batches, codec, acks, next: 0, sent: 0 };
    let progress = progress();
    if arguments.files.is_empty() {
        let mut line = Vec::new();
        let mut stdin = std::io::stdin().lock();
        while stdin.read_until(b'\n', &mut line)? > 0 {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let (key, value) = split(&line, arguments.key_separator.as_deref());
            sender.add(arguments.partition, key, value, &headers).await?;
            progress.inc(1);
            line.clear();
        }
    }
    for path in &arguments.files {
        let bytes = crate::system::disk::read_file(&OsDisk, path)
            .with_context(|| format!("can't read {}", path.display()))?;
        sender.add(arguments.partition, None, &bytes, &headers).await?;
        progress.inc(1);
    }
    sender.flush().await?;
    progress.finish_and_clear();
    eprintln!("{} records sent to {topic}.", sender.sent);
    Ok(())
}

/// Lines that a person types need no counter.
fn progress() -> ProgressBar {
    if std::io::stdin().is_terminal() {
        return ProgressBar::hidden();
    }
    spinner("{spinner} {pos} records, {per_sec}")
}

fn headers(items: &[String]) -> anyhow::Result<Headers> {
    let mut headers = Vec::new();
    for item in items {
        let Some((name, value)) = item.split_once('=') else {
            bail!("header '{item}' is not of the form name=value")
        };
        headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
    }
    Ok(headers)
}

fn split<'a>(line: &'a [u8], separator: Option<&str>) -> (Option<&'a [u8]>, &'a [u8]) {
    let separator = separator.unwrap_or_default().as_bytes();
    if separator.is_empty() {
        return (None, line);
    }
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => {
            let (key, rest) = line.split_at(at);
            (Some(key), rest.strip_prefix(separator).unwrap_or_default())
        }
        None => (None, line),
    }
}

/// Leaders by partition; the broker may make the topic.
async fn leaders(cluster: &mut Cluster, topic: &str) -> anyhow::Result<Vec<i32>> {
    let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(true);
    for _ in 0..20 {
        let answered = cluster.any().await?.call(9, &request).await?;
        let Some(found) = answered.topics.into_iter().next() else { break };
        // Apache Kafka makes the topic after it has answered.
        if matches!(found.error_code, 3 | 5) {
            sleep(std::time::Duration::from_millis(250)).await;
            continue;
        }
        super::cluster_client::check(found.error_code, &format!("topic {topic}"))?;
        let mut partitions: Vec<(i32, i32)> =
            found.partitions.iter().map(|p| (p.partition_index, p.leader_id.0)).collect();
        partitions.sort_unstable();
        cluster.metadata(Some(Vec::new())).await?;
        return Ok(partitions.into_iter().map(|(_, leader)| leader).collect());
    }
    bail!("topic {topic} is not there: make it with `strandline topic create {topic}`")
}

impl Sender<'_> {
    async fn add(
        &mut self,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &Headers,
    ) -> anyhow::Result<()> {
        let count = self.leaders.len();
        let index = match (partition, key) {
            (Some(partition), _) => usize::try_from(partition)?,
            (None, Some(key)) => usize::try_from(murmur2(key) & 0x7fff_ffff)? % count.max(1),
            (None, None) => self.next % count.max(1),
        };
        let Some(batch) = self.batches.get_mut(index) else { return Ok(()) };
        batch.add(Clock::system().now_ms(), key, Some(value), headers);
        if batch.plain_bytes() >= BATCH_BYTES {
            self.send(index).await?;
            self.next += 1;
        }
        Ok(())
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        for index in 0..self.batches.len() {
            if self.batches.get(index).is_some_and(|batch| !batch.is_empty()) {
                self.send(index).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(batch) = self.batches.get_mut(index) else { return Ok(()) };
        let full = std::mem::replace(batch, BatchBuilder::new().codec(self.codec));
        let records = to_u64(full.count());
        let data = PartitionProduceData::default()
            .with_index(to_i32(index))
            .with_records(Some(Bytes::from(full.build())));
        let topic = TopicProduceData::default()
            .with_name(TopicName(text(self.topic)))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(self.acks)
            .with_timeout_ms(TIMEOUT_MS)
            .with_topic_data(vec![topic]);
        let until = monotonic() + PATIENCE;
        loop {
            match self.try_send(index, &request).await {
                Ok(None) => break,
                // Nothing was stored: the leader is another one now, or will be soon.
                Ok(Some(why)) | Err(why) if is_not_stored(&why) && monotonic() < until => {
                    sleep(RETRY_PAUSE).await;
                    if let Ok(found) = leaders(self.cluster, self.topic).await {
                        self.leaders = found;
                    }
                }
                Ok(Some(why)) | Err(why) => return Err(why),
            }
        }
        self.sent += records;
        Ok(())
    }

    /// Sends once; what the broker refuses is returned as a refusal.
    async fn try_send(
        &mut self,
        index: usize,
        request: &ProduceRequest,
    ) -> anyhow::Result<Option<anyhow::Error>> {
        let Some(leader) = self.leaders.get(index).copied() else { return Ok(None) };
        let node = self.cluster.node(leader).await.map_err(|error| error.context(NotStored))?;
        if self.acks == 0 {
            let version = node.version::<ProduceRequest>(9)?;
            node.send(version, request).await?;
            return Ok(None);
        }
        let response = node.call(9, request).await?;
        for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
            let about = format!("{}-{}", self.topic, partition.index);
            let code = partition.error_code;
            if let Err(why) = check_with(code, partition.error_message.as_deref(), &about) {
                // Unknown here, no leader, not the leader, too few in sync before anything was written.
                let is_refused = matches!(code, 3 | 5 | 6 | 19);
                return Ok(Some(if is_refused { why.context(NotStored) } else { why }));
            }
        }
        Ok(None)
    }
}

/// Marks an error after which nothing is stored, so that sending again doubles nothing.
#[derive(Debug, Clone, Copy)]
struct NotStored;

impl std::fmt::Display for NotStored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing was stored")
    }
}

fn is_not_stored(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NotStored>().is_some()
}

/// Murmur2 as Kafka's default partitioner uses it, so that a key goes where other clients send it.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ crate::model::number::to_u32(key.len());
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().unwrap_or_default()).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_hashes_as_in_the_java_client() {
        // Known answers of org.apache.kafka.common.utils.Utils.murmur2.
        assert_eq!(murmur2(b"21").cast_signed(), -973_932_308);
        assert_eq!(murmur2(b"foobar").cast_signed(), -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string").cast_signed(), -985_981_536);
    }

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        assert_eq!(split(b"k::v::w", Some("::")), (Some(&b"k"[..]), &b"v::w"[..]));
        assert_eq!(split(b"v", Some(":")), (None, &b"v"[..]));
        assert_eq!(split(b"a:b", None), (None, &b"a:b"[..]));
    }
}
