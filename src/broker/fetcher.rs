//! Carries batches from a leader to this broker's followers: one connection and one fetch session for each leader and log directory.
//!
//! Invariants: a slow disk holds up what lies on it and nothing else; a partition follows one leader at a time; what was fetched is durable before
//! the next fetch says so; an error of one partition holds up no other, and the others do not hold up when it is asked for again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::silence::Silence;
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
    AckWaiter, Diverging, FetchPosition, FetchedBatches, PartitionError, PartitionHandle, Replicas,
};
use crate::system::Clock;
use crate::system::clock::{Instant, millis, monotonic, timeout_at, uptime_ms};
use crate::system::tasks::{blocking, keep_service};

const VERSION: i16 = 17;
/// Pause after a connection failed.
const RECONNECT: Duration = Duration::from_millis(50);
/// Pause before a partition that was answered with an error is asked for again. It doubles with each error: most often the leader
/// only learns a moment later than this broker that it leads.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(500);
/// How often it is looked whether there is something to ask for again.
const RETRY: Duration = Duration::from_millis(30);
/// Added to the time that a leader may wait, before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(2);

type Key = (TopicId, i32);

/// The partitions that follow one leader.
#[derive(Debug, Default)]
struct Following {
    partitions: Mutex<BTreeMap<Key, PartitionHandle>>,
    changed: Notify,
    silence: Silence,
}

/// All fetchers of this broker.
#[derive(Debug)]
pub(super) struct Fetchers {
    replicas: Arc<Replicas>,
    clock: Clock,
    dialer: Dialer,
    listener: String,
    by_leader: Mutex<BTreeMap<(BrokerId, Uuid), Arc<Following>>>,
    /// Not owned: the controller hands the metadata to whoever owns the fetchers.
    controller: OnceLock<Weak<Controller>>,
}

/// What the leader knows of a partition from requests before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    position: FetchPosition,
}

/// A partition that was answered with an error is left alone for a while.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    pause: Duration,
    /// The error was about this epoch; another one is asked for at once.
    leader_epoch: LeaderEpoch,
}

/// The partitions that rest, and those that had an error when they were asked for last.
#[derive(Debug, Default)]
struct Resting(BTreeMap<Key, Rest>);

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
        let handle = self.replicas.partition(name);
        let route = handle.as_ref().map(|handle| (leader, handle.directory.id));
        let mut by_leader = self.by_leader.lock();
        for (other, following) in by_leader.iter() {
            if Some(*other) != route && following.partitions.lock().remove(&key).is_some() {
                following.changed.notify_one();
            }
        }
        if leader < 0 {
            return;
        }
        let (Some(handle), Some(route)) = (handle, route) else { return };
        let following = by_leader.entry(route).or_insert_with(|| {
            let following = Arc::new(Following::default());
            keep_service("fetcher", run(Arc::clone(self), leader, Arc::clone(&following)));
            following
        });
        let before = following.partitions.lock().insert(key, Arc::clone(&handle));
        if before.is_none_or(|before| !Arc::ptr_eq(&before, &handle)) {
            following.silence.begin_anew(self.replicas.awake().now_ms());
            following.changed.notify_one();
        }
    }

    /// Leaders that have not answered for so long, though there is something to ask them.
    pub(super) fn unreachable(&self, silent_ms: i64) -> Vec<BrokerId> {
        // A leader that may wait for records is not silent meanwhile.
        let wait =
            |controller: Arc<Controller>| controller.config().long("replica.fetch.wait.max.ms");
        let silent_ms = silent_ms.max(silent_ms / 2 + self.controller().map_or(0, wait));
        let (by_leader, now_ms) = (self.by_leader.lock(), self.replicas.awake().now_ms());
        let is_silent = |(_, following): &(&(BrokerId, Uuid), &Arc<Following>)| {
            following.silence.ms(now_ms) > silent_ms && !following.partitions.lock().is_empty()
        };
        let silent: BTreeSet<BrokerId> =
            by_leader.iter().filter(is_silent).map(|((leader, _), _)| *leader).collect();
        silent.into_iter().collect()
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
            following.silence.ended();
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
    following.silence.asked(fetchers.replicas.awake().now_ms());
    let dialing = FramedClient::dial(&*fetchers.dialer, address);
    let client = timeout_at(monotonic() + PATIENCE, dialing)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))??;
    let mut link =
        Link { client, correlation_id: 0, session_id: 0, epoch: 0, told: BTreeMap::new() };
    let mut resting = Resting::default();
    loop {
        let now = monotonic();
        let mut partitions = following.partitions.lock().clone();
        let throttled = fetchers.throttled(&partitions);
        let throttle = &fetchers.replicas.throttles.follower;
        let throttled_ms = throttle.wait_ms(uptime_ms());
        let held_back = |key: &Key| throttled_ms > 0 && throttled.contains(key);
        let is_any_held_back = partitions.keys().any(held_back);
        partitions.retain(|key, _| !held_back(key));
        let mut positions = positions(&partitions, leader);
        let rested = resting.leave_alone(&mut positions, now);
        // What may not be asked for yet is asked for as soon as it may.
        let due = rested.into_iter().chain(is_any_held_back.then(|| now + millis(throttled_ms)));
        let due = due.min();
        if positions.is_empty() {
            let until = due.map_or(now + RETRY, |due| due.min(now + RETRY));
            let _ = timeout_at(until, following.changed.notified()).await;
            if following.partitions.lock().is_empty() {
                return Ok(());
            }
            continue;
        }
        let controller = fetchers.controller();
        let Some(config) = controller.map(|controller| controller.config()) else { return Ok(()) };
        let wait_max = config.int("replica.fetch.wait.max.ms");
        let bounds = Bounds {
            wait_ms: due.map_or(wait_max, |due| wait_max.min(millis_until(due, now))),
            partition_bytes: config.int("replica.fetch.max.bytes"),
            bytes: config.int("replica.fetch.response.max.bytes"),
        };
        let wait_ms = i64::from(bounds.wait_ms);
        let request = link.request(fetchers, &positions, bounds);
        following.silence.asked(fetchers.replicas.awake().now_ms());
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
        following.silence.ended();
        // What an answer says holds for the epoch that was asked in, whatever this broker has learned since.
        let epochs: BTreeMap<Key, LeaderEpoch> =
            positions.iter().map(|(key, told)| (*key, told.position.leader_epoch)).collect();
        link.note(&response, positions);
        throttle.note(uptime_ms(), bytes_of(&response, &throttled));
        take(fetchers, &partitions, &epochs, response, &mut resting).await;
    }
}

