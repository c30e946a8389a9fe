//! `strandline consume`: records to stdout.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::cluster_client::{Cluster, check};
use super::consumer_group::Member;
use super::group::{commit, committed};
use super::topic::{EARLIEST, LATEST, offsets, offsets_at};
use crate::protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use crate::protocol::messages::{BrokerId, FetchRequest, TopicName};
use crate::protocol::text;
use crate::record::reader::{self, Record};
use crate::record::{Records, next_batch};
use crate::system::clock::sleep;

const WAIT_MS: i32 = 500;
const FETCH_BYTES: i32 = 8 << 20;
pub(super) const PLAIN_BYTES_MAX: usize = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct ConsumeArguments {
    topic: String,
    /// Where to begin: start, end, an offset, -10 (the last ten of each partition), or @time in milliseconds
    #[arg(long, short, default_value = "end", allow_hyphen_values = true)]
    offset: String,
    /// Only this partition. Repeatable
    #[arg(long = "partition", short)]
    partitions: Vec<i32>,
    /// Stop after so many records
    #[arg(long = "num", short)]
    number: Option<u64>,
    /// Stop at the end
    #[arg(long, short)]
    exit: bool,
    /// Join this group: read what it gives, begin where it has committed, commit what was shown. With --partition
    /// no part is taken in the group
    #[arg(long, short)]
    group: Option<String>,
    /// %t topic, %p partition, %o offset, %T timestamp, %k key, %v value, %h headers, \n, \t
    #[arg(long = "template", short = 'f', default_value = "%v\\n")]
    template: String,
    /// One JSON object a line
    #[arg(long, short = 'J')]
    json: bool,
}

pub(super) async fn run(arguments: ConsumeArguments, cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut member = match &arguments.group {
        // Named partitions are read whoever else reads them, as with a consumer that assigns itself.
        Some(group) if arguments.partitions.is_empty() => {
            Some(Member::join(cluster, group, &arguments.topic).await?)
        }
        _ => None,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let read = tokio::select! {
        read = read(&arguments, cluster, &mut member) => read,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    if let Some(member) = member {
        // The old connections may still owe an answer.
        member.leave(&mut cluster.renewed().await?).await?;
    }
    read
}

async fn read(
    arguments: &ConsumeArguments,
    cluster: &mut Cluster,
    member: &mut Option<Member>,
) -> anyhow::Result<()> {
    let topic = cluster.topic(&arguments.topic).await?;
    let mut positions = begin(arguments, member.as_ref(), cluster).await?;
    let ends =
        if arguments.exit { Some(offsets(cluster, &arguments.topic, LATEST).await?) } else { None };
    let mut left = arguments.number.unwrap_or(u64::MAX);
    let mut out = std::io::stdout();
    loop {
        if let Some(member) = member
            && member.keep_alive(cluster).await?
        {
            positions = begin(arguments, Some(member), cluster).await?;
        }
        let is_done = |positions: &BTreeMap<i32, i64>| {
            ends.as_ref()
                .is_some_and(|ends| positions.iter().all(|(p, at)| at >= ends.get(p).unwrap_or(&0)))
        };
        if left == 0 || is_done(&positions) {
            return Ok(());
        }
        let before = positions.clone();
        for (leader, wanted) in by_leader(&topic.partitions, &positions) {
            let fetched = fetch(cluster, &arguments.topic, leader, &wanted, FETCH_BYTES).await?;
            for (index, records) in fetched {
                let shown = show(arguments, index, &records, &mut positions, &mut left, &mut out)?;
                if !shown {
                    break;
                }
            }
        }
        out.flush()?;
        if positions == before {
            sleep(std::time::Duration::from_millis(20)).await;
        } else {
            match (member.as_mut(), &arguments.group) {
                (Some(member), _) => member.commit(cluster, &positions).await?,
                (None, Some(group)) => commit(cluster, group, &arguments.topic, &positions).await?,
                (None, None) => {}
            }
        }
    }
}

/// The first offset of each partition that is to be read.
async fn begin(
    arguments: &ConsumeArguments,
    member: Option<&Member>,
    cluster: &mut Cluster,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let topic = &arguments.topic;
    let starts = offsets(cluster, topic, EARLIEST).await?;
    let ends = offsets(cluster, topic, LATEST).await?;
    let mut positions = match arguments.offset.as_str() {
        "start" => starts.clone(),
        "end" => ends.clone(),
        at if at.starts_with('@') => offsets_at(cluster, topic, at, &ends).await?,
        at => {
            let at: i64 = at
                .parse()
                .with_context(|| format!("'{at}' is not an offset: start, end, 7, -10 or @time"))?;
            let place = |(p, end): (&i32, &i64)| {
                let start = starts.get(p).copied().unwrap_or(0);
                (*p, if at < 0 { (end + at).max(start) } else { at.clamp(start, *end) })
            };
            ends.iter().map(place).collect()
        }
    };
    if let Some(group) = &arguments.group {
        for ((name, partition), offset) in committed(cluster, group).await? {
            if name == *topic {
                positions.insert(partition, offset);
            }
        }
    }
    for wanted in &arguments.partitions {
        if !positions.contains_key(wanted) {
            bail!("topic {topic} has no partition {wanted}");
        }
    }
    let is_named =
        |index: &i32| arguments.partitions.is_empty() || arguments.partitions.contains(index);
    let is_ours = |index: &i32| member.is_none_or(|member| member.partitions.contains(index));
    positions.retain(|index, _| is_named(index) && is_ours(index));
    Ok(positions)
}

type Partitions = BTreeMap<i32, (i32, Vec<i32>, Vec<i32>)>;

fn by_leader(
    partitions: &Partitions,
    positions: &BTreeMap<i32, i64>,
) -> BTreeMap<i32, Vec<(i32, i64)>> {
    let mut wanted: BTreeMap<i32, Vec<(i32, i64)>> = BTreeMap::new();
    for (index, at) in positions {
        if let Some((leader, ..)) = partitions.get(index) {
            wanted.entry(*leader).or_default().push((*index, *at));
        }
    }
    wanted
}

/// A fetch of partitions from offsets, without a session.
pub(super) fn fetch_request(
    topic: &str,
    positions: &[(i32, i64)],
    fetch_bytes: i32,
    wait_ms: i32,
) -> FetchRequest {
    let partition = |(index, at): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*at)
            .with_partition_max_bytes(fetch_bytes)
    };
    let partitions = positions.iter().map(partition).collect();
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(fetch_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![
            FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(partitions),
        ])
}

