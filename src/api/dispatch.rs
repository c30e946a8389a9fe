//! From a frame to a handler and from its response to bytes.

use std::sync::Arc;

use bytes::Bytes;
use prometheus::{Histogram, IntCounter};

use super::produce::ProduceCall;
use super::produce_aside::Aside;
use super::{
    Call, Context, Reply, alter_configs, alter_replica_log_dirs, api_versions, create_partitions,
    create_topics, delete_records, delete_topics, describe_cluster, describe_configs,
    describe_log_dirs, describe_producers, describe_quorum, describe_topic_partitions,
    elect_leaders, fetch, find_coordinator, groups, init_producer_id, list_config_resources,
    list_offsets, metadata, offset_for_leader_epoch, offsets, partition_reassignments, raft_voters,
    refused, unregister_broker, update_features,
};
use crate::metrics::{Metrics, Name};
use crate::model::Turn;
use crate::network::{Answer, Output, Peer, Service};
use crate::protocol::messages::{ConsumerGroupHeartbeatRequest, DescribeAclsRequest};
use crate::protocol::{
    ApiKey, Decodable, DecodeError, Encodable, RequestHead, SERVED, decode_counted, encode,
    key_number, parse_head, turn_of,
};
use crate::system::clock::{Instant, monotonic};
use crate::system::{Grant, Telling, wait_here};

/// The Kafka protocol behind a listener.
#[derive(Debug)]
pub(crate) struct KafkaService {
    pub context: Arc<Context>,
    pub counts: RequestCounts,
}

/// How often each API was asked for, and how long it took.
#[derive(Debug)]
pub(crate) struct RequestCounts {
    by_key: Vec<Option<(IntCounter, Histogram)>>,
    refused: Option<IntCounter>,
    /// Clients that ask for what is not served, and those that send what is no request.
    unserved: Telling,
    malformed: Telling,
}

impl RequestCounts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let last = SERVED.iter().map(|api| key_number(api.key)).max().unwrap_or(0);
        let measured = |key: i16| {
            let api = SERVED.iter().find(|api| key_number(api.key) == key)?;
            let counter = metrics.counter(Name::Requests, &[api.name])?;
            Some((counter, metrics.histogram(Name::RequestSeconds, &[api.name])?))
        };
        let refused = metrics.counter(Name::RefusedFrames, &[]);
        Self {
            by_key: (0..=last).map(measured).collect(),
            refused,
            unserved: Telling::default(),
            malformed: Telling::default(),
        }
    }

    /// Says why a connection is closed; now and then, however many they are.
    fn tell(&self, peer: &Peer, error: &DecodeError) {
        let telling = if error.is_not_served() { &self.unserved } else { &self.malformed };
        let Some(untold) = telling.turn() else { return };
        if error.is_not_served() {
            tracing::warn!(peer = %peer.address, %error, untold, "connection closed, as Apache Kafka does: the client is too old or too new, or needs what this broker has not");
        } else {
            tracing::info!(peer = %peer.address, %error, untold, "connection closed");
        }
    }

    fn of(&self, key: ApiKey) -> Option<&(IntCounter, Histogram)> {
        self.by_key.get(usize::try_from(key_number(key)).ok()?)?.as_ref()
    }

    fn count(&self, key: ApiKey) {
        if let Some((counter, _)) = self.of(key) {
            counter.inc();
        }
    }

    /// Notes when an answer is ready.
    fn time(&self, key: ApiKey, begun: Instant, answer: Answer) -> Answer {
        let Some((_, histogram)) = self.of(key) else { return answer };
        match answer {
            Answer::Later(output) => {
                let histogram = histogram.clone();
                Answer::Later(Box::pin(async move {
                    let output = output.await;
                    histogram.observe(begun.elapsed().as_secs_f64());
                    output
                }))
            }
            Answer::Now(_) | Answer::Nothing => {
                histogram.observe(begun.elapsed().as_secs_f64());
                answer
            }
            Answer::Close => answer,
        }
    }
}

impl Service for KafkaService {
    type Session = (Peer, Aside);

