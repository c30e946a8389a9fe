//! Metadata: who is there, what there is; makes topics on demand.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::join_all;

use super::creation_rate::Rates;
use super::{
    Call, Context, MANY, NO_OPERATIONS, Reply, TOGETHER, authorized_operations, broker_ids,
    is_internal,
};
use crate::controller::{ControllerError, NewTopic};
use crate::error::ErrorCode;
use crate::metadata::{Image, PartitionImage, TopicImage};
use crate::model::validate_topic_name;
use crate::protocol::messages::metadata_request::MetadataRequestTopic;
use crate::protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use crate::protocol::text;
use crate::security::{Operation, Resource};
use crate::system::clock::uptime_ms;
use crate::system::tasks::blocking;

pub(super) fn handle(
    context: &Arc<Context>,
    call: &Call,
    request: MetadataRequest,
) -> Reply<MetadataResponse> {
    if call.version < 12 && request.topics.iter().flatten().any(|topic| !is_named(topic)) {
        return Reply::Now(refuse(context, call, &request));
    }
    if elements(&context.image(), &request) > MANY {
        let (context, call) = (Arc::clone(context), call.clone());
        return Reply::Later(Box::pin(respond_elsewhere(context, call, request)));
    }
    let missing = missing(context, call, &request);
    if missing.is_empty() {
        return Reply::Now(respond(context, call, &request, &HashSet::new()));
    }
    let (context, call) = (Arc::clone(context), call.clone());
    Reply::later(async move {
        let waiting = create_all(&context, &call, missing).await;
        respond(&context, &call, &request, &waiting)
    })
}

/// About how many topics and partitions an answer is about.
fn elements(image: &Image, request: &MetadataRequest) -> usize {
    match &request.topics {
        Some(topics) if topics.len() > MANY => topics.len(),
        Some(topics) if !topics.is_empty() => topics
            .iter()
            .filter_map(|topic| find(image, topic).ok())
            .map(|topic| 1 + topic.partitions.len())
            .sum(),
        _ => image.topics.values().map(|topic| 1 + topic.partitions.len()).sum(),
    }
}

/// The answer to a request about so much that others would wait for it.
async fn respond_elsewhere(
    context: Arc<Context>,
    call: Call,
    request: MetadataRequest,
) -> Option<MetadataResponse> {
    let (context_there, call_there) = (Arc::clone(&context), call.clone());
    let (request, missing) = blocking(move || {
        let missing = missing(&context_there, &call_there, &request);
        (request, missing)
    })
    .await?;
    let waiting = create_all(&context, &call, missing).await;
    blocking(move || respond(&context, &call, &request, &waiting)).await
}

/// Topics that are asked for, are not there, and may be made; each once.
fn missing(context: &Context, call: &Call, request: &MetadataRequest) -> Vec<String> {
    let allowed = call.version < 4 || request.allow_auto_topic_creation;
    if !allowed || !context.controller.config().boolean("auto.create.topics.enable") {
        return Vec::new();
    }
    let image = context.image();
    let mut seen = HashSet::new();
    let wanted = request.topics.iter().flatten().filter(|topic| is_named(topic));
    wanted
        .filter_map(|topic| topic.name.as_ref())
        .filter(|name| image.topic(name).is_none() && validate_topic_name(name).is_ok())
        .filter(|name| seen.insert(name.as_str()))
        .filter(|name| context.allows(call, Operation::Create, Resource::Topic(name)))
        .map(|name| name.to_string())
        .collect()
}

/// Makes topics, as fast as their number allows; those that have to wait for their turn.
async fn create_all(context: &Context, call: &Call, missing: Vec<String>) -> HashSet<String> {
    let config = context.controller.config();
    let rates = Rates {
        by_address: config.long("max.auto.create.topics.rate.per.ip"),
        in_all: config.long("max.auto.create.topics.rate"),
    };
    // What groups need is made once, and not by the wish of a client.
    let is_due = |name: &String| {
        is_internal(name) || context.creations.take(call.address.ip(), uptime_ms(), rates)
    };
    let (due, waiting): (Vec<String>, Vec<String>) = missing.into_iter().partition(is_due);
    if let Some(first) = waiting.first() {
        let (count, peer) = (waiting.len(), call.address);
        tracing::debug!(count, first, %peer, "topics are asked for too fast to be made on demand: they wait");
    }
    for some in due.chunks(TOGETHER) {
        join_all(some.iter().map(|name| create(context, name.clone()))).await;
    }
    waiting.into_iter().collect()
}

/// Makes a topic with the broker's defaults.
async fn create(context: &Context, name: String) {
    let topic = if is_internal(&name) {
        context.groups.offsets_topic()
    } else {
        NewTopic { name, partitions: -1, replication_factor: -1, ..NewTopic::default() }
    };
    match context.controller.create_topic(&topic, false).await {
        Ok(_) => tracing::info!(topic = topic.name, "topic made on demand"),
        Err(ControllerError::TopicExists(_)) => {}
        Err(error) => tracing::warn!(topic = topic.name, %error, "topic not made"),
    }
}

