//! Fetch: find what there is, wait if it is too little, and send it from where it lies.
//!
//! Invariants: only what is below the high watermark is answered; the first partition with data gives at least one
//! whole batch (KIP-74); a fetch that waits holds no thread and is woken by appends.

use std::sync::Arc;

use bytes::Bytes;

use super::fetch_sessions::{Ask, Followed, Plan, TopicKey};
use super::{Call, Context};
use crate::error::ErrorCode;
use crate::log::LogSlice;
use crate::model::number::{to_i64, to_usize};
use crate::model::{BrokerId, LeaderEpoch, Offset};
use crate::network::{Answer, Output, Part};
use crate::protocol::messages::FetchRequest;
use crate::protocol::{
    DecodeError, FetchNode, FetchedPartition, FetchedRecords, FetchedTopic, RequestHead, decode,
    encode_fetch,
};
use crate::replication::{
    Diverging, FetchWaiter, FollowerFetch, PartitionError, PartitionHandle, ReadRules, Topic,
};
use crate::security::{Operation, Resource};
use crate::system::clock::{Instant, millis, monotonic, timeout_at, uptime_ms};
use crate::system::tasks::blocking;

/// Ranges from this size on are sent by the kernel; smaller ones are read into the response.
const SENDFILE_BYTES_MIN: usize = 32 << 10;
const BY_ID_VERSION: i16 = 13;
/// Consumers of this version may read from followers (KIP-392).
const FOLLOWERS_VERSION: i16 = 11;

/// What a fetch allows.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes_max: usize,
    bytes_min: usize,
    is_read_committed: bool,
    /// Id and broker epoch of a follower; `None`: a consumer.
    follower: Option<(BrokerId, i64)>,
}

/// A partition's state as it was found.
#[derive(Debug)]
struct Found {
    at: usize,
    topic_name: Arc<str>,
    error: ErrorCode,
    high_watermark: Offset,
    log_start: Offset,
    slice: Option<LogSlice>,
    log_end: Offset,
    diverging: Option<Diverging>,
    /// Who the consumer is to read from instead; -1: nobody.
    preferred: BrokerId,
    /// Who leads, and in which epoch, where the asker has it wrong.
    leader: Option<(BrokerId, LeaderEpoch)>,
    handle: Option<PartitionHandle>,
    /// The follower is throttled: what there is counts, or has to wait (KIP-73).
    is_throttled: bool,
}

/// One fetch on its way.
struct Fetching {
    context: Arc<Context>,
    call: Call,
    head: RequestHead,
    plan: Plan,
    limits: Limits,
    /// The rack that a consumer wants to read in, where that is done.
    rack: Option<String>,
}

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    head: &RequestHead,
    mut body: Bytes,
) -> Result<Answer, DecodeError> {
    let request: FetchRequest = decode(head, &mut body)?;
    let by_id = head.version >= BY_ID_VERSION;
    let ask = Ask {
        session_id: request.session_id,
        epoch: request.session_epoch,
        by_id,
        wanted: wanted(&request, by_id),
        forgotten: forgotten(&request, by_id),
    };
    let plan = match context.sessions.plan(ask, context.clock.now_ms()) {
        Ok(plan) => plan,
        Err(code) => {
            let chunks = encode_fetch(head, code.code(), 0, &[], &[]);
            return Ok(Answer::Now(assemble(chunks, Vec::new())));
        }
    };
    let bytes_max =
        to_usize(request.max_bytes).min(context.controller.config().size("fetch.max.bytes"));
    let limits = Limits {
        bytes_max,
        bytes_min: to_usize(request.min_bytes).min(bytes_max),
        is_read_committed: request.isolation_level == 1,
        follower: follower_of(&request),
    };
    let fetching = Fetching {
        context: Arc::clone(context),
        call: call.clone(),
        head: head.clone(),
        plan,
        limits,
        rack: rack_of(context, call, &request),
    };
    let found = fetching.look(true);
    let max_wait_ms = request.max_wait_ms;
    if max_wait_ms <= 0 || fetching.plan.followed.is_empty() || fetching.is_enough(&found) {
        return Ok(fetching.answer(found));
    }
    let deadline = monotonic() + millis(max_wait_ms.into());
    Ok(Answer::Later(Box::pin(fetching.wait(found, deadline))))
}

