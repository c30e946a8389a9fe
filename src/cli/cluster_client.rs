//! A small client of any Kafka-compatible cluster, for the commands.
//!
//! Invariants: a request goes out in the newest version that both sides know; an error names the address, topic or
//! group that it is about.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::secure::dialer;
use crate::error::ErrorCode;
use crate::network::client::FramedClient;
use crate::protocol::messages::metadata_request::MetadataRequestTopic;
use crate::protocol::messages::{
    ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName,
};
use crate::protocol::{Request, decode_response, encode_request, text};
use crate::system::clock::{monotonic, sleep, timeout_at};

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(40);

/// How often and how fast a coordinator that is not there yet is asked for again.
const COORDINATOR_TRIES: usize = 100;
pub(super) const COORDINATOR_PAUSE: Duration = Duration::from_millis(200);

/// One broker.
pub(super) struct Node {
    address: String,
    client: FramedClient,
    versions: HashMap<i16, (i16, i16)>,
    next_id: i32,
}

/// A cluster.
pub(super) struct Cluster {
    bootstrap: String,
    nodes: HashMap<i32, Node>,
    addresses: BTreeMap<i32, String>,
}

/// A topic as commands see it.
#[derive(Debug, Clone)]
pub(super) struct FoundTopic {
    pub name: String,
    /// Nil where the broker does not say it.
    pub id: uuid::Uuid,
    pub is_internal: bool,
    /// Leader, replicas, ISR by partition.
    pub partitions: BTreeMap<i32, (i32, Vec<i32>, Vec<i32>)>,
}

impl Node {
    pub(super) async fn connect(address: &str) -> anyhow::Result<Self> {
        let dialer = dialer();
        let connecting = FramedClient::dial(&*dialer, address);
        let client = timeout_at(monotonic() + Duration::from_secs(10), connecting)
            .await
            .map_err(|_| anyhow!("{address} does not answer"))?
            .with_context(|| format!("can't connect to {address}: is a broker running there?"))?;
        let mut node =
            Self { address: address.to_owned(), client, versions: HashMap::new(), next_id: 0 };
        let asked = node.exchange(0, &ApiVersionsRequest::default()).await?;
        check(asked.error_code, address)?;
        for api in asked.api_keys {
            node.versions.insert(api.api_key, (api.min_version, api.max_version));
        }
        Ok(node)
    }

    /// Sends a request in a version of at most `version_max`; returns the version and the response.
    pub(super) async fn call<R: Request>(
        &mut self,
        version_max: i16,
        request: &R,
    ) -> anyhow::Result<R::Response> {
        let version = self.version::<R>(version_max)?;
        self.exchange(version, request).await
    }

    /// The version that a request would go out in.
    pub(super) fn version<R: Request>(&self, version_max: i16) -> anyhow::Result<i16> {
        match self.versions.get(&R::KEY) {
            Some((low, high)) if *low <= version_max => Ok(version_max.min(*high)),
            _ => bail!("{} does not serve what this command needs (API {})", self.address, R::KEY),
        }
    }

