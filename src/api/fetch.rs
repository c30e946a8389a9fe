//! Fetch: find what there is, and wait if it is too little.
//!
//! Invariants: only what is below the high watermark is answered; the first partition with data gives at least one
//! whole batch (KIP-74), and nothing else passes the limits; a fetch that waits holds no thread and is woken by appends.
//! Left to others: the answer (`fetch_answer.rs`), what is in object storage (`fetch_remote.rs`), sessions (`fetch_sessions.rs`).

use std::sync::Arc;

use bytes::Bytes;

use super::fetch_answer::assemble;
use super::fetch_sessions::{Ask, Followed, Plan, TopicKey, each_once};
use super::{Call, Context, deadline, flushed};
use crate::error::ErrorCode;
use crate::log::LogSlice;
use crate::model::number::to_usize;
use crate::model::{BrokerId, LeaderEpoch, Offset};
use crate::network::{Answer, Output};
use crate::protocol::messages::FetchRequest;
use crate::protocol::{DecodeError, RequestHead, decode, encode_fetch};
use crate::replication::{
    AckWaiter, Diverging, FetchWaiter, FollowerFetch, PartitionError, PartitionHandle, ReadRules,
    RemoteRead, Topic,
};
use crate::security::{Operation, Resource};
use crate::system::clock::{Instant, millis, monotonic, timeout_at, uptime_ms};
use crate::system::tasks::blocking;

const BY_ID_VERSION: i16 = 13;
/// What a partition takes for which a fetch waits.
const WAITING_BYTES: usize = size_of::<Followed>() + size_of::<Found>();
/// Consumers of this version may read from followers (KIP-392).
const FOLLOWERS_VERSION: i16 = 11;

/// What a fetch allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub bytes_max: usize,
    pub bytes_min: usize,
    pub is_read_committed: bool,
    /// Id and broker epoch of a follower; `None`: a consumer.
    pub follower: Option<(BrokerId, i64)>,
}

/// A partition's state as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub at: usize,
    pub topic_name: Arc<str>,
    pub error: ErrorCode,
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub slice: Option<LogSlice>,
    /// Nobody has looked yet, since it takes the disk.
    pub is_cold: bool,
    pub log_end: Offset,
    /// Where the records are, if they are in object storage only; and then the records.
    pub remote: Option<RemoteRead>,
    pub bytes: Option<Bytes>,
    pub diverging: Option<Diverging>,
    /// Who the consumer is to read from instead; -1: nobody.
    pub preferred: BrokerId,
    /// Who leads, and in which epoch, where the asker has it wrong.
    pub leader: Option<(BrokerId, LeaderEpoch)>,
    pub handle: Option<PartitionHandle>,
    /// The follower is throttled: what there is counts, or has to wait (KIP-73).
    pub is_throttled: bool,
}

impl Found {
    /// Whether records of it may be answered that lie here.
    pub(super) fn is_readable(&self) -> bool {
        self.handle.is_some() && self.diverging.is_none() && self.preferred < 0
    }

    fn nothing(at: usize, topic: Option<&Topic>) -> Self {
        Self {
            at,
            topic_name: topic.map(|topic| Arc::clone(&topic.name)).unwrap_or_default(),
            error: ErrorCode::None,
            high_watermark: -1,
            log_start: -1,
            log_end: -1,
            slice: None,
            is_cold: false,
            remote: None,
            bytes: None,
            diverging: None,
            preferred: -1,
            leader: None,
            handle: None,
            is_throttled: false,
        }
    }
}

/// One fetch on its way.
pub(super) struct Fetching {
    pub context: Arc<Context>,
    pub call: Call,
    pub head: RequestHead,
    pub plan: Plan,
    pub limits: Limits,
    /// The rack that a consumer wants to read in, where that is done.
    pub rack: Option<String>,
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
        kept: &call.kept,
        session_id: request.session_id,
        epoch: request.session_epoch,
        by_id,
        wanted: each_once(wanted(&request, by_id)),
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
    let deadline = (request.max_wait_ms > 0 && !fetching.plan.followed.is_empty())
        .then(|| deadline(request.max_wait_ms));
    if found.iter().any(|f| f.is_cold) {
        return Ok(Answer::Later(Box::pin(async move {
            let (fetching, found) = fetching.look_at_cold(found).await?;
            settled(fetching.answer_in_time(found, deadline)).await
        })));
    }
    Ok(fetching.answer_in_time(found, deadline))
}