/// The rack that the consumer is to be served in, if it is not this broker's.
fn rack_of(context: &Context, call: &Call, request: &FetchRequest) -> Option<String> {
    let rack = request.rack_id.to_string();
    let is_wanted = call.version >= FOLLOWERS_VERSION
        && !rack.is_empty()
        && context.rack.as_ref() != Some(&rack)
        && !context.controller.config().text("replica.selector.class").is_empty();
    is_wanted.then_some(rack)
}

/// The follower that asks, if it is one.
fn follower_of(request: &FetchRequest) -> Option<(BrokerId, i64)> {
    let state = &request.replica_state;
    let id = if state.replica_id.0 >= 0 { state.replica_id.0 } else { request.replica_id.0 };
    (id >= 0).then_some((id, state.replica_epoch))
}

fn wanted(request: &FetchRequest, by_id: bool) -> Vec<Followed> {
    let mut all = Vec::new();
    for topic in &request.topics {
        let key = if by_id {
            TopicKey::Id(topic.topic_id)
        } else {
            TopicKey::Name(topic.topic.as_str().into())
        };
        all.extend(topic.partitions.iter().map(|partition| Followed {
            topic: key.clone(),
            partition: partition.partition,
            offset: partition.fetch_offset,
            bytes_max: to_usize(partition.partition_max_bytes),
            leader_epoch: partition.current_leader_epoch,
            last_epoch: partition.last_fetched_epoch,
            told_high_watermark: -1,
            told_log_start: -1,
            told_error: false,
        }));
    }
    all
}

fn forgotten(request: &FetchRequest, by_id: bool) -> Vec<(TopicKey, i32)> {
    let mut all = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = if by_id {
            TopicKey::Id(topic.topic_id)
        } else {
            TopicKey::Name(topic.topic.as_str().into())
        };
        all.extend(topic.partitions.iter().map(|partition| (key.clone(), *partition)));
    }
    all
}

/// Takes a fetch off its partitions' lists however its waiting ends, also when its client goes away.
struct Registered<'a> {
    handles: Vec<PartitionHandle>,
    waiter: &'a Arc<FetchWaiter>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.stop_waiting(self.waiter);
        }
    }
}

impl Fetching {
    /// Looks at every partition, in order, until the bytes are used up.
    fn look(&self, is_first: bool) -> Vec<Found> {
        let mut left = self.limits.bytes_max;
        let mut has_data = false;
        let mut topic: Option<(&TopicKey, Option<Arc<Topic>>)> = None;
        let mut all = Vec::with_capacity(self.plan.followed.len());
        for (at, followed) in self.plan.followed.iter().enumerate() {
            if topic.as_ref().is_none_or(|(key, _)| **key != followed.topic) {
                topic = Some((&followed.topic, self.topic(&followed.topic)));
            }
            let found = topic.as_ref().and_then(|(_, found)| found.as_deref());
            let found = self.partition((at, is_first), followed, found, (left, !has_data));
            if let Some(slice) = &found.slice {
                has_data = true;
                left = left.saturating_sub(slice.bytes);
            }
            all.push(found);
        }
        all
    }

    fn topic(&self, key: &TopicKey) -> Option<Arc<Topic>> {
        match key {
            TopicKey::Name(name) => self.context.replicas.topic(name),
            TopicKey::Id(id) => self.context.replicas.topic_by_id(*id),
        }
    }

