//! DescribeCluster (KIP-700, KIP-919).

use std::sync::Arc;

use super::{Call, Context, NO_OPERATIONS, Reply, authorized_operations};
use crate::error::ErrorCode;
use crate::protocol::messages::describe_cluster_response::DescribeClusterBroker;
use crate::protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use crate::protocol::text;
use crate::security::Resource;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: &DescribeClusterRequest,
) -> Reply<DescribeClusterResponse> {
    let mut response =
        DescribeClusterResponse::default().with_cluster_authorized_operations(NO_OPERATIONS);
    let refusal = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".to_owned(),
        )),
        other => Some((ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"))),
    };
    if let Some((code, message)) = refusal.filter(|_| call.version >= 1) {
        return Reply::Now(
            response.with_error_code(code.code()).with_error_message(Some(text(message))),
        );
    }
    let image = context.image();
    let brokers = context.brokers(call, &image).into_iter().map(|broker| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id))
            .with_host(text(broker.host))
            .with_port(broker.port)
            .with_rack(broker.rack.map(text))
    });
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations =
            authorized_operations(context, call, Resource::Cluster);
    }
    Reply::Now(
        response
            .with_cluster_id(text(context.cluster_id.as_str()))
            .with_controller_id(BrokerId(context.controller_id(&image)))
            .with_brokers(brokers.collect()),
    )
}
