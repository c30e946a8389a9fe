//! DescribeProducers: what is remembered of idempotent producers (KIP-664).

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::log::{Log, ProducerEntry};
use crate::model::TopicPartition;
use crate::protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use crate::protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DescribeProducersRequest,
) -> Reply<DescribeProducersResponse> {
    let mut topics = Vec::new();
    for topic in request.topics {
        let is_allowed = context.allows(call, Operation::Read, Resource::Topic(&topic.name));
        let describe = |index: &i32| {
            let response = PartitionResponse::default().with_partition_index(*index);
            let name = TopicPartition::new(&topic.name, *index);
            let refuse = |code: ErrorCode| {
                response
                    .clone()
                    .with_error_code(code.code())
                    .with_error_message(Some(text(code.text())))
            };
            if !is_allowed {
                return refuse(ErrorCode::TopicAuthorizationFailed);
            }
            let handle = match context.partition(&name) {
                Ok(handle) => handle,
                Err(code) => return refuse(code),
            };
            if handle.is_online() && !handle.is_leader() {
                return refuse(ErrorCode::NotLeaderOrFollower);
            }
            match handle.with_log(producers) {
                Some(producers) => response.with_active_producers(producers),
                None => refuse(ErrorCode::KafkaStorageError),
            }
        };
        let partitions = topic.partition_indexes.iter().map(describe).collect();
        topics.push(
            TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions),
        );
    }
    Reply::Now(DescribeProducersResponse::default().with_topics(topics))
}

fn producers(log: &Log) -> Vec<ProducerState> {
    let state = |(id, entry): (i64, &ProducerEntry)| {
        ProducerState::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(entry.epoch.into())
            .with_last_sequence(entry.last_sequence())
            .with_last_timestamp(entry.last_timestamp)
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(-1)
    };
    log.producers().iter().map(state).collect()
}
