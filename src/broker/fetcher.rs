//! Carries batches from a leader to this broker's followers: one connection and one fetch session a leader.
//!
//! Invariants: one fetcher a leader, and a partition follows one leader at a time; what was fetched is durable before
//! the next fetch says so; an error of one partition holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::controller::Controller;
use crate::error::ErrorCode;
use crate::model::{BrokerId, LeaderEpoch, TopicId, TopicPartition};
use crate::network::Dialer;
use crate::network::client::FramedClient;
use crate::protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use crate::protocol::messages::fetch_response::PartitionData;
use crate::protocol::messages::{BrokerId as WireBrokerId, FetchRequest, FetchResponse};
use crate::protocol::{decode_response, encode_request};
use crate::replication::{
    AckWaiter, Diverging, FetchPosition, FetchedBatches, PartitionHandle, Replicas,
};
use crate::system::Clock;
use crate::system::clock::{Instant, millis, monotonic, timeout_at, uptime_ms};
use crate::system::tasks::{blocking, spawn};

const VERSION: i16 = 17;
/// Pause after a connection failed.
const RECONNECT: Duration = Duration::from_millis(50);
/// Pause before a partition that was answered with an error is asked for again.
const RETRY: Duration = Duration::from_millis(30);
/// Added to the time that a leader may wait, before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(2);

type Key = (TopicId, i32);

/// The partitions that follow one leader.
#[derive(Debug, Default)]
struct Following {
    partitions: Mutex<BTreeMap<Key, PartitionHandle>>,
    changed: Notify,
    /// When the leader answered last, or there began to be something to ask it (uptime).
    answered_ms: AtomicI64,
}

/// All fetchers of this broker.
#[derive(Debug)]
pub(super) struct Fetchers {
    replicas: Arc<Replicas>,
    clock: Clock,
    dialer: Dialer,
    listener: String,
    by_leader: Mutex<BTreeMap<BrokerId, Arc<Following>>>,
    /// Not owned: the controller hands the metadata to whoever owns the fetchers.
    controller: OnceLock<Weak<Controller>>,
}

/// What the leader knows of a partition from requests before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    position: FetchPosition,
}

/// What a request allows its answer.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    wait_ms: i32,
    partition_bytes: i32,
    bytes: i32,
}

/// One connection to a leader and its fetch session.
struct Link {
    client: FramedClient,
    correlation_id: i32,
    session_id: i32,
    epoch: i32,
    told: BTreeMap<Key, Told>,
}