    fn partition(
        &self,
        (at, is_first): (usize, bool),
        followed: &Followed,
        topic: Option<&Topic>,
        (left, first_whole): (usize, bool),
    ) -> Found {
        let mut found = Found {
            at,
            topic_name: topic.map(|topic| Arc::clone(&topic.name)).unwrap_or_default(),
            error: ErrorCode::None,
            high_watermark: -1,
            log_start: -1,
            log_end: -1,
            slice: None,
            diverging: None,
            preferred: -1,
            leader: None,
            handle: None,
            is_throttled: false,
        };
        let Some(topic) = topic else {
            self.find_elsewhere(followed, &mut found);
            return found;
        };
        if !self.context.allows(&self.call, Operation::Read, Resource::Topic(&topic.name)) {
            found.error = ErrorCode::TopicAuthorizationFailed;
            return found;
        }
        let Some(handle) = topic.partition(followed.partition) else {
            self.find_elsewhere(followed, &mut found);
            return found;
        };
        let bytes_max = followed.bytes_max.min(left);
        let read = self.acknowledge(&handle, followed, is_first).and_then(|diverging| {
            found.diverging = diverging;
            let bytes_max = if diverging.is_some() { 0 } else { bytes_max };
            let first_whole = first_whole && diverging.is_none();
            let rules = ReadRules {
                epoch: followed.leader_epoch,
                from_follower: self.limits.follower.is_none()
                    && self.call.version >= FOLLOWERS_VERSION,
                up_to_log_end: self.limits.follower.is_some(),
            };
            let offset = if diverging.is_some() { handle.log_start() } else { followed.offset };
            handle.read(offset, bytes_max, first_whole, rules)
        });
        match read {
            Ok(read) => {
                found.high_watermark = read.high_watermark;
                found.log_start = read.log_start;
                found.log_end = read.log_end;
                found.preferred = self.preferred(&handle, followed.offset);
                found.is_throttled = self.is_throttled(&handle);
                let has_to_wait = found.is_throttled && self.throttled_ms() > 0;
                found.slice = read.slice.filter(|_| found.preferred < 0 && !has_to_wait);
                found.handle = Some(handle);
            }
            Err(error) => {
                found.error = ErrorCode::from(&error);
                if self.limits.follower.is_some() {
                    found.log_start = handle.log_start();
                }
                found.leader = match error {
                    PartitionError::NotLeader { leader, epoch } => Some((leader, epoch)),
                    PartitionError::FencedEpoch { .. } => Some(handle.leader()),
                    _ => None,
                };
            }
        }
        found
    }

    /// Whether this broker limits what the follower is sent of a partition.
    fn is_throttled(&self, handle: &PartitionHandle) -> bool {
        self.context.replicas.throttles.leader.is_limited()
            && self.limits.follower.is_some_and(|(follower, _)| handle.throttles(follower))
    }

    /// How long throttled partitions have to wait.
    fn throttled_ms(&self) -> i64 {
        self.context.replicas.throttles.leader.wait_ms(uptime_ms())
    }

    /// Takes a follower's fetch as its acknowledgement, once.
    fn acknowledge(
        &self,
        handle: &PartitionHandle,
        followed: &Followed,
        is_first: bool,
    ) -> Result<Option<Diverging>, PartitionError> {
        let Some((replica, broker_epoch)) = self.limits.follower.filter(|_| is_first) else {
            return Ok(None);
        };
        handle.fetched_by(&FollowerFetch {
            follower: replica,
            broker_epoch,
            offset: followed.offset,
            last_epoch: followed.last_epoch,
            leader_epoch: followed.leader_epoch,
        })
    }

    /// A follower in sync in the consumer's rack (KIP-392); -1 if there is none, or none is wanted.
    fn preferred(&self, handle: &PartitionHandle, offset: Offset) -> BrokerId {
        let Some(rack) = self.rack.as_ref().filter(|_| self.limits.follower.is_none()) else {
            return -1;
        };
        let image = self.context.image();
        let is_there = |id: &BrokerId| {
            let broker = image.brokers.get(id);
            broker.is_some_and(|b| !b.is_fenced && b.rack.as_ref() == Some(rack))
        };
        handle.followers_with(offset).into_iter().find(is_there).unwrap_or(-1)
    }

    /// A partition that is not here: who leads it, if it is anywhere.
    fn find_elsewhere(&self, followed: &Followed, found: &mut Found) {
        let image = self.context.image();
        let topic = match &followed.topic {
            TopicKey::Name(name) => image.topic(name),
            TopicKey::Id(id) => image.topic_by_id(*id),
        };
        let index = usize::try_from(followed.partition).unwrap_or(usize::MAX);
        let partition = topic.and_then(|topic| topic.partitions.get(index));
        found.leader = partition.map(|partition| (partition.leader, partition.leader_epoch));
        found.error = match (&followed.topic, topic, partition) {
            (_, _, Some(_)) => ErrorCode::NotLeaderOrFollower,
            (TopicKey::Id(_), None, None) => ErrorCode::UnknownTopicId,
            (_, _, None) => ErrorCode::UnknownTopicOrPartition,
        };
    }

