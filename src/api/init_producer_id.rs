//! InitProducerId: an identity for idempotent producers (KIP-98). Transactions are refused.

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::error::ErrorCode;
use crate::protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: &InitProducerIdRequest,
) -> Reply<InitProducerIdResponse> {
    let refused = |code: ErrorCode| {
        InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if let Some(id) = &request.transactional_id {
        // As FindCoordinator does, where a client asks that first.
        let code = if id.is_empty() {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::ClusterAuthorizationFailed
        };
        return Reply::Now(refused(code));
    }
    if !context.allows(call, Operation::IdempotentWrite, Resource::Cluster) {
        return Reply::Now(refused(ErrorCode::ClusterAuthorizationFailed));
    }
    let (owned, failed) = (Arc::clone(context), refused(ErrorCode::CoordinatorLoadInProgress));
    Reply::later(async move {
        match owned.controller.next_producer_id().await {
            Ok(id) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
            Err(error) => {
                tracing::error!(%error, "no producer id");
                failed
            }
        }
    })
}
