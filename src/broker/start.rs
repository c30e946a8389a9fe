//! A broker's life: start, serve, stop.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use super::error::BrokerError;
use super::publisher::{Follower, limits, topic_config};
use super::settings::{self, Listeners};
use crate::api::{Context, FetchSessions, KafkaService};
use crate::config::{Config, Endpoint};
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::metadata::{Image, MetadataStore};
use crate::model::TopicPartition;
use crate::network::{Budget, ConnectionLimits, ConnectionRules, Listening, listen};
use crate::replication::{PartitionSpec, Replicas};
use crate::security::AllowAll;
use crate::system::clock::{millis, monotonic, timeout_at};
use crate::system::tasks::{JoinHandle, blocking};
use crate::system::{Clock, Random, SharedDisk};

/// How long a stop waits for connections to end by themselves.
const DRAIN: Duration = Duration::from_secs(10);

/// A broker that is being served.
#[derive(Debug)]
pub struct Broker {
    pub context: Arc<Context>,
    pub limits: Arc<ConnectionLimits>,
    pub budget: Arc<Budget>,
    broker_epoch: i64,
    stopping: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
}

/// A broker and where it listens.
#[derive(Debug)]
pub struct Started {
    pub broker: Broker,
    pub listeners: Vec<Endpoint>,
}

impl Broker {
    /// Opens everything and serves.
    pub async fn start(
        config: Config,
        disk: SharedDisk,
        clock: Clock,
        random: Random,
    ) -> Result<Started, BrokerError> {
        settings::check(&config)?;
        let wanted = settings::listeners(&config)?;
        // The folders first: a second process on them must not take the ports of the first.
        let replicas = Replicas::open(&disk, settings::replicas(&config), clock.clone(), random.clone())?;
        let bound = bind(&wanted).await?;
        let limits_now = limits(&config);
        let connection_limits = ConnectionLimits::new(limits_now.0, limits_now.1, limits_now.2);
        let (controller, was_clean) = open_controller(&config, &disk, &replicas, &clock, &random)?;
        let follower = Arc::new(Follower {
            node_id: controller.node_id,
            replicas: Arc::clone(&replicas),
            controller: Arc::downgrade(&controller),
            limits: Arc::clone(&connection_limits),
            groups: OnceLock::new(),
        });
        controller.set_publisher(Arc::clone(&follower) as Arc<_>);
        let broker_epoch = controller.register_broker(was_clean)?;
        let dynamic = controller.config();
        replicas.set_settings(settings::replicas(&dynamic));
        let groups = Groups::new(
            settings::groups(&dynamic),
            Arc::clone(&replicas),
            Arc::clone(&controller),
            clock.clone(),
            random.clone(),
        );
        let _ = follower.groups.set(Arc::clone(&groups));
        let loading = Arc::clone(&groups);
        blocking(move || loading.load()).await;
        groups.start_timers();
        groups.start_expiry();
        replicas.start_maintenance();
        let context = Arc::new(Context {
            cluster_id: replicas.cluster_id.clone(),
            node_id: controller.node_id,
            rack: Some(dynamic.text("broker.rack").to_owned()).filter(|rack| !rack.is_empty()),
            advertised: advertised(&wanted, &bound),
            sessions: FetchSessions::new(dynamic.size("max.incremental.fetch.session.cache.slots"), random),
            replicas,
            controller,
            groups,
            authorizer: Arc::new(AllowAll),
            clock,
        });
        let budget = Budget::new(dynamic.size("queued.max.request.bytes"));
        let rules = ConnectionRules {
            frame_bytes_max: dynamic.size("socket.request.max.bytes"),
            idle: millis(dynamic.long("connections.max.idle.ms")),
            budget: Arc::clone(&budget),
        };
        let (stopping, stop) = watch::channel(false);
        let service = Arc::new(KafkaService { context: Arc::clone(&context) });
        let endpoints = bound.iter().map(|listening| listening.endpoint.clone()).collect();
        let serve = |listening: Listening| {
            listening.start(Arc::clone(&service), rules.clone(), Arc::clone(&connection_limits), stop.clone())
        };
        let listeners = bound.into_iter().map(serve).collect();
        let broker =
            Broker { context, limits: connection_limits, budget, broker_epoch, stopping, listeners };
        Ok(Started { broker, listeners: endpoints })
    }

    /// Answers what was asked, then closes everything.
    pub async fn stop(self) {
        let _ = self.stopping.send(true);
        let deadline = monotonic() + DRAIN;
        for listener in self.listeners {
            let _ = timeout_at(deadline, listener).await;
        }
        while self.limits.open() > 0 && monotonic() < deadline {
            crate::system::clock::sleep(Duration::from_millis(5)).await;
        }
        let (replicas, epoch) = (Arc::clone(&self.context.replicas), self.broker_epoch);
        blocking(move || replicas.stop(epoch)).await;
    }
}

async fn bind(wanted: &Listeners) -> Result<Vec<Listening>, BrokerError> {
    let mut bound = Vec::new();
    for endpoint in &wanted.listen {
        let failed =
            |error| BrokerError::Listen { address: endpoint.to_string(), setting: "listeners", error };
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
    let directory = replicas.directories().first().ok_or(crate::replication::StartError::NoneLeft)?;
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
fn advertised(wanted: &Listeners, bound: &[Listening]) -> HashMap<Arc<str>, (String, u16)> {
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