    /// Whether the client is to be answered now.
    fn is_enough(&self, found: &[Found]) -> bool {
        let bytes: usize =
            found.iter().filter_map(|f| f.slice.as_ref()).map(|slice| slice.bytes).sum();
        let is_final = |f: &Found| !f.error.is_none() || f.diverging.is_some() || f.preferred >= 0;
        bytes >= self.limits.bytes_min || found.iter().any(is_final)
    }

    /// Waits for news until there is enough of it.
    async fn wait(self, mut found: Vec<Found>, deadline: Instant) -> Option<Output> {
        let waiter = FetchWaiter::new();
        loop {
            let handles = found.iter().filter_map(|f| f.handle.clone()).collect();
            let registered = Registered { handles, waiter: &waiter };
            let quiet = found
                .iter()
                .all(|f| f.handle.as_ref().is_none_or(|handle| self.register(f, handle, &waiter)));
            let is_held_back = |f: &Found| f.is_throttled && f.slice.is_none();
            let until = if found.iter().any(is_held_back) {
                deadline.min(monotonic() + millis(self.throttled_ms().max(1)))
            } else {
                deadline
            };
            let timed_out = quiet && timeout_at(until, waiter.wait()).await.is_err();
            let timed_out = timed_out && until >= deadline;
            drop(registered);
            found = self.look(false);
            if timed_out || self.is_enough(&found) || deadline <= monotonic() {
                break;
            }
        }
        match self.answer(found) {
            Answer::Now(output) => Some(output),
            Answer::Later(output) => output.await,
            Answer::Nothing | Answer::Close => None,
        }
    }

    /// Registers for news of a partition; `false` if there is some already.
    fn register(&self, found: &Found, handle: &PartitionHandle, waiter: &Arc<FetchWaiter>) -> bool {
        if found.is_throttled {
            // What there is has to wait, whatever is appended meanwhile.
            return true;
        }
        if self.limits.follower.is_some() {
            handle.wait_for_growth(found.log_end, waiter)
        } else {
            handle.wait(found.high_watermark, waiter)
        }
    }

    /// Answers with what was found; what is not in memory is read elsewhere first.
    fn answer(self, mut found: Vec<Found>) -> Answer {
        let is_cold =
            |slice: &LogSlice| !slice.is_active && !slice.file.is_cached(slice.byte, slice.bytes);
        let any_cold = found.iter().any(|f| f.slice.as_ref().is_some_and(is_cold));
        if !any_cold {
            return Answer::Now(self.respond(&mut found));
        }
        Answer::Later(Box::pin(async move {
            blocking(move || {
                for slice in
                    found.iter().filter_map(|f| f.slice.as_ref()).filter(|slice| is_cold(slice))
                {
                    // Reading brings the range into the page cache, from where it is sent.
                    let _ = slice.read();
                }
                self.respond(&mut found)
            })
            .await
        }))
    }

    fn respond(&self, found: &mut Vec<Found>) -> Output {
        let followed = &self.plan.followed;
        self.note_told(found);
        let throttled = found.iter().filter(|f| f.is_throttled).filter_map(|f| f.slice.as_ref());
        let throttled_bytes: usize = throttled.map(|slice| slice.bytes).sum();
        if throttled_bytes > 0 {
            self.context.replicas.throttles.leader.note(uptime_ms(), throttled_bytes);
        }
        if self.plan.is_incremental {
            found.retain(|f| {
                f.slice.is_some()
                    || f.diverging.is_some()
                    || f.preferred >= 0
                    || followed.get(f.at).is_some_and(|followed| is_news(f, followed))
            });
        }
        let mut buffers: Vec<Option<Vec<u8>>> = Vec::with_capacity(found.len());
        let mut outside = Vec::new();
        for f in found.iter_mut() {
            let small = f
                .slice
                .as_ref()
                .filter(|s| s.bytes < SENDFILE_BYTES_MIN || s.file.os_file().is_none());
            match small.map(LogSlice::read) {
                Some(Ok(bytes)) => buffers.push(Some(bytes)),
                Some(Err(error)) => {
                    tracing::error!(topic = %f.topic_name, %error, "read failed");
                    f.error = ErrorCode::KafkaStorageError;
                    f.slice = None;
                    buffers.push(None);
                }
                None => {
                    if let Some(slice) = &f.slice {
                        let file = Arc::clone(&slice.file);
                        outside.push(Part::File { file, offset: slice.byte, bytes: slice.bytes });
                    }
                    buffers.push(None);
                }
            }
        }
        let topics = self.topics(found, &buffers);
        let nodes = self.nodes(found);
        let chunks = encode_fetch(&self.head, 0, self.plan.session_id, &topics, &nodes);
        assemble(chunks, outside)
    }

