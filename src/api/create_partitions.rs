//! CreatePartitions (KIP-195).

use std::sync::Arc;

use super::{Call, Context, Reply, is_internal};
use crate::controller::NewPartitions;
use crate::error::ErrorCode;
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
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            results.push(extend(&context, &call, topic, request.validate_only).await);
        }
        CreatePartitionsResponse::default().with_results(results)
    })
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