    async fn exchange<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> anyhow::Result<R::Response> {
        let id = self.send(version, request).await?;
        self.receive::<R>(version, id).await
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a frame that was encoded before.
    pub(super) async fn send_frame(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        self.client.send(frame).await.with_context(|| self.address.clone())
    }

    /// Sends without waiting; returns the correlation id.
    pub(super) async fn send<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> anyhow::Result<i32> {
        self.next_id += 1;
        let frame = encode_request(version, self.next_id, request)?;
        self.client.send(&frame).await.with_context(|| self.address.clone())?;
        Ok(self.next_id)
    }

    pub(super) async fn receive<R: Request>(
        &mut self,
        version: i16,
        id: i32,
    ) -> anyhow::Result<R::Response> {
        let frame = timeout_at(monotonic() + ANSWER, self.client.receive())
            .await
            .map_err(|_| anyhow!("{} does not answer", self.address))?
            .with_context(|| self.address.clone())?;
        decode_response::<R>(version, id, frame).with_context(|| self.address.clone())
    }
}

impl Cluster {
    pub(super) async fn connect(bootstrap: &str) -> anyhow::Result<Self> {
        let mut last = anyhow!("no address in '{bootstrap}'");
        for address in bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match Node::connect(address).await {
                Ok(node) => {
                    let mut cluster = Self {
                        bootstrap: address.to_owned(),
                        nodes: HashMap::from([(-1, node)]),
                        addresses: BTreeMap::new(),
                    };
                    cluster.metadata(Some(Vec::new())).await?;
                    return Ok(cluster);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The same cluster over new connections.
    pub(super) async fn renewed(&self) -> anyhow::Result<Self> {
        Self::connect(&self.bootstrap).await
    }

    /// The broker that was named on the command line.
    pub(super) async fn any(&mut self) -> anyhow::Result<&mut Node> {
        self.node(-1).await
    }

    /// The broker of an id.
    pub(super) async fn node(&mut self, id: i32) -> anyhow::Result<&mut Node> {
        if !self.nodes.contains_key(&id) {
            let address = match self.addresses.get(&id) {
                Some(address) => address.clone(),
                None if id == -1 => self.bootstrap.clone(),
                None => bail!("broker {id} is not in the cluster's metadata"),
            };
            self.nodes.insert(id, Node::connect(&address).await?);
        }
        self.nodes.get_mut(&id).ok_or_else(|| anyhow!("broker {id} is gone"))
    }

    /// Metadata of some topics, or of all (`None`); never makes one.
    pub(super) async fn metadata(
        &mut self,
        topics: Option<Vec<String>>,
    ) -> anyhow::Result<MetadataResponse> {
        let topic =
            |name: String| MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        let request = MetadataRequest::default()
            .with_topics(topics.map(|names| names.into_iter().map(topic).collect()))
            .with_allow_auto_topic_creation(false);
        let response = self.any().await?.call(12, &request).await?;
        for broker in &response.brokers {
            self.addresses
                .insert(broker.node_id.0, format!("{}:{}", broker.host.as_str(), broker.port));
        }
        Ok(response)
    }

    /// Topics by name, or all; an unknown one is an error that says so.
    pub(super) async fn topics(
        &mut self,
        names: Option<Vec<String>>,
    ) -> anyhow::Result<Vec<FoundTopic>> {
        let response = self.metadata(names).await?;
        let mut found = Vec::new();
        for topic in response.topics {
            let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
            check(topic.error_code, &format!("topic {name}"))?;
            let ids = |ids: &[crate::protocol::messages::BrokerId]| {
                ids.iter().map(|id| id.0).collect::<Vec<_>>()
            };
            let partition =
                |p: crate::protocol::messages::metadata_response::MetadataResponsePartition| {
                    (p.partition_index, (p.leader_id.0, ids(&p.replica_nodes), ids(&p.isr_nodes)))
                };
            let partitions = topic.partitions.into_iter().map(partition).collect();
            let (id, is_internal) = (topic.topic_id, topic.is_internal);
            found.push(FoundTopic { name, id, is_internal, partitions });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// One topic that must be there.
    pub(super) async fn topic(&mut self, name: &str) -> anyhow::Result<FoundTopic> {
        let found = self.topics(Some(vec![name.to_owned()])).await?;
        found.into_iter().next().ok_or_else(|| anyhow!("topic {name} is not there"))
    }

    /// The broker that keeps a group.
    pub(super) async fn coordinator(&mut self, group: &str) -> anyhow::Result<&mut Node> {
        let request = FindCoordinatorRequest::default().with_key(text(group));
        let mut found = self.any().await?.call(3, &request).await?;
        // The topic that holds groups may be in the making.
        for _ in 0..COORDINATOR_TRIES {
            if !is_between_coordinators(found.error_code) {
                break;
            }
            sleep(COORDINATOR_PAUSE).await;
            found = self.any().await?.call(3, &request).await?;
        }
        check(found.error_code, &format!("group {group}"))?;
        self.addresses.insert(found.node_id.0, format!("{}:{}", found.host.as_str(), found.port));
        self.node(found.node_id.0).await
    }
}

/// Whether the group's coordinator is loading or moving: the same request will be served soon.
pub(super) fn is_between_coordinators(code: i16) -> bool {
    matches!(
        ErrorCode::of(code),
        Some(
            ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator
        )
    )
}

/// Turns a Kafka error code into an error that names what it is about.
pub(super) fn check(code: i16, about: &str) -> anyhow::Result<()> {
    if code == 0 {
        return Ok(());
    }
    match ErrorCode::of(code) {
        Some(error) => bail!("{about}: {error:?}: {}", error.text()),
        None => bail!("{about}: Kafka error {code}"),
    }
}

/// The same, with the broker's own words where it sent some.
pub(super) fn check_with(code: i16, message: Option<&str>, about: &str) -> anyhow::Result<()> {
    match message.filter(|text| code != 0 && !text.is_empty()) {
        Some(text) => bail!("{about}: {text}"),
        None => check(code, about),
    }
}
