//! Produce: append every partition's batches, then wait for all of them at once.
//!
//! Invariants: a connection's batches for a partition are appended in the order in which they came.

use std::sync::Arc;

use super::{Call, Context, Reply, deadline, is_internal};
use crate::error::ErrorCode;
use crate::model::TopicPartition;
use crate::protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use crate::protocol::messages::{BrokerId, ProduceRequest, ProduceResponse};
use crate::protocol::text;
use crate::record::{BatchError, BatchHeader, Codec, Effort};
use crate::replication::{
    AckWaiter, AppendRequest, Appending, PartitionError, PartitionHandle, Topic, follow_move,
};
use crate::security::{Operation, Resource};
use crate::system::Grant;
use crate::system::clock::timeout_at;

/// Older clients can't read zstd, so they may not write it either (KIP-110).
const ZSTD_VERSION: i16 = 7;
const BY_ID_VERSION: i16 = 13;

/// A request and its surroundings.
#[derive(Debug)]
pub(super) struct ProduceCall {
    pub call: Call,
    pub request: ProduceRequest,
    /// What its elements take, where that is much.
    pub _kept: Option<Grant>,
}

impl ProduceCall {
    /// Bytes of its batches.
    pub(super) fn bytes(&self) -> usize {
        let partitions = self.request.topic_data.iter().flat_map(|topic| &topic.partition_data);
        partitions.map(|data| data.records.as_ref().map_or(0, bytes::Bytes::len)).sum()
    }
}

/// A partition whose acknowledgement is not due yet.
struct Waiting {
    topic: usize,
    partition: usize,
    handle: PartitionHandle,
    done: Appending,
}

/// One request on its way to its response.
struct Produce<'a> {
    context: &'a Context,
    call: &'a Call,
    request: &'a ProduceRequest,
    waiter: Option<Arc<AckWaiter>>,
    waiting: Vec<Waiting>,
    has_error: bool,
    response: ProduceResponse,
}

/// A batch that is to be appended.
struct Job<'a> {
    handle: PartitionHandle,
    batch: &'a [u8],
    index: i32,
    /// Where its answer goes: request, topic, partition.
    place: (usize, usize, usize),
}

/// Batches of fewer bytes take no time to check that is worth asking for.
const SMALL_BATCH_BYTES: usize = 2048;

/// What it will take to check the batches of requests, as far as it is not the same for all.
pub(super) fn effort(context: &Context, calls: &[ProduceCall]) -> Effort {
    let mut whole = Effort::default();
    let now_ms = context.clock.now_ms();
    for entry in calls {
        for topic in &entry.request.topic_data {
            let is_large = |data: &PartitionProduceData| {
                data.records.as_ref().is_some_and(|batch| batch.len() >= SMALL_BATCH_BYTES)
            };
            let mut large = topic.partition_data.iter().filter(|data| is_large(data)).peekable();
            if large.peek().is_none() {
                continue;
            }
            let Some(found) = context.topic(&entry.call, topic) else { continue };
            for data in large {
                if let (Some(handle), Some(batch)) = (found.partition(data.index), &data.records) {
                    whole = whole.and(handle.effort(batch, now_ms));
                }
            }
        }
    }
    whole
}

impl Context {
    /// A topic of this broker as a request names it.
    fn topic(&self, call: &Call, topic: &TopicProduceData) -> Option<Arc<Topic>> {
        if call.version >= BY_ID_VERSION {
            self.replicas.topic_by_id(topic.topic_id)
        } else {
            self.replicas.topic(&topic.name)
        }
    }
}

/// Serves requests that came one after the other on one connection: their batches for a partition are appended
/// together, in their order.
pub(super) fn handle(context: &Context, calls: &[ProduceCall]) -> Vec<Reply<ProduceResponse>> {
    let mut produces: Vec<Produce<'_>> =
        calls.iter().map(|entry| Produce::new(context, entry)).collect();
    let mut jobs = Vec::new();
    for (number, produce) in produces.iter_mut().enumerate() {
        produce.check(number, &mut jobs);
    }
    if calls.len() > 1 {
        jobs.sort_by_key(|job| Arc::as_ptr(&job.handle).addr());
    }
    let now_ms = context.clock.now_ms();
    for jobs in jobs.chunk_by(|a, b| Arc::ptr_eq(&a.handle, &b.handle)) {
        append(&mut produces, jobs, now_ms);
    }
    produces.into_iter().map(Produce::reply).collect()
}