/// Whole milliseconds, at least one, until then.
fn millis_until(then: Instant, now: Instant) -> i32 {
    let left = then.saturating_duration_since(now).as_micros().div_ceil(1_000);
    i32::try_from(left).unwrap_or(i32::MAX).max(1)
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
    resting: &mut Resting,
) {
    let now_ms = fetchers.clock.now_ms();
    let flushed = AckWaiter::new();
    let (mut appended, mut failed) = (false, Vec::new());
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
                Err(()) => failed.push((key, *epoch)),
            }
        }
    }
    resting.note(epochs, failed, monotonic());
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
                    // The topic was deleted, the role has changed, or the log begins anew since it was asked for: nothing to look after.
                    let is_over = matches!(
                        error,
                        PartitionError::Deleted
                            | PartitionError::Moving
                            | PartitionError::Restoring
                            | PartitionError::NotLeader { .. }
                    );
                    if is_over {
                        tracing::debug!(partition = %handle.name, %error, "fetched batches not appended");
                    } else {
                        tracing::warn!(partition = %handle.name, %error, "fetched batches not appended");
                    }
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

impl Resting {
    /// Takes out what has to rest now; returns when the first of it may be asked for again.
    fn leave_alone(
        &mut self,
        positions: &mut BTreeMap<Key, Told>,
        now: Instant,
    ) -> Option<Instant> {
        self.0.retain(|key, rest| {
            positions.get(key).is_some_and(|told| told.position.leader_epoch == rest.leader_epoch)
        });
        let resting = || self.0.iter().filter(|(_, rest)| rest.until > now);
        for (key, _) in resting() {
            positions.remove(key);
        }
        resting().map(|(_, rest)| rest.until).min()
    }

    /// Notes what of that which was asked for was answered with an error.
    fn note(
        &mut self,
        asked: &BTreeMap<Key, LeaderEpoch>,
        failed: Vec<(Key, LeaderEpoch)>,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.0);
        for (key, leader_epoch) in failed {
            let pause = before.get(&key).map_or(REST_MIN, |rest| (rest.pause * 2).min(REST_MAX));
            self.0.insert(key, Rest { until: now + pause, pause, leader_epoch });
        }
        let rests_on = |(key, _): &(Key, Rest)| !asked.contains_key(key);
        self.0.extend(before.into_iter().filter(rests_on));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(leader_epoch: LeaderEpoch) -> Told {
        Told { position: FetchPosition { leader_epoch, offset: 0, last_epoch: -1, log_start: 0 } }
    }

    #[test]
    fn a_partition_with_errors_rests_longer_each_time_and_the_others_are_told_for_how_long() {
        let (bad, good) = ((TopicId::nil(), 0), (TopicId::nil(), 1));
        let all = BTreeMap::from([(bad, told(1)), (good, told(1))]);
        let mut resting = Resting::default();
        let mut now = monotonic();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let mut asked = all.clone();
            assert_eq!(resting.leave_alone(&mut asked, now), None, "its rest is over");
            assert!(asked.contains_key(&bad));
            let epochs = asked.keys().map(|key| (*key, 1)).collect();
            resting.note(&epochs, vec![(bad, 1)], now);
            let mut asked = all.clone();
            let until = resting.leave_alone(&mut asked, now).expect("it rests");
            assert_eq!(asked.keys().collect::<Vec<_>>(), [&good]);
            assert!((1..=500).contains(&millis_until(until, now)));
            pauses.push(until - now);
            // What others are answered meanwhile does not end it.
            resting.note(&BTreeMap::from([(good, 1)]), Vec::new(), now);
            now = until;
        }
        assert_eq!(pauses[..3], [1, 2, 4].map(Duration::from_millis));
        assert_eq!(pauses.last(), Some(&REST_MAX));
        resting.note(&BTreeMap::from([(bad, 1)]), Vec::new(), now);
        resting.note(&BTreeMap::from([(bad, 1)]), vec![(bad, 1)], now);
        assert_eq!(resting.leave_alone(&mut all.clone(), now), Some(now + REST_MIN));
    }

    #[test]
    fn a_partition_that_rests_is_asked_for_at_once_in_another_epoch() {
        let key = (TopicId::nil(), 0);
        let mut resting = Resting::default();
        let now = monotonic();
        resting.note(&BTreeMap::from([(key, 1)]), vec![(key, 1)], now);
        let mut asked = BTreeMap::from([(key, told(2))]);
        assert_eq!(resting.leave_alone(&mut asked, now), None);
        assert!(asked.contains_key(&key));
    }
}