impl Fetchers {
    pub(super) fn new(
        replicas: Arc<Replicas>,
        clock: Clock,
        dialer: Dialer,
        listener: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            replicas,
            clock,
            dialer,
            listener,
            by_leader: Mutex::default(),
            controller: OnceLock::new(),
        })
    }

    /// From now on leaders can be found.
    pub(super) fn begin(&self, controller: &Arc<Controller>) {
        let _ = self.controller.set(Arc::downgrade(controller));
        for following in self.by_leader.lock().values() {
            following.changed.notify_one();
        }
    }

    /// Says whom a partition follows now; -1: nobody.
    pub(super) fn follow(
        self: &Arc<Self>,
        topic: TopicId,
        name: &TopicPartition,
        leader: BrokerId,
    ) {
        let key = (topic, name.partition);
        let mut by_leader = self.by_leader.lock();
        for (id, following) in by_leader.iter() {
            if *id != leader && following.partitions.lock().remove(&key).is_some() {
                following.changed.notify_one();
            }
        }
        if leader < 0 {
            return;
        }
        let Some(handle) = self.replicas.partition(name) else { return };
        let following = by_leader.entry(leader).or_insert_with(|| {
            let following = Arc::new(Following::default());
            spawn(run(Arc::clone(self), leader, Arc::clone(&following)));
            following
        });
        let before = following.partitions.lock().insert(key, Arc::clone(&handle));
        if before.is_none_or(|before| !Arc::ptr_eq(&before, &handle)) {
            following.answered_ms.store(uptime_ms(), Ordering::Release);
            following.changed.notify_one();
        }
    }

    /// Leaders that have not answered for so long, though there is something to ask them.
    pub(super) fn unreachable(&self, silent_ms: i64) -> Vec<BrokerId> {
        let by_leader = self.by_leader.lock();
        let is_silent = |(_, following): &(&BrokerId, &Arc<Following>)| {
            let silence_ms = uptime_ms() - following.answered_ms.load(Ordering::Acquire);
            silence_ms > silent_ms && !following.partitions.lock().is_empty()
        };
        by_leader.iter().filter(is_silent).map(|(id, _)| *id).collect()
    }

    fn controller(&self) -> Option<Arc<Controller>> {
        self.controller.get()?.upgrade()
    }

    fn address(&self, leader: BrokerId) -> Option<String> {
        let image = self.controller()?.image();
        let broker = image.brokers.get(&leader)?;
        let endpoint = broker.endpoint(&self.listener).or_else(|| broker.endpoints.first())?;
        Some(format!("{}:{}", endpoint.host, endpoint.port))
    }

    /// The partitions whose fetches are limited: listed as such, and not in sync (KIP-73).
    fn throttled(&self, partitions: &BTreeMap<Key, PartitionHandle>) -> BTreeSet<Key> {
        let Some(controller) = self.controller() else { return BTreeSet::new() };
        if !self.replicas.throttles.follower.is_limited() {
            return BTreeSet::new();
        }
        let (image, me) = (controller.image(), controller.node_id);
        let is_in_sync = |(topic, partition): &Key| {
            let index = usize::try_from(*partition).ok();
            let topic = image.topic_by_id(*topic);
            let found = topic.zip(index).and_then(|(topic, index)| topic.partitions.get(index));
            found.is_some_and(|found| found.isr.contains(&me))
        };
        let listed = partitions.iter().filter(|(_, handle)| handle.is_throttled());
        listed.map(|(key, _)| *key).filter(|key| !is_in_sync(key)).collect()
    }

    fn me(&self) -> (BrokerId, i64) {
        let Some(controller) = self.controller() else { return (-1, -1) };
        let id = controller.node_id;
        (id, controller.image().brokers.get(&id).map_or(-1, |broker| broker.epoch))
    }
}

/// Fetches from one leader for as long as the process lives.
async fn run(fetchers: Arc<Fetchers>, leader: BrokerId, following: Arc<Following>) {
    loop {
        if following.partitions.lock().is_empty() {
            following.changed.notified().await;
            continue;
        }
        let Some(address) = fetchers.address(leader) else {
            let _ = timeout_at(monotonic() + RECONNECT, following.changed.notified()).await;
            continue;
        };
        if let Err(error) = follow(&fetchers, leader, &following, &address).await {
            tracing::debug!(leader, %address, %error, "fetching interrupted");
            let _ = timeout_at(monotonic() + RECONNECT, following.changed.notified()).await;
        }
    }
}