/// Fetches once from a leader; partitions and their bytes.
pub(super) async fn fetch(
    cluster: &mut Cluster,
    topic: &str,
    leader: i32,
    wanted: &[(i32, i64)],
    bytes_max: i32,
) -> anyhow::Result<Vec<(i32, bytes::Bytes)>> {
    let request = fetch_request(topic, wanted, bytes_max, WAIT_MS);
    let response = cluster.node(leader).await?.call(12, &request).await?;
    check(response.error_code, topic)?;
    let mut fetched = Vec::new();
    for partition in response.responses.into_iter().flat_map(|topic| topic.partitions) {
        check(partition.error_code, &format!("{topic}-{}", partition.partition_index))?;
        fetched.push((partition.partition_index, partition.records.unwrap_or_default()));
    }
    Ok(fetched)
}

/// Shows the records of a fetch; returns whether more are wanted.
fn show(
    arguments: &ConsumeArguments,
    partition: i32,
    bytes: &[u8],
    positions: &mut BTreeMap<i32, i64>,
    left: &mut u64,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let position = positions.entry(partition).or_insert(0);
    let mut rest = bytes;
    while let Some((header, batch, after)) = next_batch(rest) {
        rest = after;
        if !header.is_control() {
            for record in &Records::open(header, batch, PLAIN_BYTES_MAX)? {
                let record = record?;
                if record.offset < *position {
                    continue;
                }
                if *left == 0 {
                    return Ok(false);
                }
                *left -= 1;
                *position = record.offset + 1;
                write_record(arguments, partition, &record, out)?;
            }
        }
        *position = (*position).max(header.last_offset() + 1);
    }
    Ok(true)
}

fn write_record(
    arguments: &ConsumeArguments,
    partition: i32,
    record: &Record<'_>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let lossy =
        |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let headers = reader::headers(record);
    if arguments.json {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| json!({ "key": name, "value": lossy(value.as_deref()) }))
            .collect();
        let line = json!({
            "topic": arguments.topic, "partition": partition, "offset": record.offset,
            "timestamp": record.timestamp, "key": lossy(record.key), "value": lossy(record.value),
            "headers": headers,
        });
        return writeln!(out, "{line}");
    }
    let mut template = arguments.template.chars();
    while let Some(letter) = template.next() {
        match letter {
            '%' => match template.next() {
                Some('t') => write!(out, "{}", arguments.topic)?,
                Some('p') => write!(out, "{partition}")?,
                Some('o') => write!(out, "{}", record.offset)?,
                Some('T') => write!(out, "{}", record.timestamp)?,
                Some('k') => out.write_all(record.key.unwrap_or_default())?,
                Some('v') => out.write_all(record.value.unwrap_or_default())?,
                Some('h') => {
                    let pair = |(name, value): &(String, Option<Vec<u8>>)| {
                        format!("{name}={}", lossy(value.as_deref()).unwrap_or_default())
                    };
                    write!(out, "{}", headers.iter().map(pair).collect::<Vec<_>>().join(","))?;
                }
                Some(other) => write!(out, "{other}")?,
                None => {}
            },
            '\\' => match template.next() {
                Some('n') => writeln!(out)?,
                Some('t') => write!(out, "\t")?,
                Some(other) => write!(out, "{other}")?,
                None => {}
            },
            letter => write!(out, "{letter}")?,
        }
    }
    Ok(())
}
