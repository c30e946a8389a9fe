//! DeleteRecords: move logs' starts (KIP-107). Answered once the new starts are durable. What was acknowledged before can be deleted.

use std::sync::Arc;

use super::{Call, Context, Reply, deadline, flushed};
use crate::error::ErrorCode;
use crate::model::TopicPartition;
use crate::protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use crate::protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use crate::protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use crate::security::{Operation, Resource};
use crate::system::clock::Instant;
use crate::system::tasks::blocking;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DeleteRecordsRequest,
) -> Reply<DeleteRecordsResponse> {
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::Later(Box::pin(async move {
        let all = request.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|p| (topic.name.as_str(), p.partition_index))
        });
        let waiter = context.own_flushes(all);
        flushed(&waiter).await;
        let owned = Arc::clone(&context);
        let deadline = deadline(request.timeout_ms);
        let trimmed = blocking(move || {
            let trim = |topic| trim_topic(&owned, &call, topic);
            request.topics.iter().map(trim).collect::<Vec<_>>()
        });
        let mut topics = trimmed.await?;
        for topic in &mut topics {
            let name = topic.name.clone();
            for result in topic.partitions.iter_mut().filter(|result| result.error_code == 0) {
                let name = TopicPartition::new(&name, result.partition_index);
                let start = result.low_watermark;
                if let Err(code) = trim_tiered(&context, &name, start, deadline).await {
                    result.low_watermark = -1;
                    result.error_code = code.code();
                }
            }
        }
        Some(DeleteRecordsResponse::default().with_topics(topics))
    }))
}

/// What is in object storage is to begin there too before that is told.
async fn trim_tiered(
    context: &Context,
    name: &TopicPartition,
    start: i64,
    deadline: Instant,
) -> Result<(), ErrorCode> {
    let handle = context.partition(name)?;
    let trimmed = handle.trim_tiered(start, context.clock.now_ms(), deadline).await;
    trimmed.map_err(|error| ErrorCode::from(&error))
}

fn trim_topic(
    context: &Context,
    call: &Call,
    topic: &DeleteRecordsTopic,
) -> DeleteRecordsTopicResult {
    let is_allowed = context.allows(call, Operation::Delete, Resource::Topic(&topic.name));
    let trim = |partition: &DeleteRecordsPartition| {
        let result =
            DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
        let trimmed = if is_allowed {
            trim_partition(context, &topic.name, partition)
        } else {
            Err(ErrorCode::TopicAuthorizationFailed)
        };
        match trimmed {
            Ok(start) => result.with_low_watermark(start),
            Err(code) => result.with_low_watermark(-1).with_error_code(code.code()),
        }
    };
    let partitions = topic.partitions.iter().map(trim).collect();
    DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
}

fn trim_partition(
    context: &Context,
    topic: &str,
    partition: &DeleteRecordsPartition,
) -> Result<i64, ErrorCode> {
    let name = TopicPartition::new(topic, partition.partition_index);
    let handle = context.partition(&name)?;
    let config = context.controller.topic_config(topic);
    if config.is_compacted && !config.is_deleted {
        return Err(ErrorCode::PolicyViolation);
    }
    let start = handle.trim(partition.offset).map_err(|error| ErrorCode::from(&error))?;
    handle.directory.write_points().map_err(|error| {
        tracing::error!(partition = %name, %error, "new log start not durable");
        ErrorCode::KafkaStorageError
    })?;
    Ok(start)
}
