//! OffsetForLeaderEpoch: where an epoch ended (KIP-101, KIP-320).

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::model::TopicPartition;
use crate::protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use crate::protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use crate::protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: OffsetForLeaderEpochRequest,
) -> Reply<OffsetForLeaderEpochResponse> {
    let mut topics = Vec::new();
    for topic in request.topics {
        let is_allowed = context.allows(call, Operation::Describe, Resource::Topic(&topic.topic));
        let find = |partition: &OffsetForLeaderPartition| {
            let answer = EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            if !is_allowed {
                return answer.with_error_code(ErrorCode::TopicAuthorizationFailed.code());
            }
            let name = TopicPartition::new(&topic.topic, partition.partition);
            let handle = match context.partition(&name) {
                Ok(handle) => handle,
                Err(code) => return answer.with_error_code(code.code()),
            };
            match handle.end_of_epoch(partition.leader_epoch, partition.current_leader_epoch) {
                Ok(Some((epoch, end))) => answer.with_leader_epoch(epoch).with_end_offset(end),
                Ok(None) => answer,
                Err(error) => answer.with_error_code(ErrorCode::from(&error).code()),
            }
        };
        let partitions = topic.partitions.iter().map(find).collect();
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions),
        );
    }
    Reply::Now(OffsetForLeaderEpochResponse::default().with_topics(topics))
}
