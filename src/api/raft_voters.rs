//! AddRaftVoter and RemoveRaftVoter (KIP-853): the voters of the metadata quorum, changed while the cluster runs.

use std::sync::Arc;

use super::{Call, Context, Reply};
use crate::controller::Command;
use crate::error::ErrorCode;
use crate::protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};
use crate::protocol::text;
use crate::security::{Operation, Resource};

/// A code, and words where there is something to say.
type Outcome = (ErrorCode, Option<String>);

/// Why a request is refused before anybody is asked.
fn refusal(context: &Context, call: &Call, cluster: Option<&str>) -> Option<Outcome> {
    if !context.allows(call, Operation::Alter, Resource::Cluster) {
        return Some((ErrorCode::ClusterAuthorizationFailed, None));
    }
    let is_other = cluster.is_some_and(|cluster| cluster != context.cluster_id);
    is_other.then_some((ErrorCode::InconsistentClusterId, None))
}

async fn change(context: Arc<Context>, command: Command) -> Outcome {
    match context.controller.ask_for_long(command).await {
        Ok(_) => (ErrorCode::None, None),
        Err(error) => (ErrorCode::from(&error), Some(error.to_string())),
    }
}

pub(super) fn add(
    context: &Arc<Context>,
    call: &Call,
    request: AddRaftVoterRequest,
) -> Reply<AddRaftVoterResponse> {
    let response = |(code, message): Outcome| {
        AddRaftVoterResponse::default()
            .with_error_code(code.code())
            .with_error_message(message.map(text))
    };
    if let Some(refused) = refusal(context, call, request.cluster_id.as_deref()) {
        return Reply::Now(response(refused));
    }
    let Some(listener) = request.listeners.first() else {
        let why = "the request names no listener of the new voter".to_owned();
        return Reply::Now(response((ErrorCode::InvalidRequest, Some(why))));
    };
    let address = format!("{}:{}", listener.host.as_str(), listener.port);
    let (id, directory) = (request.voter_id, request.voter_directory_id);
    let context = Arc::clone(context);
    Reply::later(async move {
        response(change(context, Command::AddVoter { id, directory, address }).await)
    })
}

pub(super) fn remove(
    context: &Arc<Context>,
    call: &Call,
    request: RemoveRaftVoterRequest,
) -> Reply<RemoveRaftVoterResponse> {
    let response = |(code, message): Outcome| {
        RemoveRaftVoterResponse::default()
            .with_error_code(code.code())
            .with_error_message(message.map(text))
    };
    if let Some(refused) = refusal(context, call, request.cluster_id.as_deref()) {
        return Reply::Now(response(refused));
    }
    let (id, directory) = (request.voter_id, request.voter_directory_id);
    let context = Arc::clone(context);
    Reply::later(
        async move { response(change(context, Command::RemoveVoter { id, directory }).await) },
    )
}
