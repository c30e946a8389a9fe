//! UpdateFeatures (KIP-584): our own feature level, and `metadata.version` at its only useful level.

use std::sync::Arc;

use super::api_versions::{METADATA_VERSION, METADATA_VERSION_MAX, METADATA_VERSION_MIN};
use super::{Call, Context, Reply};
use crate::controller::Command;
use crate::error::ErrorCode;
use crate::metadata::VERSION_FEATURE;
use crate::protocol::messages::update_features_request::FeatureUpdateKey;
use crate::protocol::messages::update_features_response::UpdatableFeatureResult;
use crate::protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: UpdateFeaturesRequest,
) -> Reply<UpdateFeaturesResponse> {
    let mut response = UpdateFeaturesResponse::default().with_error_message(None);
    if !context.allows(call, Operation::Alter, Resource::Cluster) {
        let code = ErrorCode::ClusterAuthorizationFailed;
        return Reply::Now(
            response.with_error_code(code.code()).with_error_message(Some(text(code.text()))),
        );
    }
    let (context, version) = (Arc::clone(context), call.version);
    Reply::later(async move {
        let mut results = Vec::with_capacity(request.feature_updates.len());
        for update in &request.feature_updates {
            results.push(if update.feature.as_str() == VERSION_FEATURE {
                set_level(&context, update, request.validate_only).await
            } else {
                judge(update)
            });
        }
        // From version 2 on the whole request fails with its first error.
        if let Some(failed) = results.iter().find(|result| result.error_code != 0)
            && version >= 2
        {
            response.error_code = failed.error_code;
            response.error_message.clone_from(&failed.error_message);
            return response;
        }
        if version < 2 {
            response.results = results;
        }
        response
    })
}

/// Finalizes a level of our own feature.
async fn set_level(
    context: &Context,
    update: &FeatureUpdateKey,
    validate_only: bool,
) -> UpdatableFeatureResult {
    let (name, level) = (update.feature.to_string(), update.max_version_level);
    let set = context.controller.ask(Command::SetFeature { name, level, validate_only }).await;
    let result = UpdatableFeatureResult::default()
        .with_feature(update.feature.clone())
        .with_error_message(None);
    match set {
        Ok(_) => result,
        Err(error) => result
            .with_error_code(ErrorCode::from(&error).code())
            .with_error_message(Some(text(error.to_string()))),
    }
}

fn judge(update: &FeatureUpdateKey) -> UpdatableFeatureResult {
    let result = UpdatableFeatureResult::default()
        .with_feature(update.feature.clone())
        .with_error_message(None);
    let refuse = |message: String| {
        result
            .clone()
            .with_error_code(ErrorCode::InvalidUpdateVersion.code())
            .with_error_message(Some(text(message)))
    };
    let level = update.max_version_level;
    match update.feature.as_str() {
        METADATA_VERSION if level == METADATA_VERSION_MAX => result,
        METADATA_VERSION => refuse(format!(
            "Invalid update version {level} for feature {METADATA_VERSION}. Local controller {level} only supports \
             versions {METADATA_VERSION_MIN}-{METADATA_VERSION_MAX}, and changing the level is not supported yet"
        )),
        other => refuse(format!(
            "Invalid update version {level} for feature {other}. Local controller does not support this feature."
        )),
    }
}
