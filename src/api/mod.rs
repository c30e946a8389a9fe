//! One file per Kafka API, and the table that lists them.
//!
//! Invariants: a handler authorizes, checks, calls one owner, turns its errors into codes, builds the response; what
//! it must wait for, it returns as a future. What is not in the table is not served.
//! Absent: state (but the fetch sessions that KIP-227 asks for).

mod alter_configs;
mod alter_replica_log_dirs;
mod api_versions;
mod create_partitions;
mod create_topics;
mod creation_rate;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod dispatch;
mod elect_leaders;
mod errors;
mod fetch;
mod fetch_answer;
mod fetch_remote;
mod fetch_sessions;
mod find_coordinator;
mod groups;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod offsets;
mod partition_reassignments;
mod produce;
mod produce_aside;
mod raft_voters;
mod refused;
mod unregister_broker;
mod update_features;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::Hash;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use creation_rate::CreationRate;
pub(crate) use dispatch::{KafkaService, RequestCounts};
pub(crate) use fetch_sessions::FetchSessions;

use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::error::ErrorCode;
use crate::metadata::{Image, PartitionImage};
use crate::model::{BrokerId, OFFSETS_TOPIC, PartitionId, TopicPartition};
use crate::protocol::FetchNode;
use crate::protocol::messages::BrokerId as WireBrokerId;
use crate::replication::{AckWaiter, PartitionHandle, Replicas};
use crate::security::{Authorizer, Operation, Principal, Resource};
use crate::system::clock::{Instant, millis, monotonic, timeout_at};
use crate::system::tasks::blocking;
use crate::system::{Account, Clock};

/// "Not asked for" in places where authorized operations stand.
const NO_OPERATIONS: i32 = i32::MIN;

/// How long whoever asks what a log holds waits for its flush: longer than a disk that works takes.
const OWN_FLUSH_WAIT: Duration = Duration::from_secs(5);

/// The longest that a request waits for what it asks for, whatever time it gives: then it is answered with what there is.
const WAIT_MAX: Duration = Duration::from_mins(5);

/// When a request that gives itself so many milliseconds is answered at the latest.
fn deadline(timeout_ms: i32) -> Instant {
    monotonic() + millis(timeout_ms.into()).min(WAIT_MAX)
}

/// What takes longer than this many elements do is done where nobody else's request waits for it: some 200 microseconds.
const MANY: usize = 200;

/// Topics that the controller is asked for at the same time by one request: it makes one entry of its log of them.
const TOGETHER: usize = 100;

/// Partitions that one request may make, and what is said of more, as by Apache Kafka.
const PARTITIONS_AT_ONCE_MAX: usize = 10_000;
const TOO_MANY_PARTITIONS: &str = "Excessively large number of partitions per request.";

/// Whatever is named more than once.
fn named_twice<K: Eq + Hash + Copy>(names: impl Iterator<Item = K>) -> HashSet<K> {
    let mut once = HashSet::new();
    names.filter(|name| !once.insert(*name)).collect()
}

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Context {
    pub cluster_id: String,
    pub node_id: BrokerId,
    pub rack: Option<String>,
    /// What clients of each listener are told.
    pub advertised: HashMap<Arc<str>, (String, u16)>,
    pub replicas: Arc<Replicas>,
    pub controller: Arc<Controller>,
    pub groups: Arc<Groups>,
    pub authorizer: Arc<dyn Authorizer>,
    pub sessions: FetchSessions,
    pub creations: CreationRate,
    pub clock: Clock,
}

/// A request's surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub version: i16,
    pub client_id: Option<String>,
    pub address: SocketAddr,
    pub listener: Arc<str>,
    /// What may be kept for its address besides its requests.
    pub kept: Arc<Account>,
}

/// A response now, later, or never.
pub(crate) enum Reply<R> {
    Now(R),
    /// `None` closes the connection.
    Later(Pin<Box<dyn Future<Output = Option<R>> + Send>>),
    /// `acks=0`.
    Nothing,
    /// The same once it is done; `None` closes the connection.
    NothingLater(Pin<Box<dyn Future<Output = Option<()>> + Send>>),
    Close,
}

impl<R: Send + 'static> Reply<R> {
    /// Replies when the future is done.
    fn later(response: impl Future<Output = R> + Send + 'static) -> Self {
        Reply::Later(Box::pin(async move { Some(response.await) }))
    }

    /// Runs work that blocks away from the connection's task; a panic in it closes the connection.
    fn blocking(work: impl FnOnce() -> R + Send + 'static) -> Self {
        Reply::Later(Box::pin(blocking(work)))
    }
}

impl Context {
    /// Whether the caller may do this.
    fn allows(&self, call: &Call, operation: Operation, resource: Resource<'_>) -> bool {
        self.authorizer.is_allowed(&Principal { address: call.address }, operation, resource)
    }

    fn image(&self) -> Arc<Image> {
        self.controller.image()
    }

