//! DeleteTopics, by name or id.

use std::sync::Arc;

use super::{Call, Context, Reply, is_internal};
use crate::error::ErrorCode;
use crate::protocol::messages::delete_topics_request::DeleteTopicState;
use crate::protocol::messages::delete_topics_response::DeletableTopicResult;
use crate::protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DeleteTopicsRequest,
) -> Reply<DeleteTopicsResponse> {
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let by_name = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
        let wanted: Vec<DeleteTopicState> = if call.version >= 6 {
            request.topics
        } else {
            request.topic_names.into_iter().map(by_name).collect()
        };
        let mut responses = Vec::with_capacity(wanted.len());
        for topic in wanted {
            responses.push(delete(&context, &call, topic).await);
        }
        DeleteTopicsResponse::default().with_responses(responses)
    })
}

async fn delete(context: &Context, call: &Call, wanted: DeleteTopicState) -> DeletableTopicResult {
    let image = context.image();
    let by_id = wanted.name.is_none();
    let found = match &wanted.name {
        Some(name) => image.topic(name),
        None => image.topic_by_id(wanted.topic_id),
    };
    let name = found.map_or(wanted.name.clone(), |topic| Some(TopicName(text(&*topic.name))));
    let code = match found {
        None if by_id => ErrorCode::UnknownTopicId,
        None => ErrorCode::UnknownTopicOrPartition,
        Some(topic) if !context.allows(call, Operation::Delete, Resource::Topic(&topic.name)) => {
            ErrorCode::TopicAuthorizationFailed
        }
        // Groups would be lost with it.
        Some(topic) if is_internal(&topic.name) => ErrorCode::InvalidTopicException,
        Some(_) if !context.controller.config().boolean("delete.topic.enable") => {
            ErrorCode::TopicDeletionDisabled
        }
        Some(topic) => match context.controller.delete_topic(topic.id).await {
            Ok(()) => ErrorCode::None,
            Err(error) => {
                tracing::warn!(topic = %topic.name, %error, "topic not deleted");
                ErrorCode::from(&error)
            }
        },
    };
    let mut result = DeletableTopicResult::default().with_name(name).with_error_code(code.code());
    if call.version >= 6 {
        result.topic_id = found.map_or(wanted.topic_id, |topic| topic.id);
    }
    if call.version >= 5 && !code.is_none() {
        result.error_message = Some(text(code.text()));
    }
    result
}