    fn open(&self, peer: Peer) -> Self::Session {
        (peer, Aside::default())
    }

    fn turn(&self, frame: &[u8]) -> Turn {
        turn_of(frame)
    }

    fn requests(&self, session: &mut Self::Session, frames: Vec<Bytes>) -> Vec<Answer> {
        let (peer, aside) = session;
        let begun = monotonic();
        let mut answers = Vec::with_capacity(frames.len());
        // Produce requests that follow one another are appended together.
        let mut produces = Vec::new();
        for frame in frames {
            match self.read(peer, frame, &mut produces) {
                Ok(None) => {}
                Ok(Some((head, call, body))) => {
                    self.produce(aside, &mut produces, &mut answers, begun);
                    let answer = self.or_close(peer, route(&self.context, &call, &head, body));
                    answers.push(self.counts.time(head.key, begun, answer));
                }
                Err(error) => {
                    self.produce(aside, &mut produces, &mut answers, begun);
                    answers.push(self.or_close(peer, Err(error)));
                }
            }
            if matches!(answers.last(), Some(Answer::Close)) {
                return answers;
            }
        }
        self.produce(aside, &mut produces, &mut answers, begun);
        answers
    }
}

impl KafkaService {
    /// Reads a frame's head. A produce request goes to `produces`, any other is returned.
    fn read(
        &self,
        peer: &Peer,
        mut frame: Bytes,
        produces: &mut Vec<(RequestHead, ProduceCall)>,
    ) -> Result<Option<(RequestHead, Call, Bytes)>, DecodeError> {
        let head = parse_head(&mut frame)?;
        self.counts.count(head.key);
        let call = Call {
            version: head.version,
            client_id: head.client_id.clone(),
            address: peer.address,
            listener: Arc::clone(&peer.listener),
            kept: Arc::clone(&peer.kept),
        };
        if head.key != ApiKey::Produce {
            return Ok(Some((head, call, frame)));
        }
        let (request, bytes) = decode_counted(&head, &mut frame)?;
        let kept = keep_decoded(&call, &head, bytes)?;
        produces.push((head, ProduceCall { call, request, _kept: kept }));
        Ok(None)
    }

    fn produce(
        &self,
        aside: &mut Aside,
        produces: &mut Vec<(RequestHead, ProduceCall)>,
        answers: &mut Vec<Answer>,
        begun: Instant,
    ) {
        if produces.is_empty() {
            return;
        }
        let (heads, calls): (Vec<_>, Vec<_>) = produces.drain(..).unzip();
        let replies = aside.handle(&self.context, calls);
        let answered = heads.iter().zip(replies).map(|(head, reply)| {
            let answer = reply_to(head, reply).unwrap_or_else(|error| {
                tracing::error!(%error, "response dropped");
                Answer::Close
            });
            self.counts.time(head.key, begun, answer)
        });
        answers.extend(answered);
    }

    fn or_close(&self, peer: &Peer, served: Result<Answer, DecodeError>) -> Answer {
        served.unwrap_or_else(|error| {
            self.counts.tell(peer, &error);
            if let Some(refused) = &self.counts.refused {
                refused.inc();
            }
            Answer::Close
        })
    }
}

/// Requests of so many bytes take some time to be taken apart, whatever they ask for: other tasks go on elsewhere meanwhile.
const LARGE_BYTES: usize = 64 << 10;

