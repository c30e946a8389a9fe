//! ListOffsets: offsets by time and by name.
//!
//! Invariants: what a leader acknowledged before the question counts, if nothing but its own flush holds it back.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Call, Context, MANY, Reply, flushed, named_twice};
use crate::error::ErrorCode;
use crate::log::FoundRecord;
use crate::model::{PartitionId, TopicPartition};
use crate::protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use crate::protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use crate::replication::{AckWaiter, PartitionError};
use crate::security::{Operation, Resource};
use crate::system::tasks::blocking;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// The earliest offset on local disk (KIP-405).
const EARLIEST_LOCAL: i64 = -4;
/// The last offset in remote storage (KIP-1005).
const LATEST_TIERED: i64 = -5;
/// The first offset that is not in object storage yet (KIP-1023).
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: ListOffsetsRequest,
) -> Reply<ListOffsetsResponse> {
    let asked = || request.topics.iter().flat_map(|topic| &topic.partitions);
    let is_long = request.topics.len() > MANY || asked().nth(MANY).is_some();
    if is_long {
        let (context, call) = (Arc::clone(context), call.clone());
        return Reply::Later(Box::pin(respond_elsewhere(context, call, request)));
    }
    let waiter = own_flushes(context, &request);
    let needs_disk = asked().any(|asked| is_by_time(asked.timestamp));
    if !needs_disk && waiter.left() == 0 {
        return Reply::Now(respond(context, call, &request, &HashMap::new()));
    }
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::Later(Box::pin(async move {
        flushed(&waiter).await;
        let found = find_by_time(&context, &call, &request).await;
        Some(respond(&context, &call, &request, &found))
    }))
}

/// The answer to a request about so much that others would wait for it.
async fn respond_elsewhere(
    context: Arc<Context>,
    call: Call,
    request: ListOffsetsRequest,
) -> Option<ListOffsetsResponse> {
    let there = Arc::clone(&context);
    let (request, waiter) = blocking(move || {
        let waiter = own_flushes(&there, &request);
        (request, waiter)
    })
    .await?;
    flushed(&waiter).await;
    let found = find_by_time(&context, &call, &request).await;
    blocking(move || respond(&context, &call, &request, &found)).await
}

fn own_flushes(context: &Context, request: &ListOffsetsRequest) -> Arc<AckWaiter> {
    let ends = request.topics.iter().flat_map(|topic| {
        let ends = topic.partitions.iter().filter(|asked| needs_end(asked.timestamp));
        ends.map(|asked| (topic.name.as_str(), asked.partition_index))
    });
    context.own_flushes(ends)
}

fn is_by_time(timestamp: i64) -> bool {
    timestamp >= 0 || timestamp == MAX_TIMESTAMP
}

fn needs_end(timestamp: i64) -> bool {
    timestamp == LATEST || is_by_time(timestamp)
}

/// What was found of what is asked for by time.
type ByTime = HashMap<(TopicPartition, i64), Result<Option<FoundRecord>, ErrorCode>>;

async fn find_by_time(context: &Context, call: &Call, request: &ListOffsetsRequest) -> ByTime {
    let (mut all, mut looked) = (HashMap::new(), 0_usize);
    for topic in &request.topics {
        if !context.allows(call, Operation::Describe, Resource::Topic(&topic.name)) {
            continue;
        }
        for asked in topic.partitions.iter().filter(|asked| is_by_time(asked.timestamp)) {
            let name = TopicPartition::new(&topic.name, asked.partition_index);
            let key = (name, asked.timestamp);
            if all.contains_key(&key) {
                continue;
            }
            let Ok(handle) = context.partition(&key.0) else { continue };
            let timestamp = Some(asked.timestamp).filter(|timestamp| *timestamp >= 0);
            let found = handle.find_time(timestamp).await;
            all.insert(key, found.map_err(|error| ErrorCode::from(&error)));
            looked += 1;
            if looked % MANY == 0 {
                // What is found in memory is found at once, however much of it there is.
                tokio::task::yield_now().await;
            }
        }
    }
    all
}

