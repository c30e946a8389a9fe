//! `strandline bench`: how fast a cluster is, with a client that costs little (batches are built once).

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use clap::{Args, Subcommand};
use hdrhistogram::Histogram;

use super::cluster_client::{Cluster, Node, check};
use super::consume::fetch_request;
use super::topic::{EARLIEST, offsets};
use crate::model::number::{to_f64, to_i64, to_u64};
use crate::protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::protocol::messages::{ProduceRequest, TopicName};
use crate::protocol::text;
use crate::record::{BatchBuilder, next_batch};
use crate::system::clock::{Instant, monotonic, sleep_until};
use crate::system::tasks::spawn;
use crate::system::{Clock, Random};

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Send batches as fast as they are taken
    Produce(ProduceLoad),
    /// Read a topic from its start as fast as it comes
    Consume(ConsumeLoad),
    /// Send single records at a fixed rate and time them until they are read
    E2e(EndToEnd),
}

#[derive(Debug, Clone, Args)]
pub(super) struct ProduceLoad {
    topic: String,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    #[arg(long, default_value_t = 16384)]
    batch_bytes: usize,
    /// Connections
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Requests in flight on each
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    #[arg(long, default_value = "all", value_parser = ["all", "-1", "1"])]
    acks: String,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ConsumeLoad {
    topic: String,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most bytes of one answer
    #[arg(long, default_value_t = 1 << 20)]
    fetch_bytes: i32,
}

#[derive(Debug, Clone, Args)]
pub(super) struct EndToEnd {
    topic: String,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Records a second
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    #[arg(long, default_value_t = 100)]
    record_bytes: usize,
}

pub(super) async fn run(command: BenchCommand, bootstrap: &str) -> anyhow::Result<()> {
    match command {
        BenchCommand::Produce(load) => produce(&load, bootstrap).await,
        BenchCommand::Consume(load) => consume(&load, bootstrap).await,
        BenchCommand::E2e(load) => end_to_end(load, bootstrap).await,
    }
}

/// A produce request's frame, built once; only its correlation id changes.
struct Replay {
    frame: BytesMut,
    version: i16,
    id: i32,
}

impl Replay {
    fn new(
        node: &Node,
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
        acks: i16,
    ) -> anyhow::Result<Self> {
        let version = node.version::<ProduceRequest>(9)?;
        let frame =
            crate::protocol::encode_request(version, 0, &request(topic, partition, batch, acks))?;
        Ok(Self { frame, version, id: 0 })
    }