/// An answer once it is there.
async fn settled(answer: Answer) -> Option<Output> {
    match answer {
        Answer::Now(output) => Some(output),
        Answer::Later(output) => output.await,
        Answer::Nothing | Answer::Close => None,
    }
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
            if let Some(remote) = &found.remote {
                has_data = true;
                left = left.saturating_sub(remote.bytes_max);
            }
            if found.is_cold {
                has_data = true;
                left = left.saturating_sub(followed.bytes_max);
            }
            all.push(found);
        }
        all
    }

    /// Looks at what takes the disk, on a thread that may wait for it.
    async fn look_at_cold(self, mut found: Vec<Found>) -> Option<(Self, Vec<Found>)> {
        if found.iter().all(|f| !f.is_cold) {
            return Some((self, found));
        }
        let look = move || {
            self.settle(&mut found, &mut []);
            (self, found)
        };
        blocking(look).await
    }

    /// Answers, or waits until there is enough, if there is memory for one more that waits.
    fn answer_in_time(self, found: Vec<Found>, deadline: Option<Instant>) -> Answer {
        let deadline = deadline.filter(|_| !self.is_enough(&found));
        let kept = deadline.and_then(|_| self.call.kept.keep(found.len() * WAITING_BYTES));
        if let Some((deadline, kept)) = deadline.zip(kept) {
            return Answer::Later(Box::pin(kept.during(self.wait(found, deadline))));
        }
        let Some(waiter) = self.own_flushes(&found) else { return self.answer(found) };
        Answer::Later(Box::pin(async move {
            flushed(&waiter).await;
            let found = self.look(false);
            let (fetching, found) = self.look_at_cold(found).await?;
            settled(fetching.answer(found)).await
        }))
    }

    fn topic(&self, key: &TopicKey) -> Option<Arc<Topic>> {
        match key {
            TopicKey::Name(name) => self.context.replicas.topic(name),
            TopicKey::Id(id) => self.context.replicas.topic_by_id(*id),
        }
    }

    /// Looks at one partition again, for what is left of the limit; may wait for the disk.
    pub(super) fn look_again(&self, at: usize, room: (usize, bool)) -> Option<Found> {
        let followed = self.plan.followed.get(at)?;
        let topic = self.topic(&followed.topic);
        Some(self.look_with((at, false), followed, topic.as_deref(), (room, true)))
    }

    fn partition(
        &self,
        at: (usize, bool),
        followed: &Followed,
        topic: Option<&Topic>,
        room: (usize, bool),
    ) -> Found {
        self.look_with(at, followed, topic, (room, false))
    }

    /// Looks at a partition; `may_block`: the thread may wait for the disk.
    fn look_with(
        &self,
        (at, is_first): (usize, bool),
        followed: &Followed,
        topic: Option<&Topic>,
        ((left, first_whole), may_block): ((usize, bool), bool),
    ) -> Found {
        let mut found = Found::nothing(at, topic);
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
                may_block,
            };
            let offset = if diverging.is_some() { handle.local_start() } else { followed.offset };
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
                found.remote = read.remote.filter(|_| found.preferred < 0);
                // A follower that has to cut its log first gets no records.
                found.is_cold = read.is_cold
                    && found.diverging.is_none()
                    && found.preferred < 0
                    && !has_to_wait;
                found.handle = Some(handle);
            }
            Err(error) => {
                found.error = ErrorCode::from(&error);
                if self.limits.follower.is_some() {
                    found.log_start = handle.local_start();
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
        // What has no records is sent, but not in a hurry: a client that does not get past it asks again at once.
        let slices = found.iter().filter_map(|f| f.slice.as_ref()).filter(|slice| !slice.is_bare);
        let bytes: usize = slices.map(|slice| slice.bytes).sum();
        let is_final = |f: &Found| {
            !f.error.is_none() || f.diverging.is_some() || f.preferred >= 0 || f.remote.is_some()
        };
        bytes >= self.limits.bytes_min || found.iter().any(is_final)
    }

    /// Waits for news until there is enough of it.
    async fn wait(mut self, mut found: Vec<Found>, deadline: Instant) -> Option<Output> {
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
            (self, found) = self.look_at_cold(found).await?;
            if timed_out || self.is_enough(&found) || deadline <= monotonic() {
                break;
            }
        }
        settled(self.answer(found)).await
    }

    /// What a consumer that found nothing waits for, if it waits for nothing else: it finds what was acknowledged before it asked.
    /// `None` if there is no such thing.
    fn own_flushes(&self, found: &[Found]) -> Option<Arc<AckWaiter>> {
        let is_empty = |f: &Found| {
            f.error.is_none() && f.slice.is_none() && f.remote.is_none() && f.preferred < 0
        };
        if self.limits.follower.is_some() || !found.iter().all(is_empty) {
            return None;
        }
        let waiter = AckWaiter::new();
        let mut has_news = false;
        for (f, handle) in found.iter().filter_map(|f| Some((f, f.handle.as_ref()?))) {
            handle.wait_own_flush(&waiter);
            // A flush may have ended since it was looked.
            has_news |= handle.high_watermark() != f.high_watermark;
        }
        (has_news || waiter.left() > 0).then_some(waiter)
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
}
