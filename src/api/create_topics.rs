//! CreateTopics.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{
    Call, Context, PARTITIONS_AT_ONCE_MAX, Reply, TOGETHER, TOO_MANY_PARTITIONS, named_twice,
};
use crate::config::topic_entries;
use crate::controller::{ControllerError, NewTopic};
use crate::error::ErrorCode;
use crate::metadata::TopicImage;
use crate::model::number::{to_i32, to_usize};
use crate::protocol::messages::create_topics_request::CreatableTopic;
use crate::protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use crate::protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: CreateTopicsRequest,
) -> Reply<CreateTopicsResponse> {
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let topics = create_all(&context, &call, &request).await;
        CreateTopicsResponse::default().with_topics(topics)
    })
}

async fn create_all(
    context: &Context,
    call: &Call,
    request: &CreateTopicsRequest,
) -> Vec<CreatableTopicResult> {
    let result = |topic: &CreatableTopic| {
        CreatableTopicResult::default().with_name(topic.name.clone()).with_error_message(None)
    };
    let default = context.controller.config().size("num.partitions");
    let sum = request.topics.iter().map(|topic| partitions(topic, default)).sum::<usize>();
    if sum > PARTITIONS_AT_ONCE_MAX {
        let refused =
            |topic| refuse(result(topic), ErrorCode::PolicyViolation, TOO_MANY_PARTITIONS);
        return request.topics.iter().map(refused).collect();
    }
    let twice = named_twice(request.topics.iter().map(|topic| topic.name.as_str()));
    let create = async |topic: &CreatableTopic| {
        if twice.contains(topic.name.as_str()) {
            let message = "Duplicate topic name.";
            return refuse(result(topic), ErrorCode::InvalidRequest, message);
        }
        create(context, call, request.validate_only, (topic, result(topic))).await
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for some in request.topics.chunks(TOGETHER) {
        topics.extend(join_all(some.iter().map(&create)).await);
    }
    topics
}

/// How many partitions a topic is to have, as far as the request says something that makes sense.
fn partitions(topic: &CreatableTopic, default: usize) -> usize {
    match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => default,
        (0, asked) => to_usize(asked),
        (assigned, _) => assigned,
    }
}

async fn create(
    context: &Context,
    call: &Call,
    validate_only: bool,
    (topic, result): (&CreatableTopic, CreatableTopicResult),
) -> CreatableTopicResult {
    if !context.allows(call, Operation::Create, Resource::Topic(&topic.name)) {
        return refuse(result, ErrorCode::TopicAuthorizationFailed, "Authorization failed.");
    }
    let wish = wish(topic);
    match context.controller.create_topic(&wish, validate_only).await {
        Ok(made) => describe(context, call, result, &made, &wish),
        Err(error @ ControllerError::Unavailable(_)) => {
            tracing::error!(topic = wish.name, %error, "topic not made");
            refuse(result, ErrorCode::from(&error), ErrorCode::from(&error).text())
        }
        Err(error) => refuse(result, ErrorCode::from(&error), &error.to_string()),
    }
}

fn wish(topic: &CreatableTopic) -> NewTopic {
    let ids = |ids: &[crate::protocol::messages::BrokerId]| ids.iter().map(|id| id.0).collect();
    let configs: BTreeMap<String, Option<String>> = topic
        .configs
        .iter()
        .map(|c| (c.name.to_string(), c.value.as_ref().map(ToString::to_string)))
        .collect();
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .iter()
            .map(|a| (a.partition_index, ids(&a.broker_ids)))
            .collect(),
        configs,
    }
}

fn refuse(result: CreatableTopicResult, code: ErrorCode, message: &str) -> CreatableTopicResult {
    result
        .with_error_code(code.code())
        .with_error_message(Some(text(message)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}

fn describe(
    context: &Context,
    call: &Call,
    mut result: CreatableTopicResult,
    made: &TopicImage,
    wish: &NewTopic,
) -> CreatableTopicResult {
    if call.version >= 7 {
        result.topic_id = made.id;
    }
    if call.version < 5 {
        return result;
    }
    let set = wish.configs.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))).collect();
    let entries = topic_entries(&context.controller.config(), &set);
    let entry = |entry: crate::config::Described| {
        CreatableTopicConfigs::default()
            .with_name(text(entry.name))
            .with_value(entry.value.map(text))
            .with_read_only(entry.is_read_only)
            .with_config_source(entry.source)
    };
    let replicas = made.partitions.first().map_or(0, |partition| partition.replicas.len());
    result
        .with_num_partitions(to_i32(made.partitions.len()))
        .with_replication_factor(i16::try_from(to_usize(replicas)).unwrap_or(i16::MAX))
        .with_configs(Some(entries.into_iter().map(entry).collect()))
}