/// Appends batches of one partition and notes what became of each.
fn append(produces: &mut [Produce<'_>], jobs: &[Job<'_>], now_ms: i64) {
    let Some(first) = jobs.first() else { return };
    let requests: Vec<AppendRequest<'_>> = jobs
        .iter()
        .map(|job| AppendRequest {
            batch: job.batch,
            now_ms,
            waiter: produces.get(job.place.0).and_then(|produce| produce.waiter.as_ref()),
            internal_epoch: None,
        })
        .collect();
    let outcomes = first.handle.append_all(&requests);
    for (job, outcome) in jobs.iter().zip(outcomes) {
        if let Some(produce) = produces.get_mut(job.place.0) {
            produce.note(job, outcome);
        }
    }
}

/// Says what became of a partition once the waiting is over: an acknowledgement only if it is true.
fn settle(response: &mut ProduceResponse, entry: &Waiting) {
    if entry.handle.is_committed(&entry.done) {
        return;
    }
    let why = entry.handle.why_uncommitted(&entry.done);
    let code = why.as_ref().map_or(ErrorCode::RequestTimedOut, ErrorCode::from);
    if let Some(answer) = answer_at(response, entry.topic, entry.partition) {
        *answer = refused(answer.index, code);
    }
}

fn answer_at(
    response: &mut ProduceResponse,
    topic: usize,
    partition: usize,
) -> Option<&mut PartitionProduceResponse> {
    response.responses.get_mut(topic)?.partition_responses.get_mut(partition)
}

impl<'a> Produce<'a> {
    fn new(context: &'a Context, entry: &'a ProduceCall) -> Self {
        Self {
            context,
            call: &entry.call,
            request: &entry.request,
            waiter: (entry.request.acks == -1).then(AckWaiter::new),
            waiting: Vec::new(),
            has_error: false,
            response: ProduceResponse::default(),
        }
    }

    /// Checks what needs no look at the batches; what may be appended goes to `jobs`.
    fn check(&mut self, number: usize, jobs: &mut Vec<Job<'a>>) {
        let request = self.request;
        let mut topics = Vec::with_capacity(request.topic_data.len());
        for (index, topic) in request.topic_data.iter().enumerate() {
            topics.push(self.topic((number, index), topic, jobs));
        }
        self.response.responses = topics;
    }

    fn topic(
        &mut self,
        (number, index): (usize, usize),
        topic: &'a TopicProduceData,
        jobs: &mut Vec<Job<'a>>,
    ) -> TopicProduceResponse {
        let by_id = self.call.version >= BY_ID_VERSION;
        let found = self.context.topic(self.call, topic);
        let refusal = self.refusal(topic, found.as_deref());
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for (position, data) in topic.partition_data.iter().enumerate() {
            let checked = match (refusal, &found) {
                (None, Some(found)) => self.partition(found, data),
                (Some(code), _) => Err(code),
                (None, None) => Err(self.context.elsewhere(&topic.name, data.index)),
            };
            partitions.push(match checked {
                Ok((handle, batch)) => {
                    let place = (number, index, position);
                    jobs.push(Job { handle, batch, index: data.index, place });
                    refused(data.index, ErrorCode::UnknownServerError)
                }
                Err(code) => {
                    self.has_error = true;
                    refused(data.index, code)
                }
            });
        }
        let answer = TopicProduceResponse::default().with_partition_responses(partitions);
        if by_id {
            answer.with_topic_id(topic.topic_id)
        } else {
            answer.with_name(topic.name.clone())
        }
    }

    /// Why nothing may be written to the topic.
    fn refusal(&self, topic: &TopicProduceData, found: Option<&Topic>) -> Option<ErrorCode> {
        let name = found.map_or(topic.name.as_str(), |found| &found.name);
        if !self.context.allows(self.call, Operation::Write, Resource::Topic(name)) {
            Some(ErrorCode::TopicAuthorizationFailed)
        } else if !matches!(self.request.acks, -1..=1) {
            Some(ErrorCode::InvalidRequiredAcks)
        } else if self.request.transactional_id.is_some() {
            Some(ErrorCode::InvalidTxnState)
        } else if is_internal(name) {
            Some(ErrorCode::InvalidTopicException)
        } else if found.is_none() && self.call.version >= BY_ID_VERSION {
            let is_known = self.context.image().topic_by_id(topic.topic_id).is_some();
            Some(if is_known { ErrorCode::NotLeaderOrFollower } else { ErrorCode::UnknownTopicId })
        } else {
            None
        }
    }