/// The table of handlers.
fn route(
    context: &Arc<Context>,
    call: &Call,
    head: &RequestHead,
    body: Bytes,
) -> Result<Answer, DecodeError> {
    match head.key {
        ApiKey::Fetch => fetch::handle(context, call, head, body),
        ApiKey::ListOffsets => {
            serve(call, head, body, |request| list_offsets::handle(context, call, request))
        }
        ApiKey::Metadata => {
            serve(call, head, body, |request| metadata::handle(context, call, request))
        }
        ApiKey::OffsetCommit => {
            serve(call, head, body, |request| offsets::commit(context, call, request))
        }
        ApiKey::OffsetFetch => {
            serve(call, head, body, |request| offsets::fetch(context, call, request))
        }
        ApiKey::FindCoordinator => {
            serve(call, head, body, |request| find_coordinator::handle(context, call, request))
        }
        ApiKey::JoinGroup => {
            serve(call, head, body, |request| groups::join(context, call, request))
        }
        ApiKey::Heartbeat => {
            serve(call, head, body, |request| groups::heartbeat(context, call, &request))
        }
        ApiKey::LeaveGroup => {
            serve(call, head, body, |request| groups::leave(context, call, request))
        }
        ApiKey::SyncGroup => {
            serve(call, head, body, |request| groups::sync(context, call, request))
        }
        ApiKey::DescribeGroups => {
            serve(call, head, body, |request| groups::describe(context, call, &request))
        }
        ApiKey::ListGroups => {
            serve(call, head, body, |request| groups::list(context, call, &request))
        }
        ApiKey::ApiVersions if head.is_future_api_versions => {
            Ok(Answer::Now(Output::bytes(encode(head, &api_versions::unsupported())?)))
        }
        ApiKey::ApiVersions => {
            serve(call, head, body, |request| api_versions::handle(context, call, &request))
        }
        _ => route_admin(context, call, head, body),
    }
}

/// The table's second half: administration.
fn route_admin(
    context: &Arc<Context>,
    call: &Call,
    head: &RequestHead,
    body: Bytes,
) -> Result<Answer, DecodeError> {
    match head.key {
        ApiKey::CreateTopics => {
            serve(call, head, body, |request| create_topics::handle(context, call, request))
        }
        ApiKey::DeleteTopics => {
            serve(call, head, body, |request| delete_topics::handle(context, call, request))
        }
        ApiKey::DeleteRecords => {
            serve(call, head, body, |request| delete_records::handle(context, call, request))
        }
        ApiKey::InitProducerId => {
            serve(call, head, body, |request| init_producer_id::handle(context, call, &request))
        }
        ApiKey::OffsetForLeaderEpoch => serve(call, head, body, |request| {
            offset_for_leader_epoch::handle(context, call, request)
        }),
        ApiKey::DescribeConfigs => {
            serve(call, head, body, |request| describe_configs::handle(context, call, request))
        }
        ApiKey::AlterConfigs => {
            serve(call, head, body, |request| alter_configs::replace(context, call, request))
        }
        ApiKey::DescribeLogDirs => {
            serve(call, head, body, |request| describe_log_dirs::handle(context, call, request))
        }
        ApiKey::CreatePartitions => {
            serve(call, head, body, |request| create_partitions::handle(context, call, request))
        }
        ApiKey::DeleteGroups => {
            serve(call, head, body, |request| groups::delete(context, call, request))
        }
        ApiKey::IncrementalAlterConfigs => {
            serve(call, head, body, |request| alter_configs::alter(context, call, request))
        }
        ApiKey::OffsetDelete => {
            serve(call, head, body, |request| offsets::delete(context, call, request))
        }
        ApiKey::DescribeProducers => {
            serve(call, head, body, |request| describe_producers::handle(context, call, request))
        }
        ApiKey::ListConfigResources => serve(call, head, body, |request| {
            list_config_resources::handle(context, call, &request)
        }),
        ApiKey::DescribeTopicPartitions => serve(call, head, body, |request| {
            describe_topic_partitions::handle(context, call, request)
        }),
        _ => route_cluster(context, call, head, body),
    }
}

