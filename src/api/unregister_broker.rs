//! UnregisterBroker: forgets a broker that is gone for good (KIP-631).

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::controller::Command;
use crate::error::ErrorCode;
use crate::protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: &UnregisterBrokerRequest,
) -> Reply<UnregisterBrokerResponse> {
    let response = UnregisterBrokerResponse::default().with_error_message(None);
    if !context.allows(call, Operation::Alter, Resource::Cluster) {
        let code = ErrorCode::ClusterAuthorizationFailed.code();
        return Reply::Now(response.with_error_code(code));
    }
    let (context, broker) = (Arc::clone(context), request.broker_id.0);
    Reply::later(async move {
        match context.controller.ask(Command::Unregister { broker }).await {
            Ok(_) => response,
            Err(error) => response
                .with_error_code(ErrorCode::from(&error).code())
                .with_error_message(Some(text(error.to_string()))),
        }
    })
}
