//! One file per Kafka API, and the table that lists them.
//!
//! Invariants: a handler authorizes, checks, calls one owner, turns its errors into codes, builds the response; what
//! it must wait for, it returns as a future. What is not in the table is not served.
//! Absent: state (but the fetch sessions that KIP-227 asks for).

mod alter_configs;
mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod dispatch;
mod errors;
mod fetch;
mod fetch_sessions;
mod find_coordinator;
mod groups;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod offsets;
mod produce;
mod update_features;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

pub(crate) use dispatch::{KafkaService, RequestCounts};
pub(crate) use fetch_sessions::FetchSessions;

use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::metadata::Image;
use crate::model::BrokerId;
use crate::protocol::messages::BrokerId as WireBrokerId;
use crate::protocol::{StrBytes, text};
use crate::replication::Replicas;
use crate::security::{Authorizer, Operation, Principal, Resource};
use crate::system::Clock;
use crate::system::tasks::blocking;

/// The topic that holds committed offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// "Not asked for" in places where authorized operations stand.
const NO_OPERATIONS: i32 = i32::MIN;

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
    pub clock: Clock,
}

/// A request's surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub version: i16,
    pub client_id: Option<String>,
    pub address: SocketAddr,
    pub listener: Arc<str>,
}

/// A response now, later, or never.
pub(crate) enum Reply<R> {
    Now(R),
    /// `None` closes the connection.
    Later(Pin<Box<dyn Future<Output = Option<R>> + Send>>),
    /// `acks=0`.
    Nothing,
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

    /// Host and port that the caller can reach this broker at.
    fn endpoint(&self, call: &Call) -> (StrBytes, i32) {
        let (host, port) = self.advertised.get(&call.listener).cloned().unwrap_or_default();
        (text(host), port.into())
    }

    fn image(&self) -> Arc<Image> {
        self.controller.image()
    }
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