/// The rest: nodes, voters, replicas.
fn route_cluster(
    context: &Arc<Context>,
    call: &Call,
    head: &RequestHead,
    body: Bytes,
) -> Result<Answer, DecodeError> {
    match head.key {
        ApiKey::DescribeQuorum => {
            serve(call, head, body, |request| describe_quorum::handle(context, call, request))
        }
        ApiKey::UpdateFeatures => {
            serve(call, head, body, |request| update_features::handle(context, call, request))
        }
        ApiKey::DescribeCluster => {
            serve(call, head, body, |request| describe_cluster::handle(context, call, &request))
        }
        ApiKey::ElectLeaders => {
            serve(call, head, body, |request| elect_leaders::handle(context, call, request))
        }
        ApiKey::AlterPartitionReassignments => serve(call, head, body, |request| {
            partition_reassignments::alter(context, call, request)
        }),
        ApiKey::ListPartitionReassignments => {
            serve(call, head, body, |request| partition_reassignments::list(context, call, request))
        }
        ApiKey::AlterReplicaLogDirs => serve(call, head, body, |request| {
            alter_replica_log_dirs::handle(context, call, request)
        }),
        ApiKey::AddRaftVoter => {
            serve(call, head, body, |request| raft_voters::add(context, call, request))
        }
        ApiKey::RemoveRaftVoter => {
            serve(call, head, body, |request| raft_voters::remove(context, call, request))
        }
        ApiKey::UnregisterBroker => {
            serve(call, head, body, |request| unregister_broker::handle(context, call, &request))
        }
        ApiKey::DescribeAcls => {
            serve(call, head, body, |_: DescribeAclsRequest| refused::describe_acls(context, call))
        }
        ApiKey::CreateAcls => {
            serve(call, head, body, |request| refused::create_acls(context, call, &request))
        }
        ApiKey::DeleteAcls => {
            serve(call, head, body, |request| refused::delete_acls(context, call, &request))
        }
        ApiKey::ConsumerGroupHeartbeat => {
            serve(call, head, body, |_: ConsumerGroupHeartbeatRequest| {
                refused::consumer_group_heartbeat()
            })
        }
        other => Err(DecodeError::NotServed {
            key: key_number(other),
            version: call.version,
            client_id: call.client_id.clone(),
        }),
    }
}

/// Decodes, calls the handler, encodes.
fn serve<Q, R>(
    call: &Call,
    head: &RequestHead,
    mut body: Bytes,
    handle: impl FnOnce(Q) -> Reply<R>,
) -> Result<Answer, DecodeError>
where
    Q: Decodable,
    R: Encodable + Send + 'static,
{
    let is_large = body.len() >= LARGE_BYTES;
    let serve = || {
        let (request, bytes) = decode_counted(head, &mut body)?;
        let kept = keep_decoded(call, head, bytes)?;
        let answer = reply_to(head, handle(request))?;
        Ok(match (answer, kept) {
            (Answer::Later(output), Some(kept)) => Answer::Later(Box::pin(kept.during(output))),
            (answer, _) => answer,
        })
    };
    if is_large { wait_here(serve) } else { serve() }
}

/// Counts what a request takes when it is decoded, where that is much.
fn keep_decoded(
    call: &Call,
    head: &RequestHead,
    bytes: usize,
) -> Result<Option<Grant>, DecodeError> {
    if bytes < LARGE_BYTES {
        return Ok(None);
    }
    let no_memory = || DecodeError::Malformed {
        key: key_number(head.key),
        version: head.version,
        why: format!(
            "no memory for its elements ({bytes} bytes) besides what is kept for its address"
        ),
    };
    call.kept.keep(bytes).map(Some).ok_or_else(no_memory)
}

/// Encodes what a handler replied.
fn reply_to<R: Encodable + Send + 'static>(
    head: &RequestHead,
    reply: Reply<R>,
) -> Result<Answer, DecodeError> {
    Ok(match reply {
        Reply::Now(response) => Answer::Now(Output::bytes(encode(head, &response)?)),
        Reply::Later(response) => {
            let head = head.clone();
            Answer::Later(Box::pin(async move {
                match encode(&head, &response.await?) {
                    Ok(bytes) => Some(Output::bytes(bytes)),
                    Err(error) => {
                        tracing::error!(%error, "response dropped");
                        None
                    }
                }
            }))
        }
        Reply::Nothing => Answer::Nothing,
        Reply::NothingLater(done) => {
            Answer::Later(Box::pin(async move { done.await.map(|()| Output::default()) }))
        }
        Reply::Close => Answer::Close,
    })
}