    fn topics<'a>(
        &'a self,
        found: &'a [Found],
        buffers: &'a [Option<Vec<u8>>],
    ) -> Vec<FetchedTopic<'a>> {
        let mut topics: Vec<FetchedTopic<'a>> = Vec::new();
        let mut last: Option<&TopicKey> = None;
        for (f, buffer) in found.iter().zip(buffers) {
            let Some(followed) = self.plan.followed.get(f.at) else { continue };
            if last != Some(&followed.topic) {
                let (name, id) = match &followed.topic {
                    TopicKey::Name(name) => (&**name, uuid::Uuid::nil()),
                    TopicKey::Id(id) => ("", *id),
                };
                topics.push(FetchedTopic { name, id, partitions: Vec::new() });
                last = Some(&followed.topic);
            }
            let records = match (buffer, &f.slice) {
                (Some(bytes), _) => FetchedRecords::Inline(bytes),
                (None, Some(slice)) => FetchedRecords::External(slice.bytes),
                (None, None) => FetchedRecords::Inline(&[]),
            };
            let is_unknown =
                matches!(f.error, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId);
            let partition = FetchedPartition {
                index: followed.partition,
                error: f.error.code(),
                high_watermark: f.high_watermark,
                last_stable_offset: f.high_watermark,
                log_start: f.log_start,
                has_aborted: is_unknown || (self.limits.is_read_committed && f.error.is_none()),
                leader: f.leader,
                preferred: f.preferred,
                diverging: f.diverging.map(|at| (at.epoch, at.end)),
                records,
            };
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(partition);
            }
        }
        topics
    }

    fn note_told(&self, found: &[Found]) {
        if self.plan.session_id == 0 {
            return;
        }
        let told = |f: &Found| {
            let mut followed = self.plan.followed.get(f.at)?.clone();
            followed.told_high_watermark = f.high_watermark;
            followed.told_log_start = f.log_start;
            followed.told_error = !f.error.is_none();
            Some((followed, f.slice.is_some()))
        };
        self.context.sessions.told(self.plan.session_id, found.iter().filter_map(told).collect());
    }

    /// Where the leaders are that the asker has to turn to (KIP-951).
    fn nodes(&self, found: &[Found]) -> Vec<FetchNode> {
        let mut ids: Vec<BrokerId> = found.iter().filter_map(|f| Some(f.leader?.0)).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        ids.sort_unstable();
        ids.dedup();
        let image = self.context.image();
        ids.into_iter().filter_map(|id| self.context.broker(&self.call, &image, id)).collect()
    }
}

fn is_news(found: &Found, followed: &Followed) -> bool {
    !found.error.is_none()
        || followed.told_error
        || found.high_watermark != followed.told_high_watermark
        || found.log_start != followed.told_log_start
}

/// Puts the records that were left out between the chunks.
fn assemble(chunks: Vec<bytes::BytesMut>, outside: Vec<Part>) -> Output {
    let mut chunks = chunks.into_iter().map(bytes::BytesMut::freeze);
    let mut output = Output::bytes(chunks.next().unwrap_or_default());
    for (part, chunk) in outside.into_iter().zip(chunks) {
        output.rest.push(part);
        output.rest.push(Part::Bytes(chunk));
    }
    debug_assert_eq!(
        to_i64(output.len()),
        i64::from(crate::model::number::be32(&output.head, 0)) + 4
    );
    output
}
