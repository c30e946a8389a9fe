//! A broker's life: start, serve, stop.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::error::BrokerError;
use super::publisher::{Follower, limits, topic_config};
use super::settings::{self, Listeners};
use crate::api::{Context, FetchSessions, KafkaService, RequestCounts};
use crate::config::{Config, Endpoint};
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::http::{self, Http};
use crate::metadata::{Image, METADATA_FOLDER, MetadataStore, Publisher};
use crate::metrics::Metrics;
use crate::model::TopicPartition;
use crate::network::{Budget, ConnectionLimits, ConnectionRules, Listening, listen};
use crate::replication::{PartitionSpec, Replicas};
use crate::security::AllowAll;
use crate::system::clock::{millis, monotonic, timeout_at};
use crate::system::tasks::{JoinHandle, blocking};
use crate::system::{Clock, Random, SharedDisk};

/// Host and port that clients of each listener are told.
type Advertised = HashMap<Arc<str>, (String, u16)>;

/// How long a stop waits for connections to end by themselves.
const DRAIN: Duration = Duration::from_secs(10);

/// A broker that is being served.
#[derive(Debug)]
pub(crate) struct Broker {
    context: Arc<Context>,
    limits: Arc<ConnectionLimits>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    epoch: i64,
    stopping: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// A broker and where it listens.
#[derive(Debug)]
pub(crate) struct Started {
    pub broker: Broker,
    pub listeners: Vec<Endpoint>,
    pub http: Option<SocketAddr>,
}

impl Broker {
    /// Opens everything and serves.
    pub(crate) async fn start(
        config: Config,
        disk: SharedDisk,
        clock: Clock,
        random: Random,
    ) -> Result<Started, BrokerError> {
        settings::check(&config)?;
        let wanted = settings::listeners(&config)?;
        // The folders first: a second process on them must not take the ports of the first.
        let replicas =
            Replicas::open(&disk, settings::replicas(&config), clock.clone(), random.clone())?;
        let bound = bind(&wanted).await?;
        let http_address = config.text("http.listen").to_owned();
        let http = http::listen(&http_address).await.map_err(|error| BrokerError::Listen {
            address: http_address,
            setting: "http.listen",
            error,
        })?;
        let advertised = advertised(&wanted, &bound);
        let mut broker = Self::open(config, &disk, clock, random, (replicas, advertised)).await?;
        let listeners = bound.iter().map(|listening| listening.endpoint.clone()).collect();
        broker.serve(bound);
        let http = http.map(|listener| broker.serve_http(listener)).transpose()?;
        Ok(Started { broker, listeners, http })
    }

    /// Loads everything; nothing is listened to yet.
    pub(crate) async fn open(
        config: Config,
        disk: &SharedDisk,
        clock: Clock,
        random: Random,
        (replicas, advertised): (Arc<Replicas>, Advertised),
    ) -> Result<Self, BrokerError> {
        let limits = {
            let (open_max, per_address_max, rate_max) = limits(&config);
            ConnectionLimits::new(open_max, per_address_max, rate_max)
        };
        let (controller, was_clean) = open_controller(&config, disk, &replicas, &clock, &random)?;
        let follower = follow(&controller, &replicas, &limits);
        let epoch = controller.register_broker(was_clean)?;
        let config = controller.config();
        replicas.set_settings(settings::replicas(&config));
        let groups = start_groups(&controller, &replicas, &clock, &random).await;
        let _ = follower.groups.set(Arc::downgrade(&groups));
        replicas.start_maintenance();
        let slots = config.size("max.incremental.fetch.session.cache.slots");
        let context = Arc::new(Context {
            cluster_id: replicas.cluster_id.clone(),
            node_id: controller.node_id,
            rack: Some(config.text("broker.rack").to_owned()).filter(|rack| !rack.is_empty()),
            advertised,
            sessions: FetchSessions::new(slots, random),
            replicas,
            controller,
            groups,
            authorizer: Arc::new(AllowAll),
            clock,
        });
        Ok(Broker {
            context,
            limits,
            budget: Budget::new(config.size("queued.max.request.bytes")),
            metrics: Arc::new(Metrics::new()),
            epoch,
            stopping: watch::channel(false).0,
            tasks: Vec::new(),
        })
    }

    #[cfg(test)]
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// What stands behind a connection, and its bounds.
    pub(crate) fn service(&self) -> (Arc<KafkaService>, ConnectionRules) {
        let config = self.context.controller.config();
        let rules = ConnectionRules {
            frame_bytes_max: config.size("socket.request.max.bytes"),
            idle: millis(config.long("connections.max.idle.ms")),
            budget: Arc::clone(&self.budget),
        };
        let counts = RequestCounts::new(&self.metrics);
        (Arc::new(KafkaService { context: Arc::clone(&self.context), counts }), rules)
    }