    /// Host, port and rack of a live broker, as the caller can reach it.
    fn broker(&self, call: &Call, image: &Image, id: BrokerId) -> Option<FetchNode> {
        if id == self.node_id {
            let (host, port) = self.advertised.get(&call.listener).cloned()?;
            return Some(FetchNode { id, host, port: port.into(), rack: self.rack.clone() });
        }
        let broker = image.brokers.get(&id).filter(|broker| !broker.is_fenced)?;
        let endpoint = broker.endpoint(&call.listener)?;
        let (host, port) = (endpoint.host.clone(), endpoint.port.into());
        Some(FetchNode { id, host, port, rack: broker.rack.clone() })
    }

    /// Every live broker that the caller can reach.
    fn brokers(&self, call: &Call, image: &Image) -> Vec<FetchNode> {
        image.brokers.keys().filter_map(|id| self.broker(call, image, *id)).collect()
    }

    /// The controller where it is a live broker, else this one: any broker passes on what is for the controller.
    fn controller_id(&self, image: &Image) -> BrokerId {
        let id = self.controller.controller_id();
        let is_alive = image.brokers.get(&id).is_some_and(|broker| !broker.is_fenced);
        if is_alive { id } else { self.node_id }
    }

    /// A partition of this broker, or why there is none.
    fn partition(&self, name: &TopicPartition) -> Result<PartitionHandle, ErrorCode> {
        self.replicas.partition(name).ok_or_else(|| self.elsewhere(&name.topic, name.partition))
    }

    /// What has to be flushed here before it can be told where these logs end. What was acknowledged with `acks=1` counts.
    fn own_flushes<'a>(
        &self,
        partitions: impl Iterator<Item = (&'a str, PartitionId)>,
    ) -> Arc<AckWaiter> {
        let waiter = AckWaiter::new();
        for (topic, partition) in partitions {
            if let Some(handle) = self.replicas.partition(&TopicPartition::new(topic, partition)) {
                handle.wait_own_flush(&waiter);
            }
        }
        waiter
    }

    /// What a partition that is not here is answered with.
    fn elsewhere(&self, topic: &str, partition: PartitionId) -> ErrorCode {
        if self.exists(topic, partition) {
            ErrorCode::NotLeaderOrFollower
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    }

    /// Whether the cluster has a partition, here or elsewhere.
    fn exists(&self, topic: &str, partition: PartitionId) -> bool {
        let image = self.image();
        let partitions = image.topic(topic).map_or(0, |topic| topic.partitions.len());
        usize::try_from(partition).is_ok_and(|index| index < partitions)
    }

    /// How a partition is shown: its leader, an error where there is none, and replicas that are not there.
    fn shown(
        &self,
        image: &Image,
        topic: &str,
        index: PartitionId,
        found: &PartitionImage,
    ) -> Shown {
        let name = TopicPartition::new(topic, index);
        let is_here = found.leader == self.node_id;
        let has_failed = is_here && self.replicas.partition(&name).is_none_or(|p| !p.is_online());
        let is_alive =
            |id: &BrokerId| image.brokers.get(id).is_some_and(|broker| !broker.is_fenced);
        let is_led = found.leader >= 0 && !has_failed;
        let gone = |id: &&BrokerId| !is_alive(id) || (has_failed && **id == self.node_id);
        Shown {
            code: if is_led { ErrorCode::None } else { ErrorCode::LeaderNotAvailable },
            leader: if is_led { found.leader } else { -1 },
            offline: found.replicas.iter().filter(gone).copied().collect(),
        }
    }
}

/// Waits for flushes; not for ever: a disk that hangs leaves what was visible before.
async fn flushed(waiter: &AckWaiter) {
    if waiter.left() > 0 {
        let _ = timeout_at(monotonic() + OWN_FLUSH_WAIT, waiter.wait()).await;
    }
}

/// See `Context::shown`.
struct Shown {
    code: ErrorCode,
    leader: BrokerId,
    offline: Vec<BrokerId>,
}

/// Brokers as responses name them.
fn broker_ids(ids: &[BrokerId]) -> Vec<WireBrokerId> {
    ids.iter().map(|id| WireBrokerId(*id)).collect()
}

/// Whether a topic is the broker's own.
fn is_internal(name: &str) -> bool {
    name == OFFSETS_TOPIC
}

/// The bits of the operations that the caller may do (KIP-430).
fn authorized_operations(context: &Context, call: &Call, resource: Resource<'_>) -> i32 {
    use Operation::{
        Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs,
        IdempotentWrite, Read, Write,
    };
    let all: &[Operation] = match resource {
        Resource::Topic(_) => {
            &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs]
        }
        Resource::Group(_) => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
        Resource::Cluster => &[
            Create,
            Alter,
            Describe,
            ClusterAction,
            DescribeConfigs,
            AlterConfigs,
            IdempotentWrite,
        ],
    };
    let bit = |operation: &Operation| match operation {
        Read => 3,
        Write => 4,
        Create => 5,
        Delete => 6,
        Alter => 7,
        Describe => 8,
        ClusterAction => 9,
        DescribeConfigs => 10,
        AlterConfigs => 11,
        IdempotentWrite => 12,
    };
    let allowed = all.iter().filter(|operation| context.allows(call, **operation, resource));
    allowed.map(|operation| 1_i32 << bit(operation)).sum()
}
