//! DeleteTopics, by name or id.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Call, Context, Reply, is_internal};
use crate::error::ErrorCode;
use crate::metadata::Image;
use crate::model::TopicId;
use crate::protocol::messages::delete_topics_request::DeleteTopicState;
use crate::protocol::messages::delete_topics_response::DeletableTopicResult;
use crate::protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use crate::protocol::text;
use crate::security::{Operation, Resource};

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: DeleteTopicsRequest,
) -> Reply<DeleteTopicsResponse> {
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let by_name = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
        let wanted: Vec<DeleteTopicState> = if call.version >= 6 {
            request.topics
        } else {
            request.topic_names.into_iter().map(by_name).collect()
        };
        let meant = Meant::new(&context.image(), &wanted);
        let mut told = HashSet::new();
        let mut responses = Vec::with_capacity(wanted.len());
        for topic in wanted {
            match meant.doubt(&topic) {
                // What was asked twice is answered once.
                Doubt::Told => {}
                Doubt::Why(why) => {
                    if told.insert((topic.name.clone(), topic.topic_id)) {
                        responses.push(refused(&call, topic, why));
                    }
                }
                Doubt::None => responses.push(delete(&context, &call, topic).await),
            }
        }
        DeleteTopicsResponse::default().with_responses(responses)
    })
}

/// Whether it is certain which topic is meant: nothing is deleted where it is not.
enum Doubt {
    None,
    Why(&'static str),
    /// It is answered by another that means the same topic.
    Told,
}

/// What a request means: how often each name and each id stands in it, and the ids of what it names.
struct Meant {
    names: HashMap<TopicName, usize>,
    ids: HashMap<TopicId, usize>,
    found: HashMap<TopicName, TopicId>,
    found_ids: HashSet<TopicId>,
}

impl Meant {
    fn new(image: &Image, wanted: &[DeleteTopicState]) -> Self {
        let (mut names, mut ids, mut found) = (HashMap::new(), HashMap::new(), HashMap::new());
        for topic in wanted {
            match &topic.name {
                None => *ids.entry(topic.topic_id).or_insert(0) += 1,
                Some(name) if topic.topic_id.is_nil() => {
                    *names.entry(name.clone()).or_insert(0) += 1;
                    found.extend(image.topic(name).map(|topic| (name.clone(), topic.id)));
                }
                Some(_) => {}
            }
        }
        let found_ids = found.values().copied().collect();
        Self { names, ids, found, found_ids }
    }

    fn doubt(&self, topic: &DeleteTopicState) -> Doubt {
        let is_twice = |times: Option<&usize>| times.is_some_and(|times| *times > 1);
        match (&topic.name, topic.topic_id) {
            (None, id) if id.is_nil() => Doubt::Why("Neither topic name nor id were specified."),
            (Some(_), id) if !id.is_nil() => {
                Doubt::Why("You may not specify both topic name and topic id.")
            }
            (Some(name), _) if is_twice(self.names.get(name)) => {
                Doubt::Why("Duplicate topic name.")
            }
            (None, id) if is_twice(self.ids.get(&id)) => Doubt::Why("Duplicate topic id."),
            (Some(name), _) if self.found.get(name).is_some_and(|id| self.ids.contains_key(id)) => {
                Doubt::Why("The provided topic name maps to an ID that was already supplied.")
            }
            (None, id) if self.found_ids.contains(&id) => Doubt::Told,
            _ => Doubt::None,
        }
    }
}

fn refused(call: &Call, wanted: DeleteTopicState, why: &'static str) -> DeletableTopicResult {
    let mut result = DeletableTopicResult::default()
        .with_name(wanted.name)
        .with_error_code(ErrorCode::InvalidRequest.code());
    if call.version >= 6 {
        result.topic_id = wanted.topic_id;
    }
    if call.version >= 5 {
        result.error_message = Some(text(why));
    }
    result
}

async fn delete(context: &Context, call: &Call, wanted: DeleteTopicState) -> DeletableTopicResult {
    let image = context.image();
    let by_id = wanted.name.is_none();
    let found = match &wanted.name {
        Some(name) => image.topic(name),
        None => image.topic_by_id(wanted.topic_id),
    };
    let name = found.map_or(wanted.name.clone(), |topic| Some(TopicName(text(&*topic.name))));
    let code = match found {
        None if by_id => ErrorCode::UnknownTopicId,
        None => ErrorCode::UnknownTopicOrPartition,
        Some(topic) if !context.allows(call, Operation::Delete, Resource::Topic(&topic.name)) => {
            ErrorCode::TopicAuthorizationFailed
        }
        // Groups would be lost with it.
        Some(topic) if is_internal(&topic.name) => ErrorCode::InvalidTopicException,
        Some(_) if !context.controller.config().boolean("delete.topic.enable") => {
            ErrorCode::TopicDeletionDisabled
        }
        Some(topic) => match context.controller.delete_topic(topic.id).await {
            Ok(()) => ErrorCode::None,
            Err(error) => {
                tracing::warn!(topic = %topic.name, %error, "topic not deleted");
                ErrorCode::from(&error)
            }
        },
    };
    let mut result = DeletableTopicResult::default().with_name(name).with_error_code(code.code());
    if call.version >= 6 {
        result.topic_id = found.map_or(wanted.topic_id, |topic| topic.id);
    }
    if call.version >= 5 && !code.is_none() {
        result.error_message = Some(text(code.text()));
    }
    result
}