fn respond(
    context: &Context,
    call: &Call,
    request: &ListOffsetsRequest,
    by_time: &ByTime,
) -> ListOffsetsResponse {
    let all = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|asked| (topic.name.as_str(), asked.partition_index))
    });
    let mut twice: Twice<'_> = named_twice(all).into_iter().map(|key| (key, false)).collect();
    let describe = |topic| describe((context, call), topic, by_time, &mut twice);
    let topics = request.topics.iter().map(describe);
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Partitions that are asked for more than once, and whether that is said already. As by Apache Kafka, it is refused, and said once.
type Twice<'a> = HashMap<(&'a str, PartitionId), bool>;

fn describe<'a>(
    (context, call): (&Context, &Call),
    topic: &'a ListOffsetsTopic,
    by_time: &ByTime,
    twice: &mut Twice<'a>,
) -> ListOffsetsTopicResponse {
    let is_allowed = context.allows(call, Operation::Describe, Resource::Topic(&topic.name));
    let find = |partition: &'a ListOffsetsPartition| {
        let said = twice.get_mut(&(topic.name.as_str(), partition.partition_index));
        let is_twice = said.is_some();
        if said.is_some_and(|said| std::mem::replace(said, true)) {
            return None;
        }
        let empty = ListOffsetsPartitionResponse::default()
            .with_partition_index(partition.partition_index)
            .with_timestamp(-1)
            .with_offset(-1)
            .with_leader_epoch(-1);
        if !is_allowed {
            return Some(empty.with_error_code(ErrorCode::TopicAuthorizationFailed.code()));
        }
        if is_twice {
            return Some(empty.with_error_code(ErrorCode::InvalidRequest.code()));
        }
        let name = TopicPartition::new(&topic.name, partition.partition_index);
        Some(match offset(context, call, name, partition, by_time) {
            Ok((timestamp, offset, epoch)) => {
                let found = empty.with_timestamp(timestamp).with_offset(offset);
                if call.version >= 4 { found.with_leader_epoch(epoch) } else { found }
            }
            Err(code) => empty.with_error_code(code.code()),
        })
    };
    let partitions = topic.partitions.iter().filter_map(find).collect();
    ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
}

fn offset(
    context: &Context,
    call: &Call,
    name: TopicPartition,
    partition: &ListOffsetsPartition,
    by_time: &ByTime,
) -> Result<(i64, i64, i32), ErrorCode> {
    let handle = context.partition(&name)?;
    let failed = |error: PartitionError| ErrorCode::from(&error);
    let (start, high_watermark, epoch) =
        handle.bounds(partition.current_leader_epoch).map_err(failed)?;
    match partition.timestamp {
        LATEST => Ok((-1, high_watermark, epoch)),
        EARLIEST => Ok((-1, start, handle.epoch_at(start))),
        EARLIEST_LOCAL if call.version >= 8 => {
            let (local, _) = handle.tiered_bounds().map_err(failed)?;
            Ok((-1, local, handle.epoch_at(local)))
        }
        LATEST_TIERED if call.version >= 9 => {
            let (_, last) = handle.tiered_bounds().map_err(failed)?;
            let epoch = if last < 0 { -1 } else { handle.epoch_at(last) };
            Ok((-1, last, epoch))
        }
        EARLIEST_PENDING_UPLOAD if call.version >= 11 => {
            let Some(end) = handle.tiered_end() else { return Ok((-1, -1, -1)) };
            let pending = start.max(end);
            Ok((-1, pending, handle.epoch_at(pending)))
        }
        timestamp if timestamp >= 0 || (timestamp == MAX_TIMESTAMP && call.version >= 7) => {
            // Whoever leads only since the look-up has not been asked.
            let found = by_time.get(&(name, timestamp)).copied();
            let found = found.unwrap_or(Err(ErrorCode::NotLeaderOrFollower))?;
            Ok(found.map_or((-1, -1, -1), |r| (r.timestamp, r.offset, r.leader_epoch)))
        }
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}