    fn partition(
        &self,
        found: &Topic,
        data: &'a PartitionProduceData,
    ) -> Result<(PartitionHandle, &'a [u8]), ErrorCode> {
        let elsewhere = || self.context.elsewhere(&found.name, data.index);
        let handle = found.partition(data.index).ok_or_else(elsewhere)?;
        let batch = data.records.as_deref().unwrap_or_default();
        let is_zstd = |header: BatchHeader| header.codec_bits() == Codec::Zstd.bits();
        if self.call.version < ZSTD_VERSION && BatchHeader::parse(batch).is_some_and(is_zstd) {
            return Err(ErrorCode::UnsupportedCompressionType);
        }
        Ok((handle, batch))
    }

    /// Notes what became of a batch.
    fn note(&mut self, job: &Job<'_>, outcome: Result<Appending, PartitionError>) {
        let (_, topic, partition) = job.place;
        let answer = match outcome {
            Ok(done) => {
                if self.waiter.is_some() {
                    let handle = Arc::clone(&job.handle);
                    self.waiting.push(Waiting { topic, partition, handle, done });
                }
                PartitionProduceResponse::default()
                    .with_index(job.index)
                    .with_base_offset(done.base_offset)
                    .with_log_append_time_ms(done.append_time_ms)
                    .with_log_start_offset(done.log_start)
            }
            Err(error) => {
                self.has_error = true;
                self.explain(job.index, &job.handle, &error)
            }
        };
        if let Some(place) = answer_at(&mut self.response, topic, partition) {
            *place = answer;
        }
    }

    fn reply(self) -> Reply<ProduceResponse> {
        let Self { request, waiter, waiting, has_error, mut response, .. } = self;
        match waiter {
            // The connection is the only way to tell a client that asked for no answer.
            None if request.acks == 0 && has_error => Reply::Close,
            None if request.acks == 0 => Reply::Nothing,
            None => Reply::Now(response),
            Some(waiter)
                if waiter.left() > 0 || waiting.iter().any(|entry| entry.handle.has_moved()) =>
            {
                let deadline = deadline(request.timeout_ms);
                Reply::later(async move {
                    let _ = timeout_at(deadline, waiter.wait()).await;
                    for mut entry in waiting {
                        entry.handle = follow_move(entry.handle, &entry.done, deadline).await;
                        settle(&mut response, &entry);
                    }
                    response
                })
            }
            Some(_) => {
                waiting.iter().for_each(|entry| settle(&mut response, entry));
                Reply::Now(response)
            }
        }
    }

    fn explain(
        &self,
        index: i32,
        handle: &PartitionHandle,
        error: &PartitionError,
    ) -> PartitionProduceResponse {
        tracing::debug!(node = self.context.node_id, partition = %handle.name, %error, "batch refused");
        let mut answer = refused(index, error.into());
        let looked_inside = match error {
            PartitionError::Sequence(_) => true,
            PartitionError::Batch(error) => !matches!(
                error,
                BatchError::Invalid(_) | BatchError::Corrupt | BatchError::TooLarge { .. }
            ),
            _ => false,
        };
        if looked_inside {
            answer.log_start_offset = handle.bounds(-1).map_or(-1, |(start, ..)| start);
        }
        // Older versions have no place for what follows.
        match error {
            PartitionError::Batch(error) if self.call.version >= 8 => {
                (answer.record_errors, answer.error_message) = record_errors(error, &handle.name);
            }
            PartitionError::Mounted if self.call.version >= 8 => {
                answer.error_message = Some(text(error.to_string()));
            }
            _ => {}
        }
        answer
    }
}

type RecordErrors = (Vec<BatchIndexAndErrorMessage>, Option<crate::protocol::StrBytes>);

/// Which records are at fault (KIP-467).
fn record_errors(error: &BatchError, partition: &TopicPartition) -> RecordErrors {
    let listed = |indexes: &[i32], count: usize, why: &str| {
        let entry = |index: &i32| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(*index)
                .with_batch_index_error_message(Some(text(why)))
        };
        let shown: Vec<String> = indexes
            .iter()
            .take(3)
            .map(|index| format!("RecordError(batchIndex={index}, message='{why}')"))
            .collect();
        let message = format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first \
             three errors at most: [{}]",
            count,
            shown.join(", ")
        );
        (indexes.iter().map(entry).collect(), Some(text(message)))
    };
    match error {
        BatchError::KeyMissing { indexes, count } => {
            listed(indexes, *count, &format!("{error} in topic partition {partition}"))
        }
        BatchError::TimestampOutOfRange { index, .. } => listed(&[*index], 1, &error.to_string()),
        BatchError::Records(_) => (Vec::new(), Some(text(error.to_string()))),
        _ => (Vec::new(), None),
    }
}

fn refused(index: i32, code: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_current_leader(
            LeaderIdAndEpoch::default().with_leader_id(BrokerId(-1)).with_leader_epoch(-1),
        )
}