    fn serve(&mut self, bound: Vec<Listening>) {
        let (service, rules) = self.service();
        for listening in bound {
            let (service, limits) = (Arc::clone(&service), Arc::clone(&self.limits));
            let stop = self.stopping.subscribe();
            self.tasks.push(listening.start(service, rules.clone(), limits, stop));
        }
    }

    fn serve_http(&mut self, listener: TcpListener) -> Result<SocketAddr, BrokerError> {
        let http = Arc::new(Http {
            context: Arc::clone(&self.context),
            limits: Arc::clone(&self.limits),
            budget: Arc::clone(&self.budget),
            metrics: Arc::clone(&self.metrics),
            stopping: self.stopping.subscribe(),
        });
        let (address, task) = http.start(listener).map_err(|error| BrokerError::Listen {
            address: String::new(),
            setting: "http.listen",
            error,
        })?;
        self.tasks.push(task);
        Ok(address)
    }

    /// Answers what was asked, then closes everything.
    pub(crate) async fn stop(self) {
        let _ = self.stopping.send(true);
        let deadline = monotonic() + DRAIN;
        for task in self.tasks {
            let _ = timeout_at(deadline, task).await;
        }
        while self.limits.open() > 0 && monotonic() < deadline {
            crate::system::clock::sleep(Duration::from_millis(5)).await;
        }
        let (replicas, epoch) = (Arc::clone(&self.context.replicas), self.epoch);
        blocking(move || replicas.stop(epoch)).await;
    }
}

fn follow(
    controller: &Arc<Controller>,
    replicas: &Arc<Replicas>,
    limits: &Arc<ConnectionLimits>,
) -> Arc<Follower> {
    let follower = Arc::new(Follower {
        node_id: controller.node_id,
        replicas: Arc::clone(replicas),
        controller: Arc::downgrade(controller),
        limits: Arc::clone(limits),
        groups: OnceLock::new(),
    });
    let publisher: Arc<dyn Publisher> = Arc::<Follower>::clone(&follower);
    controller.set_publisher(publisher);
    follower
}

async fn start_groups(
    controller: &Arc<Controller>,
    replicas: &Arc<Replicas>,
    clock: &Clock,
    random: &Random,
) -> Arc<Groups> {
    let settings = settings::groups(&controller.config());
    let (replicas, controller) = (Arc::clone(replicas), Arc::clone(controller));
    let groups = Groups::new(settings, replicas, controller, clock.clone(), random.clone());
    let loading = Arc::clone(&groups);
    blocking(move || loading.load()).await;
    groups.start_timers();
    groups.start_expiry();
    groups
}

async fn bind(wanted: &Listeners) -> Result<Vec<Listening>, BrokerError> {
    let mut bound = Vec::new();
    for endpoint in &wanted.listen {
        let failed = |error| BrokerError::Listen {
            address: endpoint.to_string(),
            setting: "listeners",
            error,
        };
        bound.push(listen(endpoint).await.map_err(failed)?);
    }
    Ok(bound)
}

fn open_controller(
    config: &Config,
    disk: &SharedDisk,
    replicas: &Arc<Replicas>,
    clock: &Clock,
    random: &Random,
) -> Result<(Arc<Controller>, bool), BrokerError> {
    let directory = replicas.metadata_directory(METADATA_FOLDER)?;
    let (store, image) = MetadataStore::open(disk, &directory.path, clock.now_ms())?;
    let controller = Controller::new(store, image, config.clone(), clock.clone(), random.clone());
    let was_clean = replicas.start(&specs(&controller.image(), &controller.config()))?;
    Ok((Arc::new(controller), was_clean))
}

/// The partitions that the metadata lists.
fn specs(image: &Image, config: &Config) -> Vec<PartitionSpec> {
    let mut specs = Vec::new();
    for topic in image.topics.values() {
        let config = topic_config(image, config, &topic.name);
        for (partition, found) in (0..).zip(&topic.partitions) {
            specs.push(PartitionSpec {
                name: TopicPartition { topic: Arc::clone(&topic.name), partition },
                topic_id: topic.id,
                leader_epoch: found.leader_epoch,
                config: Arc::clone(&config),
            });
        }
    }
    specs
}

/// What clients of each listener are told: the advertised address, or the listener's own.
fn advertised(wanted: &Listeners, bound: &[Listening]) -> Advertised {
    let tell = |listening: &Listening| {
        let own = &listening.endpoint;
        let told = wanted.advertised.iter().find(|other| other.name == own.name).unwrap_or(own);
        // Addresses that mean "all of them" are no use to a client.
        let host = match told.host.as_str() {
            "" | "0.0.0.0" | "::" => "localhost",
            host => host,
        };
        let port = if told.port == 0 { own.port } else { told.port };
        (Arc::from(own.name.as_str()), (host.to_owned(), port))
    };
    bound.iter().map(tell).collect()
}
