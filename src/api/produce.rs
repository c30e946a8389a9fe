//! Produce: append every partition's batch, then wait for all of them at once.

use std::sync::Arc;

use super::{Call, Context, Reply, is_internal};
use crate::error::ErrorCode;
use crate::model::{Offset, TopicPartition};
use crate::protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use crate::protocol::messages::{BrokerId, ProduceRequest, ProduceResponse};
use crate::protocol::text;
use crate::record::{BatchError, BatchHeader, Codec};
use crate::replication::{AckWaiter, AppendRequest, PartitionError, PartitionHandle, Topic};
use crate::security::{Operation, Resource};
use crate::system::clock::{millis, monotonic, timeout_at};

/// Older clients can't read zstd, so they may not write it either (KIP-110).
const ZSTD_VERSION: i16 = 7;
const BY_ID_VERSION: i16 = 13;

/// A partition whose acknowledgement is not due yet.
struct Waiting {
    topic: usize,
    partition: usize,
    handle: PartitionHandle,
    last_offset: Offset,
}

/// One request's appends.
struct Appends<'a> {
    context: &'a Context,
    call: &'a Call,
    acks: i16,
    now_ms: i64,
    waiter: Option<Arc<AckWaiter>>,
    waiting: Vec<Waiting>,
    has_error: bool,
}

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: &ProduceRequest,
) -> Reply<ProduceResponse> {
    let mut appends = Appends {
        context,
        call,
        acks: request.acks,
        now_ms: context.clock.now_ms(),
        waiter: (request.acks == -1).then(AckWaiter::new),
        waiting: Vec::new(),
        has_error: false,
    };
    let is_transactional = request.transactional_id.is_some();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for (index, topic) in request.topic_data.iter().enumerate() {
        topics.push(appends.topic(index, topic, is_transactional));
    }
    let mut response = ProduceResponse::default().with_responses(topics);
    let Appends { waiter, waiting, has_error, .. } = appends;
    match waiter {
        // The connection is the only way to tell a client that asked for no answer.
        None if request.acks == 0 => {
            if has_error {
                Reply::Close
            } else {
                Reply::Nothing
            }
        }
        None => Reply::Now(response),
        Some(waiter) if waiter.left() > 0 => {
            let deadline = monotonic() + millis(request.timeout_ms.into());
            Reply::Later(Box::pin(async move {
                let _ = timeout_at(deadline, waiter.wait()).await;
                for entry in &waiting {
                    settle(&mut response, entry);
                }
                response
            }))
        }
        Some(_) => {
            waiting.iter().for_each(|entry| settle(&mut response, entry));
            Reply::Now(response)
        }
    }
}

/// Says what became of a partition once the waiting is over: an acknowledgement only if it is true.
fn settle(response: &mut ProduceResponse, entry: &Waiting) {
    if entry.handle.high_watermark() > entry.last_offset {
        return;
    }
    let code = if entry.handle.is_online() {
        ErrorCode::RequestTimedOut
    } else {
        ErrorCode::KafkaStorageError
    };
    let topic = response.responses.get_mut(entry.topic);
    if let Some(answer) = topic.and_then(|topic| topic.partition_responses.get_mut(entry.partition))
    {
        *answer = refused(answer.index, code);
    }
}

impl Appends<'_> {
    fn topic(
        &mut self,
        index: usize,
        topic: &TopicProduceData,
        is_transactional: bool,
    ) -> TopicProduceResponse {
        let by_id = self.call.version >= BY_ID_VERSION;
        let found = if by_id {
            self.context.replicas.topic_by_id(topic.topic_id)
        } else {
            self.context.replicas.topic(&topic.name)
        };
        let name = found.as_ref().map_or(topic.name.as_str(), |found| &found.name);
        let refusal = if !self.context.allows(self.call, Operation::Write, Resource::Topic(name)) {
            Some(ErrorCode::TopicAuthorizationFailed)
        } else if !matches!(self.acks, -1..=1) {
            Some(ErrorCode::InvalidRequiredAcks)
        } else if is_transactional {
            Some(ErrorCode::InvalidTxnState)
        } else if is_internal(name) {
            Some(ErrorCode::InvalidTopicException)
        } else if found.is_none() {
            Some(if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition })
        } else {
            None
        };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for (position, data) in topic.partition_data.iter().enumerate() {
            partitions.push(match (refusal, &found) {
                (None, Some(found)) => self.partition((index, position), found, data),
                (code, _) => {
                    self.has_error = true;
                    refused(data.index, code.unwrap_or(ErrorCode::UnknownTopicOrPartition))
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

    fn partition(
        &mut self,
        (topic, position): (usize, usize),
        found: &Topic,
        data: &PartitionProduceData,
    ) -> PartitionProduceResponse {
        let Some(handle) = found.partition(data.index) else {
            self.has_error = true;
            return refused(data.index, ErrorCode::UnknownTopicOrPartition);
        };
        let batch = data.records.as_deref().unwrap_or_default();
        if self.call.version < ZSTD_VERSION
            && BatchHeader::parse(batch)
                .is_some_and(|header| header.codec_bits() == Codec::Zstd.bits())
        {
            self.has_error = true;
            return refused(data.index, ErrorCode::UnsupportedCompressionType);
        }
        let request = AppendRequest {
            batch,
            now_ms: self.now_ms,
            waiter: self.waiter.as_ref(),
            is_internal: false,
        };
        match handle.append(&request) {
            Ok(done) => {
                if self.waiter.is_some() {
                    let last_offset = done.last_offset;
                    self.waiting.push(Waiting { topic, partition: position, handle, last_offset });
                }
                PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_base_offset(done.base_offset)
                    .with_log_append_time_ms(done.append_time_ms)
                    .with_log_start_offset(done.log_start)
            }
            Err(error) => {
                self.has_error = true;
                self.explain(data.index, &handle, &error)
            }
        }
    }

    fn explain(
        &self,
        index: i32,
        handle: &PartitionHandle,
        error: &PartitionError,
    ) -> PartitionProduceResponse {
        tracing::debug!(partition = %handle.name, %error, "batch refused");
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
        if self.call.version >= 8
            && let PartitionError::Batch(error) = error
        {
            (answer.record_errors, answer.error_message) = record_errors(error, &handle.name);
        }
        answer
    }
}

type RecordErrors = (Vec<BatchIndexAndErrorMessage>, Option<crate::protocol::StrBytes>);

/// Which records are at fault (KIP-467).
fn record_errors(error: &BatchError, partition: &TopicPartition) -> RecordErrors {
    let listed = |indexes: &[i32], why: &str| {
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
            indexes.len(),
            shown.join(", ")
        );
        (indexes.iter().map(entry).collect(), Some(text(message)))
    };
    match error {
        BatchError::KeyMissing { indexes } => {
            listed(indexes, &format!("{error} in topic partition {partition}"))
        }
        BatchError::TimestampOutOfRange { index, .. } => listed(&[*index], &error.to_string()),
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
