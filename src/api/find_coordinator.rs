//! FindCoordinator: who keeps a group. For transactions the answer is that nobody does.

use std::sync::Arc;

use super::{Call, Context, MANY, Reply};
use crate::error::ErrorCode;
use crate::metadata::Image;
use crate::protocol::messages::find_coordinator_response::Coordinator;
use crate::protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::protocol::{StrBytes, text};
use crate::security::{Operation, Resource};
use crate::system::tasks::blocking;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: FindCoordinatorRequest,
) -> Reply<FindCoordinatorResponse> {
    let is_first = request.key_type == GROUP && context.groups.is_new();
    let is_long = request.coordinator_keys.len() > MANY;
    if !is_first && !is_long {
        return Reply::Now(respond(context, call, &request));
    }
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::Later(Box::pin(async move {
        if is_first {
            // The topic that holds offsets is made when the first group asks for its coordinator.
            context.groups.prepare().await;
        }
        if is_long {
            return blocking(move || respond(&context, &call, &request)).await;
        }
        Some(respond(&context, &call, &request))
    }))
}

fn respond(
    context: &Context,
    call: &Call,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys: Vec<StrBytes> = if call.version >= 4 {
        request.coordinator_keys.clone()
    } else {
        vec![request.key.clone()]
    };
    let image = context.image();
    let find = |key| find(context, (call, &image), request.key_type, key);
    let found: Vec<Coordinator> = keys.into_iter().map(find).collect();
    if call.version >= 4 {
        return FindCoordinatorResponse::default()
            .with_coordinators(found)
            .with_error_message(Some(text("")));
    }
    let Some(only) = found.into_iter().next() else { return FindCoordinatorResponse::default() };
    let message = if only.error_code == 0 { Some(text("NONE")) } else { only.error_message };
    FindCoordinatorResponse::default()
        .with_error_code(only.error_code)
        .with_error_message(message.filter(|_| call.version >= 1))
        .with_node_id(only.node_id)
        .with_host(only.host)
        .with_port(only.port)
}

fn find(
    context: &Context,
    (call, image): (&Call, &Image),
    key_type: i8,
    key: StrBytes,
) -> Coordinator {
    let keeper = context.groups.coordinator_of(&key);
    let keeper = keeper.and_then(|id| context.broker(call, image, id));
    let code = match key_type {
        GROUP if !context.allows(call, Operation::Describe, Resource::Group(&key)) => {
            ErrorCode::GroupAuthorizationFailed
        }
        GROUP if keeper.is_some() => ErrorCode::None,
        GROUP => ErrorCode::CoordinatorNotAvailable,
        // Of the codes that end the call in every client (librdkafka asks for ever after INVALID_REQUEST), the one beside which
        // the text is shown.
        TRANSACTION => ErrorCode::ClusterAuthorizationFailed,
        _ => ErrorCode::InvalidRequest,
    };
    if !code.is_none() {
        let message = if key_type == TRANSACTION {
            "Transactions are not supported by this broker."
        } else {
            code.text()
        };
        return Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(text(message)));
    }
    let Some(keeper) = keeper else { return Coordinator::default() };
    Coordinator::default()
        .with_key(key)
        .with_node_id(BrokerId(keeper.id))
        .with_host(text(keeper.host))
        .with_port(keeper.port)
        .with_error_message(Some(text("")))
}