/// Fetches over one connection, until it breaks, or what is followed changed.
async fn follow(
    fetchers: &Arc<Fetchers>,
    leader: BrokerId,
    following: &Following,
    address: &str,
) -> io::Result<()> {
    let dialing = FramedClient::dial(&*fetchers.dialer, address);
    let client = timeout_at(monotonic() + PATIENCE, dialing)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))??;
    let mut link =
        Link { client, correlation_id: 0, session_id: 0, epoch: 0, told: BTreeMap::new() };
    let mut resting: BTreeMap<Key, Instant> = BTreeMap::new();
    loop {
        let now = monotonic();
        resting.retain(|_, until| *until > now);
        let mut partitions = following.partitions.lock().clone();
        let throttled = fetchers.throttled(&partitions);
        let throttle = &fetchers.replicas.throttles.follower;
        let has_to_wait = throttle.wait_ms(uptime_ms()) > 0;
        partitions.retain(|key, _| {
            let is_held_back = has_to_wait && throttled.contains(key);
            !is_held_back && !resting.contains_key(key)
        });
        let positions = positions(&partitions, leader);
        if positions.is_empty() {
            let until = now + RETRY;
            let _ = timeout_at(until, following.changed.notified()).await;
            if following.partitions.lock().is_empty() {
                return Ok(());
            }
            continue;
        }
        let controller = fetchers.controller();
        let Some(config) = controller.map(|controller| controller.config()) else { return Ok(()) };
        let bounds = Bounds {
            wait_ms: config.int("replica.fetch.wait.max.ms"),
            partition_bytes: config.int("replica.fetch.max.bytes"),
            bytes: config.int("replica.fetch.response.max.bytes"),
        };
        let wait_ms = i64::from(bounds.wait_ms);
        let request = link.request(fetchers, &positions, bounds);
        let deadline = now + millis(wait_ms) + PATIENCE;
        let response = tokio::select! {
            biased;
            response = link.exchange(&request, deadline) => response?,
            () = following.changed.notified() => {
                // The session goes with the connection; what is new begins at once.
                return Ok(());
            }
        };
        if response.error_code != 0 {
            return Err(io::Error::other(format!(
                "fetch refused with error {}",
                response.error_code
            )));
        }
        following.answered_ms.store(uptime_ms(), Ordering::Release);
        // What an answer says holds for the epoch that was asked in, whatever this broker has learned since.
        let epochs: BTreeMap<Key, LeaderEpoch> =
            positions.iter().map(|(key, told)| (*key, told.position.leader_epoch)).collect();
        link.note(&response, positions);
        throttle.note(uptime_ms(), bytes_of(&response, &throttled));
        take(fetchers, &partitions, &epochs, response, &mut resting).await;
    }
}

/// How much of an answer is about some partitions.
fn bytes_of(response: &FetchResponse, wanted: &BTreeSet<Key>) -> usize {
    if wanted.is_empty() {
        return 0;
    }
    let topics = response.responses.iter();
    let all = topics.flat_map(|topic| topic.partitions.iter().map(move |p| (topic.topic_id, p)));
    let counted = all.filter(|(topic, p)| wanted.contains(&(*topic, p.partition_index)));
    counted.filter_map(|(_, p)| p.records.as_ref()).map(bytes::Bytes::len).sum()
}

/// Where each partition goes on.
fn positions(partitions: &BTreeMap<Key, PartitionHandle>, leader: BrokerId) -> BTreeMap<Key, Told> {
    let position = |(key, handle): (&Key, &PartitionHandle)| {
        Some((*key, Told { position: handle.fetch_position(leader)? }))
    };
    partitions.iter().filter_map(position).collect()
}

/// Takes an answer in: batches, high watermarks, cuts; returns when all of it is durable.
async fn take(
    fetchers: &Fetchers,
    partitions: &BTreeMap<Key, PartitionHandle>,
    epochs: &BTreeMap<Key, LeaderEpoch>,
    response: FetchResponse,
    resting: &mut BTreeMap<Key, Instant>,
) {
    let now_ms = fetchers.clock.now_ms();
    let flushed = AckWaiter::new();
    let mut appended = false;
    for topic in response.responses {
        for data in topic.partitions {
            let key = (topic.topic_id, data.partition_index);
            let (Some(handle), Some(epoch)) = (partitions.get(&key), epochs.get(&key)) else {
                continue;
            };
            match take_one(handle, data, *epoch, now_ms).await {
                Ok(true) => {
                    handle.wait_flushed(&flushed);
                    appended = true;
                }
                Ok(false) => {}
                Err(()) => {
                    resting.insert(key, monotonic() + RETRY);
                }
            }
        }
    }
    if appended {
        flushed.wait().await;
    }
}

