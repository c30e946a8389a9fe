//! CreateTopics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Call, Context, Reply};
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
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            topics.push(create(&context, &call, &request, topic).await);
        }
        CreateTopicsResponse::default().with_topics(topics)
    })
}

async fn create(
    context: &Context,
    call: &Call,
    request: &CreateTopicsRequest,
    topic: &CreatableTopic,
) -> CreatableTopicResult {
    let twice = request.topics.iter().filter(|other| other.name == topic.name).count() > 1;
    let result =
        CreatableTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
    if twice {
        return refuse(result, ErrorCode::InvalidRequest, "Duplicate topic name.");
    }
    if !context.allows(call, Operation::Create, Resource::Topic(&topic.name)) {
        return refuse(result, ErrorCode::TopicAuthorizationFailed, "Authorization failed.");
    }
    let wish = wish(topic);
    match context.controller.create_topic(&wish, request.validate_only).await {
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
