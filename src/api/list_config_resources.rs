//! ListConfigResources: what has a configuration (KIP-1142).

use std::sync::Arc;

use super::describe_configs::{BROKER, TOPIC};
use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::protocol::messages::list_config_resources_response::ConfigResource;
use crate::protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

const CLIENT_METRICS: i8 = 16;
const BROKER_LOGGER: i8 = 8;
const GROUP: i8 = 32;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: &ListConfigResourcesRequest,
) -> Reply<ListConfigResourcesResponse> {
    let refused = |code: ErrorCode| {
        Reply::Now(ListConfigResourcesResponse::default().with_error_code(code.code()))
    };
    if !context.allows(call, Operation::DescribeConfigs, Resource::Cluster) {
        return refused(ErrorCode::ClusterAuthorizationFailed);
    }
    // Version 0 lists client metrics only, of which there are none.
    let all = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let kinds: Vec<i8> = match call.version {
        0 => vec![CLIENT_METRICS],
        _ if request.resource_types.is_empty() => all.to_vec(),
        _ => request.resource_types.clone(),
    };
    if kinds.iter().any(|kind| !all.contains(kind)) {
        return refused(ErrorCode::UnsupportedVersion);
    }
    let resource = |kind: i8, name: String| {
        let resource = ConfigResource::default().with_resource_name(text(name));
        if call.version >= 1 { resource.with_resource_type(kind) } else { resource }
    };
    let mut found = Vec::new();
    for kind in kinds {
        match kind {
            TOPIC => found.extend(
                context.image().topics.keys().map(|name| resource(TOPIC, name.to_string())),
            ),
            BROKER => found.push(resource(BROKER, context.node_id.to_string())),
            _ => {}
        }
    }
    Reply::Now(ListConfigResourcesResponse::default().with_config_resources(found))
}
