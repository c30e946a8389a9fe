//! ListOffsets: offsets by time and by name.

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::model::TopicPartition;
use crate::protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use crate::protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use crate::replication::PartitionError;
use crate::security::{Operation, Resource};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// The earliest offset on local disk (KIP-405); without tiering all of it is.
const EARLIEST_LOCAL: i64 = -4;
/// The last offset in remote storage (KIP-1005); without tiering there is none.
const LATEST_TIERED: i64 = -5;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: ListOffsetsRequest,
) -> Reply<ListOffsetsResponse> {
    let needs_disk = request
        .topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .any(|p| p.timestamp >= 0 || p.timestamp == MAX_TIMESTAMP);
    let (owned, called) = (Arc::clone(context), call.clone());
    let work = move || {
        let topics = request.topics.iter().map(|topic| describe(&owned, &called, topic)).collect();
        ListOffsetsResponse::default().with_topics(topics)
    };
    if needs_disk { Reply::blocking(work) } else { Reply::Now(work()) }
}

fn describe(context: &Context, call: &Call, topic: &ListOffsetsTopic) -> ListOffsetsTopicResponse {
    let is_allowed = context.allows(call, Operation::Describe, Resource::Topic(&topic.name));
    let find = |partition: &ListOffsetsPartition| {
        let empty = ListOffsetsPartitionResponse::default()
            .with_partition_index(partition.partition_index)
            .with_timestamp(-1)
            .with_offset(-1)
            .with_leader_epoch(-1);
        if !is_allowed {
            return empty.with_error_code(ErrorCode::TopicAuthorizationFailed.code());
        }
        match offset(context, call, &topic.name, partition) {
            Ok((timestamp, offset, epoch)) => {
                let found = empty.with_timestamp(timestamp).with_offset(offset);
                if call.version >= 4 { found.with_leader_epoch(epoch) } else { found }
            }
            Err(code) => empty.with_error_code(code.code()),
        }
    };
    let partitions = topic.partitions.iter().map(find).collect();
    ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
}

fn offset(
    context: &Context,
    call: &Call,
    topic: &str,
    partition: &ListOffsetsPartition,
) -> Result<(i64, i64, i32), ErrorCode> {
    let name = TopicPartition::new(topic, partition.partition_index);
    let handle = context.partition(&name)?;
    let failed = |error: PartitionError| ErrorCode::from(&error);
    let (start, high_watermark, epoch) =
        handle.bounds(partition.current_leader_epoch).map_err(failed)?;
    match partition.timestamp {
        LATEST => Ok((-1, high_watermark, epoch)),
        EARLIEST => Ok((-1, start, handle.epoch_at(start))),
        MAX_TIMESTAMP if call.version >= 7 => found(handle.find_time(None).map_err(failed)?),
        EARLIEST_LOCAL if call.version >= 8 => Ok((-1, start, handle.epoch_at(start))),
        LATEST_TIERED if call.version >= 9 => Ok((-1, -1, -1)),
        timestamp if timestamp >= 0 => found(handle.find_time(Some(timestamp)).map_err(failed)?),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an arm among fallible ones")]
fn found(record: Option<crate::log::FoundRecord>) -> Result<(i64, i64, i32), ErrorCode> {
    Ok(record.map_or((-1, -1, -1), |r| (r.timestamp, r.offset, r.leader_epoch)))
}