    fn next(&mut self) -> (&[u8], i32) {
        self.id += 1;
        if let Some(place) = self.frame.get_mut(8..12) {
            place.copy_from_slice(&self.id.to_be_bytes());
        }
        (&self.frame, self.id)
    }
}

fn request(topic: &str, partition: i32, batch: Vec<u8>, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(Bytes::from(batch)));
    let topic = TopicProduceData::default()
        .with_name(TopicName(text(topic)))
        .with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

fn batch(records: usize, record_bytes: usize) -> Vec<u8> {
    // Random bytes, so that nothing is gained by packing them.
    let random = Random::from_system();
    let now_ms = Clock::system().now_ms();
    let mut builder = BatchBuilder::new();
    for _ in 0..records.max(1) {
        let value: Vec<u8> = std::iter::repeat_with(|| random.next_u64().to_le_bytes())
            .flatten()
            .take(record_bytes)
            .collect();
        builder = builder.record(now_ms, None, Some(&value));
    }
    builder.build()
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn produce(load: &ProduceLoad, bootstrap: &str) -> anyhow::Result<()> {
    let acks: i16 = if load.acks == "1" { 1 } else { -1 };
    let records = load.batch_bytes / load.record_bytes.max(1);
    let mut cluster = Cluster::connect(bootstrap).await?;
    let topic = cluster.topic(&load.topic).await?;
    let leaders: Vec<(i32, i32)> =
        topic.partitions.iter().map(|(p, (leader, ..))| (*p, *leader)).collect();
    let end = monotonic() + Duration::from_secs(load.seconds);
    let begun = monotonic();
    let mut tasks = Vec::new();
    for client in 0..load.clients.max(1) {
        let (partition, leader) =
            leaders.get(client % leaders.len().max(1)).copied().unwrap_or((0, -1));
        let address = cluster.node(leader).await?.address().to_owned();
        let (name, in_flight) = (load.topic.clone(), load.in_flight.max(1));
        let batch = batch(records, load.record_bytes);
        tasks.push(spawn(async move {
            let mut node = Node::connect(&address).await?;
            let mut replay = Replay::new(&node, &name, partition, batch, acks)?;
            let mut latency = histogram()?;
            let mut sent = std::collections::VecDeque::new();
            let mut requests = 0_u64;
            loop {
                while sent.len() < in_flight && monotonic() < end {
                    let (frame, id) = replay.next();
                    node.send_frame(frame).await?;
                    sent.push_back((id, monotonic()));
                }
                let Some((id, at)) = sent.pop_front() else { break };
                let answered = node.receive::<ProduceRequest>(replay.version, id).await?;
                for partition in
                    answered.responses.iter().flat_map(|topic| &topic.partition_responses)
                {
                    check(partition.error_code, &name)?;
                }
                latency.saturating_record(micros(at));
                requests += 1;
            }
            anyhow::Ok((requests, latency))
        }));
    }
    let (mut requests, mut latency) = (0, histogram()?);
    for task in tasks {
        let (count, times) = task.await.context("a client panicked")??;
        requests += count;
        latency.add(times)?;
    }
    let bytes = requests * to_u64(records.max(1)) * to_u64(load.record_bytes);
    report("sent", bytes, requests * to_u64(records.max(1)), begun.elapsed(), &latency);
    Ok(())
}

fn report(what: &str, bytes: u64, records: u64, took: Duration, latency: &Histogram<u64>) {
    let seconds = took.as_secs_f64();
    let rate = |value: u64| to_f64(to_i64(value)) / seconds;
    say!(
        "{what}: {:.1} MB/s, {:.0} records/s over {seconds:.1} s",
        rate(bytes) / 1e6,
        rate(records)
    );
    let at = |quantile: f64| to_f64(to_i64(latency.value_at_quantile(quantile))) / 1000.0;
    say!(
        "latency in ms: p50 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3}",
        at(0.5),
        at(0.99),
        at(0.999),
        to_f64(to_i64(latency.max())) / 1000.0
    );
}

async fn consume(load: &ConsumeLoad, bootstrap: &str) -> anyhow::Result<()> {
    let mut cluster = Cluster::connect(bootstrap).await?;
    let mut positions: Vec<(i32, i64)> =
        offsets(&mut cluster, &load.topic, EARLIEST).await?.into_iter().collect();
    let (begun, end) = (monotonic(), monotonic() + Duration::from_secs(load.seconds));
    let (mut bytes, mut records, mut latency) = (0, 0, histogram()?);
    while monotonic() < end {
        let asked = monotonic();
        // The partitions take turns, as in a client.
        positions.rotate_left(1);
        let request = fetch_request(&load.topic, &positions, load.fetch_bytes, 100);
        let answered = cluster.any().await?.call(12, &request).await?;
        latency.saturating_record(micros(asked));
        let mut news = false;
        for partition in answered.responses.into_iter().flat_map(|topic| topic.partitions) {
            check(partition.error_code, &load.topic)?;
            let found = partition.records.unwrap_or_default();
            let mut rest: &[u8] = &found;
            while let Some((header, batch, after)) = next_batch(rest) {
                rest = after;
                news = true;
                bytes += to_u64(batch.len());
                records += to_u64(header.count);
                if let Some(place) =
                    positions.iter_mut().find(|(index, _)| *index == partition.partition_index)
                {
                    place.1 = header.last_offset() + 1;
                }
            }
        }
        if !news {
            break;
        }
    }
    report("read", bytes, records, begun.elapsed(), &latency);
    Ok(())
}

async fn end_to_end(load: EndToEnd, bootstrap: &str) -> anyhow::Result<()> {
    let mut cluster = Cluster::connect(bootstrap).await?;
    let topic = cluster.topic(&load.topic).await?;
    if topic.partitions.len() != 1 {
        bail!("topic {} must have one partition for this", load.topic);
    }
    let mut at =
        offsets(&mut cluster, &load.topic, super::topic::LATEST).await?.remove(&0).unwrap_or(0);
    let start = monotonic();
    let total = load.rate * load.seconds;
    let gap = Duration::from_secs(1) / u32::try_from(load.rate.max(1))?;
    // The time at which a record was due, not that at which it left: a stall is seen (no coordinated omission).
    let due = move |number: u64| start + gap * u32::try_from(number).unwrap_or(u32::MAX);
    let (name, address, record_bytes) =
        (load.topic.clone(), cluster.any().await?.address().to_owned(), load.record_bytes);
    let producer = spawn(async move {
        let mut node = Node::connect(&address).await?;
        let version = node.version::<ProduceRequest>(9)?;
        let mut open = std::collections::VecDeque::new();
        for number in 0..total {
            sleep_until(due(number)).await;
            let mut value = number.to_be_bytes().to_vec();
            value.resize(record_bytes.max(8), 0);
            let batch =
                BatchBuilder::new().record(Clock::system().now_ms(), None, Some(&value)).build();
            open.push_back(node.send(version, &request(&name, 0, batch, -1)).await?);
            if open.len() >= 100 {
                let id = open.pop_front().unwrap_or_default();
                node.receive::<ProduceRequest>(version, id).await?;
            }
        }
        for id in open {
            node.receive::<ProduceRequest>(version, id).await?;
        }
        anyhow::Ok(())
    });
    let (mut seen, mut latency) = (0_u64, histogram()?);
    while seen < total {
        let request = fetch_request(&load.topic, &[(0, at)], 1 << 20, 500);
        let answered = cluster.any().await?.call(12, &request).await?;
        for partition in answered.responses.into_iter().flat_map(|topic| topic.partitions) {
            check(partition.error_code, &load.topic)?;
            let found = partition.records.unwrap_or_default();
            let mut rest: &[u8] = &found;
            while let Some((header, batch, after)) = next_batch(rest) {
                rest = after;
                at = header.last_offset() + 1;
                let records = crate::record::Records::open(header, batch, 1 << 20)?;
                for record in records.iter().flatten() {
                    let bytes: Option<[u8; 8]> =
                        record.value.and_then(|v| v.get(..8)?.try_into().ok());
                    let number = u64::from_be_bytes(bytes.unwrap_or_default());
                    latency.saturating_record(micros(due(number)));
                    seen += 1;
                }
            }
        }
    }
    producer.await.context("the producer panicked")??;
    report("end to end", seen * to_u64(load.record_bytes), seen, start.elapsed(), &latency);
    Ok(())
}
