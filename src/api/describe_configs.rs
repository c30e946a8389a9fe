//! DescribeConfigs: every key with its value, source and synonyms (KIP-133, KIP-226, KIP-569).

use std::collections::HashSet;
use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::config::{
    Described, SOURCE_DYNAMIC_BROKER, SOURCE_DYNAMIC_CLUSTER, broker_entries, set_entries,
    topic_entries,
};
use crate::error::ErrorCode;
use crate::metadata::ConfigResource;
use crate::model::{BrokerId, validate_topic_name};
use crate::protocol::messages::describe_configs_request::DescribeConfigsResource;
use crate::protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// So many resources take some 200 microseconds: between more of them others have their turn.
const AT_ONCE: usize = 4;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DescribeConfigsRequest,
) -> Reply<DescribeConfigsResponse> {
    let response = |results| DescribeConfigsResponse::default().with_results(results);
    if request.resources.len() <= AT_ONCE {
        let results =
            request.resources.iter().map(|asked| describe(context, call, &request, asked));
        return Reply::Now(response(results.collect()));
    }
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let mut results = Vec::with_capacity(request.resources.len());
        for some in request.resources.chunks(AT_ONCE) {
            results.extend(some.iter().map(|asked| describe(&context, &call, &request, asked)));
            tokio::task::yield_now().await;
        }
        response(results)
    })
}

fn describe(
    context: &Context,
    call: &Call,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_error_message(None);
    match entries(context, call, resource) {
        Ok(entries) => {
            let wanted = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
            let wanted: Option<HashSet<&str>> =
                wanted.map(|keys| keys.iter().map(|key| &**key).collect());
            let is_wanted =
                |entry: &Described| wanted.as_ref().is_none_or(|keys| keys.contains(&*entry.name));
            let shown = entries
                .into_iter()
                .filter(is_wanted)
                .map(|entry| show(entry, call, request))
                .collect();
            result.with_configs(shown)
        }
        Err((code, message)) => {
            result.with_error_code(code.code()).with_error_message(Some(text(message)))
        }
    }
}

fn entries(
    context: &Context,
    call: &Call,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, (ErrorCode, String)> {
    let name = resource.resource_name.as_str();
    let config = context.controller.config();
    let image = context.image();
    let described = match resource.resource_type {
        TOPIC => {
            if !context.allows(call, Operation::DescribeConfigs, Resource::Topic(name)) {
                return Err((ErrorCode::TopicAuthorizationFailed, String::new()));
            }
            validate_topic_name(name)
                .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
            image.topic(name).ok_or((ErrorCode::UnknownTopicOrPartition, String::new()))?;
            topic_entries(&config, &image.configs(&ConfigResource::Topic(name.to_owned())))
        }
        BROKER if !context.allows(call, Operation::DescribeConfigs, Resource::Cluster) => {
            return Err((ErrorCode::ClusterAuthorizationFailed, String::new()));
        }
        // The empty name means what is set for every broker.
        BROKER if name.is_empty() => {
            set_entries(&image.configs(&ConfigResource::Cluster), SOURCE_DYNAMIC_CLUSTER)
        }
        BROKER if name.parse() == Ok(context.node_id) => {
            let mut entries = broker_entries(&config);
            let mut others =
                set_entries(&image.configs(&ConfigResource::Cluster), SOURCE_DYNAMIC_CLUSTER);
            let own = image.configs(&ConfigResource::Broker(context.node_id));
            others.retain(|other| !own.contains_key(&*other.name));
            others.extend(set_entries(&own, SOURCE_DYNAMIC_BROKER));
            // What is a setting is among the entries, with the value that is in force.
            others.retain(|other| !entries.iter().any(|entry| entry.name == other.name));
            entries.extend(others);
            entries
        }
        BROKER if name.parse::<BrokerId>().is_err() => {
            let why = format!("Broker id must be an integer, but it is: {name}");
            return Err((ErrorCode::InvalidRequest, why));
        }
        BROKER => {
            let why = format!(
                "Unexpected broker id, expected {} or empty string, but received {name}",
                context.node_id
            );
            return Err((ErrorCode::InvalidRequest, why));
        }
        other => {
            return Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}")));
        }
    };
    Ok(described)
}

fn show(
    entry: Described,
    call: &Call,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let mut shown = DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(entry.value.filter(|_| !entry.is_secret).map(text))
        .with_is_sensitive(entry.is_secret)
        .with_read_only(entry.is_read_only)
        .with_config_source(entry.source);
    if request.include_synonyms {
        let synonym = |synonym: crate::config::Synonym| {
            DescribeConfigsSynonym::default()
                .with_name(text(synonym.name))
                .with_value((!entry.is_secret).then(|| text(synonym.value)))
                .with_source(synonym.source)
        };
        shown.synonyms = entry.synonyms.into_iter().map(synonym).collect();
    }
    if call.version >= 3 {
        shown.config_type = entry.kind;
        shown.documentation = request.include_documentation.then(|| text(entry.text));
    }
    shown
}