/// `waiting`: topics that are made once it is their turn. LEADER_NOT_AVAILABLE is what every client asks again after.
fn respond(
    context: &Context,
    call: &Call,
    request: &MetadataRequest,
    waiting: &HashSet<String>,
) -> MetadataResponse {
    let image = context.image();
    let operations = request.include_topic_authorized_operations;
    let is_visible = |name: &str| context.allows(call, Operation::Describe, Resource::Topic(name));
    let is_waiting = |wanted: &MetadataRequestTopic| {
        wanted.name.as_ref().is_some_and(|name| waiting.contains(name.as_str()))
    };
    let is_all = match &request.topics {
        None => true,
        Some(topics) => call.version == 0 && topics.is_empty(),
    };
    let topics = if is_all {
        let visible = image.topics.values().filter(|topic| is_visible(&topic.name));
        visible.map(|topic| describe((context, call, &image), topic, operations)).collect()
    } else {
        // Who asks for the same topic twice is told of it once, as by Apache Kafka.
        let mut seen = HashSet::new();
        let wanted = request.topics.iter().flatten();
        wanted
            .filter(|wanted| seen.insert((wanted.topic_id, wanted.name.as_deref())))
            .map(|wanted| match find(&image, wanted) {
                Ok(topic) if is_visible(&topic.name) => {
                    describe((context, call, &image), topic, operations)
                }
                Ok(_) => unknown(call, wanted, ErrorCode::TopicAuthorizationFailed),
                Err(ErrorCode::UnknownTopicOrPartition) if is_waiting(wanted) => {
                    unknown(call, wanted, ErrorCode::LeaderNotAvailable)
                }
                Err(code) => unknown(call, wanted, code),
            })
            .collect()
    };
    let mut response = frame(context, call, &image, topics);
    if (8..=10).contains(&call.version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations =
            authorized_operations(context, call, Resource::Cluster);
    }
    response
}

/// What stands around the topics.
fn frame(
    context: &Context,
    call: &Call,
    image: &Image,
    topics: Vec<MetadataResponseTopic>,
) -> MetadataResponse {
    let brokers = context.brokers(call, image).into_iter().map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.id))
            .with_host(text(broker.host))
            .with_port(broker.port)
            .with_rack(broker.rack.map(text).filter(|_| call.version >= 1))
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(context.cluster_id.as_str())).filter(|_| call.version >= 2))
        .with_controller_id(BrokerId(context.controller_id(image)))
        .with_topics(topics)
}

/// Whether a topic is asked for by its name: an id decides wherever there is one, whatever stands in the name's place.
fn is_named(wanted: &MetadataRequestTopic) -> bool {
    wanted.topic_id.is_nil() && wanted.name.is_some()
}

/// Versions before 12 have a place for ids, but are not asked by them (KIP-516).
fn refuse(context: &Context, call: &Call, request: &MetadataRequest) -> MetadataResponse {
    let wanted = request.topics.iter().flatten();
    let refused = wanted.map(|wanted| unknown(call, wanted, ErrorCode::InvalidRequest)).collect();
    frame(context, call, &context.image(), refused)
}

fn find<'a>(
    image: &'a Image,
    wanted: &MetadataRequestTopic,
) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    if !wanted.topic_id.is_nil() {
        return image.topic_by_id(wanted.topic_id).ok_or(ErrorCode::UnknownTopicId);
    }
    let name = wanted.name.as_ref().ok_or(ErrorCode::InvalidRequest)?;
    validate_topic_name(name).map_err(|_| ErrorCode::InvalidTopicException)?;
    image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn unknown(call: &Call, wanted: &MetadataRequestTopic, code: ErrorCode) -> MetadataResponseTopic {
    let mut topic = MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(wanted.name.clone().filter(|_| call.version < 12 || is_named(wanted)))
        .with_topic_authorized_operations(NO_OPERATIONS);
    if call.version >= 10 {
        topic.topic_id = wanted.topic_id;
    }
    if call.version < 12 && topic.name.is_none() {
        topic.name = Some(TopicName::default());
    }
    topic
}

fn describe(
    (context, call, image): (&Context, &Call, &Image),
    topic: &TopicImage,
    operations: bool,
) -> MetadataResponseTopic {
    let mut described = MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&*topic.name))))
        .with_is_internal(is_internal(&topic.name))
        .with_topic_authorized_operations(NO_OPERATIONS);
    if call.version >= 10 {
        described.topic_id = topic.id;
    }
    if call.version >= 8 && operations {
        described.topic_authorized_operations =
            authorized_operations(context, call, Resource::Topic(&topic.name));
    }
    let partition = |(index, found): (i32, &PartitionImage)| {
        let shown = context.shown(image, &topic.name, index, found);
        let mut partition = MetadataResponsePartition::default()
            .with_error_code(shown.code.code())
            .with_partition_index(index)
            .with_leader_id(BrokerId(shown.leader))
            .with_replica_nodes(broker_ids(&found.replicas))
            .with_isr_nodes(broker_ids(&found.isr));
        if call.version >= 7 {
            partition.leader_epoch = found.leader_epoch;
        }
        if call.version >= 5 {
            partition.offline_replicas = broker_ids(&shown.offline);
        }
        partition
    };
    described.partitions = (0..).zip(&topic.partitions).map(partition).collect();
    described
}