/// Takes one partition's part of an answer; whether something was appended, or an error if it must rest.
async fn take_one(
    handle: &PartitionHandle,
    data: PartitionData,
    leader_epoch: LeaderEpoch,
    now_ms: i64,
) -> Result<bool, ()> {
    let diverging = data.diverging_epoch;
    match ErrorCode::of(data.error_code) {
        Some(ErrorCode::None) if diverging.end_offset >= 0 => {
            let handle = Arc::clone(handle);
            let at = Diverging { epoch: diverging.epoch, end: diverging.end_offset };
            let cut = blocking(move || handle.cut_diverging(leader_epoch, at)).await;
            cut.map_or(Err(()), |cut| cut.map(|()| false).map_err(drop))
        }
        Some(ErrorCode::None) => {
            let records = data.records.unwrap_or_default();
            let fetched = FetchedBatches {
                leader_epoch,
                bytes: &records,
                high_watermark: data.high_watermark,
                log_start: data.log_start_offset,
                now_ms,
            };
            match handle.append_fetched(&fetched) {
                Ok(()) => Ok(!records.is_empty()),
                Err(error) => {
                    tracing::warn!(partition = %handle.name, %error, "fetched batches not appended");
                    Err(())
                }
            }
        }
        Some(ErrorCode::OffsetOutOfRange) if data.log_start_offset >= 0 => {
            let (handle, start) = (Arc::clone(handle), data.log_start_offset);
            let restarted = blocking(move || handle.restart_at(leader_epoch, start)).await;
            restarted.map_or(Err(()), |done| done.map(|()| false).map_err(drop))
        }
        Some(ErrorCode::OffsetMovedToTieredStorage) if data.log_start_offset >= 0 => {
            handle.restart_tiered(leader_epoch, data.log_start_offset);
            Err(())
        }
        Some(_) | None => Err(()),
    }
}

impl Link {
    /// The next request of the session: all of it first, then what changed.
    fn request(
        &mut self,
        fetchers: &Fetchers,
        positions: &BTreeMap<Key, Told>,
        bounds: Bounds,
    ) -> FetchRequest {
        let (id, broker_epoch) = fetchers.me();
        let is_new = |(key, told): &(&Key, &Told)| self.told.get(key) != Some(told);
        let mut topics: BTreeMap<TopicId, Vec<FetchPartition>> = BTreeMap::new();
        for ((topic, partition), told) in positions.iter().filter(is_new) {
            let at = told.position;
            let wanted = FetchPartition::default()
                .with_partition(*partition)
                .with_current_leader_epoch(at.leader_epoch)
                .with_fetch_offset(at.offset)
                .with_last_fetched_epoch(at.last_epoch)
                .with_log_start_offset(at.log_start)
                .with_partition_max_bytes(bounds.partition_bytes);
            topics.entry(*topic).or_default().push(wanted);
        }
        let mut forgotten: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in self.told.keys().filter(|key| !positions.contains_key(*key)) {
            forgotten.entry(*topic).or_default().push(*partition);
        }
        let topic =
            |(id, partitions)| FetchTopic::default().with_topic_id(id).with_partitions(partitions);
        let forget = |(id, partitions)| {
            ForgottenTopic::default().with_topic_id(id).with_partitions(partitions)
        };
        let replica = ReplicaState::default()
            .with_replica_id(WireBrokerId(id))
            .with_replica_epoch(broker_epoch);
        FetchRequest::default()
            .with_replica_state(replica)
            .with_max_wait_ms(bounds.wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(bounds.bytes)
            .with_session_id(self.session_id)
            .with_session_epoch(self.epoch)
            .with_topics(topics.into_iter().map(topic).collect())
            .with_forgotten_topics_data(forgotten.into_iter().map(forget).collect())
    }

    async fn exchange(
        &mut self,
        request: &FetchRequest,
        deadline: Instant,
    ) -> io::Result<FetchResponse> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame =
            encode_request(VERSION, self.correlation_id, request).map_err(io::Error::other)?;
        let exchange = async {
            self.client.send(&frame).await?;
            self.client.receive().await
        };
        let answer = timeout_at(deadline, exchange)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
        decode_response::<FetchRequest>(VERSION, self.correlation_id, answer)
            .map_err(io::Error::other)
    }

    /// Notes what the leader knows now.
    fn note(&mut self, response: &FetchResponse, positions: BTreeMap<Key, Told>) {
        self.session_id = response.session_id;
        if response.session_id == 0 {
            self.epoch = 0;
            self.told.clear();
        } else {
            self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
            self.told = positions;
        }
    }
}
