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
use crate::model::{LeaderEpoch, Offset};
use crate::network::{Answer, Output, Part};
use crate::protocol::messages::FetchRequest;
use crate::protocol::{
    DecodeError, FetchNode, FetchedPartition, FetchedRecords, FetchedTopic, RequestHead, decode,
    encode_fetch,
};
use crate::replication::{FetchWaiter, PartitionHandle, Topic};
use crate::security::{Operation, Resource};
use crate::system::clock::{Instant, millis, monotonic, timeout_at};
use crate::system::tasks::blocking;

/// Ranges from this size on are sent by the kernel; smaller ones are read into the response.
const SENDFILE_BYTES_MIN: usize = 32 << 10;
const BY_ID_VERSION: i16 = 13;

/// What a fetch allows.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes_max: usize,
    bytes_min: usize,
    is_read_committed: bool,
    is_follower: bool,
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
    leader_epoch: Option<LeaderEpoch>,
    handle: Option<PartitionHandle>,
}

/// One fetch on its way.
struct Fetching {
    context: Arc<Context>,
    call: Call,
    head: RequestHead,
    plan: Plan,
    limits: Limits,
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
        is_follower: request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0,
    };
    let fetching = Fetching {
        context: Arc::clone(context),
        call: call.clone(),
        head: head.clone(),
        plan,
        limits,
    };
    let found = fetching.look();
    let max_wait_ms = request.max_wait_ms;
    if max_wait_ms <= 0 || fetching.plan.followed.is_empty() || fetching.is_enough(&found) {
        return Ok(fetching.answer(found));
    }
    let deadline = monotonic() + millis(max_wait_ms.into());
    Ok(Answer::Later(Box::pin(fetching.wait(found, deadline))))
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
    fn look(&self) -> Vec<Found> {
        let mut left = self.limits.bytes_max;
        let mut has_data = false;
        let mut topic: Option<(&TopicKey, Option<Arc<Topic>>)> = None;
        let mut all = Vec::with_capacity(self.plan.followed.len());
        for (at, followed) in self.plan.followed.iter().enumerate() {
            if topic.as_ref().is_none_or(|(key, _)| **key != followed.topic) {
                topic = Some((&followed.topic, self.topic(&followed.topic)));
            }
            let found = topic.as_ref().and_then(|(_, found)| found.as_deref());
            let found = self.partition(at, followed, found, left, !has_data);
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
        at: usize,
        followed: &Followed,
        topic: Option<&Topic>,
        left: usize,
        first_whole: bool,
    ) -> Found {
        let mut found = Found {
            at,
            topic_name: topic.map(|topic| Arc::clone(&topic.name)).unwrap_or_default(),
            error: ErrorCode::None,
            high_watermark: -1,
            log_start: -1,
            slice: None,
            leader_epoch: None,
            handle: None,
        };
        let Some(topic) = topic else {
            found.error = match &followed.topic {
                TopicKey::Name(_) => ErrorCode::UnknownTopicOrPartition,
                TopicKey::Id(_) => ErrorCode::UnknownTopicId,
            };
            return found;
        };
        if !self.context.allows(&self.call, Operation::Read, Resource::Topic(&topic.name)) {
            found.error = ErrorCode::TopicAuthorizationFailed;
            return found;
        }
        let Some(handle) = topic.partition(followed.partition) else {
            found.error = ErrorCode::UnknownTopicOrPartition;
            return found;
        };
        if self.limits.is_follower {
            found.error = ErrorCode::NotLeaderOrFollower;
            return found;
        }
        match handle.read(
            followed.offset,
            followed.bytes_max.min(left),
            first_whole,
            followed.leader_epoch,
        ) {
            Ok(read) => {
                found.high_watermark = read.high_watermark;
                found.log_start = read.log_start;
                found.slice = read.slice;
                found.handle = Some(handle);
            }
            Err(error) => {
                found.error = ErrorCode::from(&error);
                if found.error == ErrorCode::FencedLeaderEpoch {
                    found.leader_epoch = Some(handle.leader_epoch());
                }
            }
        }
        found
    }

    /// Whether the client is to be answered now.
    fn is_enough(&self, found: &[Found]) -> bool {
        let bytes: usize =
            found.iter().filter_map(|f| f.slice.as_ref()).map(|slice| slice.bytes).sum();
        bytes >= self.limits.bytes_min || found.iter().any(|f| !f.error.is_none())
    }

    /// Waits for news until there is enough of it.
    async fn wait(self, mut found: Vec<Found>, deadline: Instant) -> Option<Output> {
        let waiter = FetchWaiter::new();
        loop {
            let handles = found.iter().filter_map(|f| f.handle.clone()).collect();
            let registered = Registered { handles, waiter: &waiter };
            let quiet = found
                .iter()
                .all(|f| f.handle.as_ref().is_none_or(|h| h.wait(f.high_watermark, &waiter)));
            let timed_out = quiet && timeout_at(deadline, waiter.wait()).await.is_err();
            drop(registered);
            found = self.look();
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
        if self.plan.is_incremental {
            found.retain(|f| {
                f.slice.is_some() || followed.get(f.at).is_some_and(|followed| is_news(f, followed))
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
        let nodes =
            if found.iter().any(|f| f.leader_epoch.is_some()) { self.nodes() } else { Vec::new() };
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
                leader: f.leader_epoch.map(|epoch| (self.context.node_id, epoch)),
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

    fn nodes(&self) -> Vec<FetchNode> {
        let (host, port) = self.context.endpoint(&self.call);
        let rack = self.context.rack.clone();
        vec![FetchNode { id: self.context.node_id, host: host.to_string(), port, rack }]
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
