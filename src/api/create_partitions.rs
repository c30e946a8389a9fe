//! CreatePartitions (KIP-195).

use std::sync::Arc;

use futures_util::future::join_all;

use super::{
    Call, Context, PARTITIONS_AT_ONCE_MAX, Reply, TOGETHER, TOO_MANY_PARTITIONS, is_internal,
    named_twice,
};
use crate::controller::NewPartitions;
use crate::error::ErrorCode;
use crate::model::number::to_usize;
use crate::protocol::messages::create_partitions_request::CreatePartitionsTopic;
use crate::protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use crate::protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: CreatePartitionsRequest,
) -> Reply<CreatePartitionsResponse> {
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let results = extend_all(&context, &call, &request).await;
        CreatePartitionsResponse::default().with_results(results)
    })
}

async fn extend_all(
    context: &Context,
    call: &Call,
    request: &CreatePartitionsRequest,
) -> Vec<CreatePartitionsTopicResult> {
    let result = |topic: &CreatePartitionsTopic, code: ErrorCode, message: &str| {
        CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code.code())
            .with_error_message(Some(text(message)))
    };
    let image = context.image();
    let more = |topic: &CreatePartitionsTopic| {
        let there = image.topic(&topic.name).map_or(0, |topic| topic.partitions.len());
        to_usize(topic.count).saturating_sub(there)
    };
    if request.topics.iter().map(more).sum::<usize>() > PARTITIONS_AT_ONCE_MAX {
        let refused = |topic| result(topic, ErrorCode::PolicyViolation, TOO_MANY_PARTITIONS);
        return request.topics.iter().map(refused).collect();
    }
    let twice = named_twice(request.topics.iter().map(|topic| topic.name.as_str()));
    let extend = async |topic: &CreatePartitionsTopic| {
        if twice.contains(topic.name.as_str()) {
            return result(topic, ErrorCode::InvalidRequest, "Duplicate topic name.");
        }
        extend(context, call, topic, request.validate_only).await
    };
    let mut results = Vec::with_capacity(request.topics.len());
    for some in request.topics.chunks(TOGETHER) {
        results.extend(join_all(some.iter().map(&extend)).await);
    }
    results
}

async fn extend(
    context: &Context,
    call: &Call,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
    if !context.allows(call, Operation::Alter, Resource::Topic(&topic.name)) {
        return result.with_error_code(ErrorCode::TopicAuthorizationFailed.code());
    }
    if is_internal(&topic.name) {
        // A group's partition follows from their number.
        let message = "The number of partitions of an internal topic is fixed.";
        return result
            .with_error_code(ErrorCode::InvalidPartitions.code())
            .with_error_message(Some(text(message)));
    }
    match context.controller.create_partitions(&wish(topic), validate_only).await {
        Ok(()) => result,
        Err(error) => result
            .with_error_code(ErrorCode::from(&error).code())
            .with_error_message(Some(text(error.to_string()))),
    }
}

fn wish(topic: &CreatePartitionsTopic) -> NewPartitions {
    let assignments = topic
        .assignments
        .as_ref()
        .map(|all| all.iter().map(|one| one.broker_ids.iter().map(|id| id.0).collect()).collect());
    NewPartitions { topic: topic.name.to_string(), count: topic.count, assignments }
}
