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
        // All of them or none: what is wrong is found before anything is set.
        let mut failed = None;
        for update in &request.feature_updates {
            failed = failed.or(judge(&context, update, version).await.err());
        }
        if failed.is_none() && !request.validate_only {
            for update in &request.feature_updates {
                failed = failed.or(set_level(&context, update, false).await.err());
            }
        }
        if let Some((code, why)) = failed {
            let why = format!(
                "The update failed for all features since the following feature had an error: {why}"
            );
            return response.with_error_code(code.code()).with_error_message(Some(text(why)));
        }
        if version < 2 {
            let done = |update: &FeatureUpdateKey| {
                UpdatableFeatureResult::default()
                    .with_feature(update.feature.clone())
                    .with_error_message(None)
            };
            response.results = request.feature_updates.iter().map(done).collect();
        }
        response
    })
}

type Refusal = (ErrorCode, String);

/// Finalizes a level of our own feature; of others nothing is kept.
async fn set_level(
    context: &Context,
    update: &FeatureUpdateKey,
    validate_only: bool,
) -> Result<(), Refusal> {
    if update.feature.as_str() != VERSION_FEATURE {
        return Ok(());
    }
    let (name, level) = (update.feature.to_string(), update.max_version_level);
    let set = context.controller.ask(Command::SetFeature { name, level, validate_only }).await;
    set.map(drop).map_err(|error| (ErrorCode::from(&error), error.to_string()))
}

async fn judge(context: &Context, update: &FeatureUpdateKey, version: i16) -> Result<(), Refusal> {
    let (name, level) = (update.feature.as_str(), update.max_version_level);
    let why = match name {
        _ if version >= 1 && !(1..=3).contains(&update.upgrade_type) => {
            "The controller does not support the given upgrade type.".to_owned()
        }
        _ if level < 0 => "A feature version cannot be less than 0.".to_owned(),
        VERSION_FEATURE => return set_level(context, update, true).await,
        METADATA_VERSION if level == METADATA_VERSION_MAX => return Ok(()),
        METADATA_VERSION if (METADATA_VERSION_MIN..METADATA_VERSION_MAX).contains(&level) => {
            format!("It is {METADATA_VERSION_MAX}, and changing it is not built.")
        }
        METADATA_VERSION => format!(
            "Local controller {} only supports versions {METADATA_VERSION_MIN}-{METADATA_VERSION_MAX}",
            context.node_id
        ),
        _ if level == 0 => format!("Feature {name} not found."),
        _ => format!("Local controller {} does not support this feature.", context.node_id),
    };
    let why = format!("Invalid update version {level} for feature {name}. {why}");
    Err((ErrorCode::InvalidUpdateVersion, why))
}
