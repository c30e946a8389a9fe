//! AlterConfigs and IncrementalAlterConfigs (KIP-133, KIP-339).

use std::sync::Arc;

use super::describe_configs::{BROKER, TOPIC};
use super::{Call, Context, Reply};
use crate::controller::{ConfigChange, ConfigOperation, ControllerError};
use crate::error::ErrorCode;
use crate::metadata::ConfigResource;
use crate::model::{BrokerId, validate_topic_name};
use crate::protocol::messages::alter_configs_response::AlterConfigsResourceResponse as ReplacedResponse;
use crate::protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use crate::protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use crate::protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use crate::protocol::{StrBytes, text};
use crate::security::{Operation, Resource};

pub(super) fn alter(
    context: &Arc<Context>,
    call: &Call,
    request: IncrementalAlterConfigsRequest,
) -> Reply<IncrementalAlterConfigsResponse> {
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let (kind, name) = (resource.resource_type, &resource.resource_name);
            let asked = change(resource)
                .and_then(|changes| Ok((changes, target(&context, &call, kind, name)?)));
            let changed = match asked {
                Ok((changes, target)) => {
                    let altered =
                        context.controller.alter_configs(&target, &changes, request.validate_only);
                    altered.await.map_err(|error| explain(&error, name))
                }
                Err(refused) => Err(refused),
            };
            let (code, message) = outcome(changed);
            responses.push(
                AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_resource_type(kind)
                    .with_resource_name(name.clone()),
            );
        }
        IncrementalAlterConfigsResponse::default().with_responses(responses)
    })
}

pub(super) fn replace(
    context: &Arc<Context>,
    call: &Call,
    request: AlterConfigsRequest,
) -> Reply<AlterConfigsResponse> {
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let values: Vec<(String, Option<String>)> = resource
                .configs
                .iter()
                .map(|c| (c.name.to_string(), c.value.as_ref().map(ToString::to_string)))
                .collect();
            let target = target(&context, &call, resource.resource_type, &resource.resource_name);
            let changed = match target {
                Ok(target) => {
                    let replaced =
                        context.controller.replace_configs(&target, &values, request.validate_only);
                    replaced.await.map_err(|error| explain(&error, &resource.resource_name))
                }
                Err(refused) => Err(refused),
            };
            let (code, message) = outcome(changed);
            responses.push(
                ReplacedResponse::default()
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name.clone()),
            );
        }
        AlterConfigsResponse::default().with_responses(responses)
    })
}

type Refusal = (ErrorCode, String);

fn target(context: &Context, call: &Call, kind: i8, name: &str) -> Result<ConfigResource, Refusal> {
    match kind {
        TOPIC if name.is_empty() => {
            let why = "Default topic resources are not allowed.".to_owned();
            Err((ErrorCode::InvalidRequest, why))
        }
        TOPIC if context.allows(call, Operation::AlterConfigs, Resource::Topic(name)) => {
            validate_topic_name(name)
                .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
            Ok(ConfigResource::Topic(name.to_owned()))
        }
        TOPIC => Err((ErrorCode::TopicAuthorizationFailed, String::new())),
        BROKER if !context.allows(call, Operation::AlterConfigs, Resource::Cluster) => {
            Err((ErrorCode::ClusterAuthorizationFailed, String::new()))
        }
        BROKER if name.is_empty() => Ok(ConfigResource::Cluster),
        BROKER => match name.parse::<BrokerId>() {
            Ok(id) if id == context.node_id => Ok(ConfigResource::Broker(id)),
            Err(_) => {
                let why = format!("Node id must be an integer, but it is: {name}");
                Err((ErrorCode::InvalidRequest, why))
            }
            Ok(_) => {
                let own = context.node_id;
                let why = format!("Unexpected broker id, expected {own}, but received {name}");
                Err((ErrorCode::InvalidRequest, why))
            }
        },
        other => Err((ErrorCode::InvalidRequest, format!("Unexpected resource type {other}"))),
    }
}

fn change(resource: &AlterConfigsResource) -> Result<Vec<ConfigChange>, Refusal> {
    let one = |config: &AlterableConfig| {
        let operation = match config.config_operation {
            0 => ConfigOperation::Set,
            1 => ConfigOperation::Delete,
            2 => ConfigOperation::Append,
            3 => ConfigOperation::Subtract,
            other => {
                return Err((
                    ErrorCode::InvalidRequest,
                    format!("Unknown operation type {other} for {}", config.name.as_str()),
                ));
            }
        };
        let value = config.value.as_ref().map(ToString::to_string);
        Ok(ConfigChange { name: config.name.to_string(), operation, value })
    };
    resource.configs.iter().map(one).collect()
}

fn explain(error: &ControllerError, name: &str) -> Refusal {
    let why = match error {
        ControllerError::UnknownTopic => format!("The topic '{name}' does not exist."),
        other => other.to_string(),
    };
    (ErrorCode::from(error), why)
}

fn outcome(changed: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match changed {
        Ok(()) => (0, None),
        Err((code, message)) => (code.code(), Some(text(message))),
    }
}
