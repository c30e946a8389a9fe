//! A broker's life: start, serve, stop.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::capacity::{capacity, kept_bytes_max};
use super::check;
use super::error::BrokerError;
use super::fetcher::Fetchers;
use super::joining::cluster_of;
use super::membership::Membership;
use super::opening::{name_unopened, open_later, specs};
use super::publisher::{Follower, limits};
use super::secure::Wrappings;
use super::settings::{self, Listeners};
use super::tier::{open_tier, start_tier};
use crate::api::{Context, CreationRate, FetchSessions, KafkaService, RequestCounts};
use crate::config::{Config, Endpoint};
use crate::controller::{ActiveController, ClusterState, Controller, Registration};
use crate::coordinator::Groups;
use crate::http::{self, Hosts, Http};
use crate::metadata::{BrokerEndpoint, Publisher, level_max};
use crate::metrics::{Metrics, Name};
use crate::network::{
    ConnectionLimits, ConnectionRules, Dialer, Listening, TcpDialer, Tls, listen,
};
use crate::quorum::{
    Identity, LoadedQuorum, METADATA_FOLDER, PeerService, Peers, Quorum, QuorumStorage,
    StateMachine, VoterDisks,
};
use crate::replication::{Lease, Replicas, StartError};
use crate::security::AllowAll;
use crate::system::clock::{millis, monotonic, sleep, timeout_at};
use crate::system::life::{Life, Phase};
use crate::system::tasks::{Background, Yielding, blocking, cores, run_errand};
use crate::system::{Budgets, Clock, Random, SharedDisk, descriptors_max};

/// The largest message between nodes: a snapshot of the metadata.
const PEER_FRAME_BYTES_MAX: usize = 256 << 20;

/// Room that is kept for the metadata while there is some: for topics to be deleted, and for starts.
const METADATA_RESERVE_BYTES: u64 = 4 << 20;

/// Host and port that clients of each listener are told.
pub(crate) type Advertised = HashMap<Arc<str>, (String, u16)>;

/// How long a stop waits for connections to end by themselves.
const DRAIN: Duration = Duration::from_secs(10);
const FAILURE_CHECK: Duration = Duration::from_millis(100);
/// How long members of groups wait for one another when the broker stops.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a stop waits until others lead what this broker led.
const LEAVE: Duration = Duration::from_secs(10);
/// How long what was broken off may take to end.
const END: Duration = Duration::from_secs(5);
/// How long the disk may take to close the logs.
const CLOSE: Duration = Duration::from_secs(25);

/// A broker that is being served.
#[derive(Debug)]
pub(crate) struct Broker {
    context: Arc<Context>,
    limits: Arc<ConnectionLimits>,
    budgets: Budgets,
    metrics: Arc<Metrics>,
    /// `None`: this node is a controller only.
    membership: Option<Arc<Membership>>,
    quorum: Arc<Quorum>,
    tls: Option<Arc<Tls>>,
    /// The threads that serve clients.
    clients: Background,
    life: Life,
}

/// A broker and where it listens.
#[derive(Debug)]
pub(crate) struct Started {
    pub broker: Broker,
    pub listeners: Vec<Endpoint>,
    pub http: Option<SocketAddr>,
}

/// What a node is made of, before it takes part in anything.
pub(crate) struct Parts {
    pub config: Config,
    pub disk: SharedDisk,
    pub clock: Clock,
    pub random: Random,
    pub replicas: Arc<Replicas>,
    pub advertised: Advertised,
    pub peers: Arc<Peers>,
    /// What stands behind the controller listener.
    pub service: Arc<PeerService>,
    /// Room that is kept for the metadata.
    pub metadata_reserve_bytes: u64,
    /// Finds out whether an address is listened on.
    pub dialer: Dialer,
    /// Opens connections to other brokers.
    pub broker_dialer: Dialer,
}

impl Broker {
    /// Opens everything and serves.
    pub(crate) async fn start(
        config: Config,
        disk: SharedDisk,
        handles: (Clock, Random),
        life: &Life,
    ) -> Result<Started, BrokerError> {
        Box::pin(life.scope(Self::begin(life, config, disk, handles))).await
    }

    async fn begin(
        life: &Life,
        config: Config,
        disk: SharedDisk,
        (clock, random): (Clock, Random),
    ) -> Result<Started, BrokerError> {
        check(&config, &disk)?;
        let wanted = settings::listeners(&config)?;
        let wrappings = Wrappings::open(&config, &disk)?;
        let replica_settings = settings::replicas(&config);
        // A node that is alone takes its folders first: a second process on them must not take its ports.
        let early = if settings::is_alone(&config) {
            let lease = (Lease::endless(), None);
            Some(Replicas::open(
                &disk,
                replica_settings.clone(),
                (clock.clone(), random.clone()),
                lease,
            )?)
        } else {
            None
        };
        let controller_bound = bind(&wanted.controller).await?;
        let known = identity(&disk, &config, &random)?;
        let service = PeerService::new(known.clone());
        for listening in controller_bound {
            let rules = peer_rules();
            let limits = ConnectionLimits::new(descriptors_max() / 8, usize::MAX, usize::MAX);
            let (service, wrapping) =
                (Arc::clone(&service), wrappings.of(&listening.endpoint.name));
            listening.start(service, wrapping, rules, limits, life.stopping());
        }
        let (peers, cluster) = join(&config, known, wrappings.controller_dialer()).await?;
        let replicas = if let Some(replicas) = early {
            replicas
        } else {
            let lease = (Lease::none(), cluster);
            let handles = (clock.clone(), random.clone());
            Replicas::open(&disk, replica_settings, handles, lease)?
        };
        let peers = own_identity(&peers, &replicas);
        service.become_member(peers.identity.clone());
        let bound = bind(&wanted.listen).await?;
        let http_address = config.text("http.listen");
        let http = http::listen(http_address).await;
        let http = http.map_err(not_listening(http_address, "http.listen"))?;
        let advertised = advertised(&wanted, &bound);
        let broker_dialer = if settings::roles(&config).is_broker {
            wrappings.dialer(&settings::inter_broker_listener(&config)?)
        } else {
            Arc::new(TcpDialer)
        };
        let parts = Parts {
            config,
            disk,
            clock,
            random,
            replicas,
            advertised,
            peers,
            service,
            metadata_reserve_bytes: METADATA_RESERVE_BYTES,
            dialer: Arc::new(TcpDialer),
            broker_dialer,
        };
        let mut broker = Self::open(parts, life).await?;
        broker.tls = wrappings.certificates();
        let listeners = bound.iter().map(|listening| listening.endpoint.clone()).collect();
        broker.serve(bound, &wrappings).map_err(not_listening("", "listeners"))?;
        let http = http.map(|listener| broker.serve_http(listener)).transpose()?;
        Ok(Started { broker, listeners, http })
    }

    /// Opens the logs and joins the cluster; no client is listened to yet, and nothing is waited for that needs it.
    pub(crate) async fn open(parts: Parts, life: &Life) -> Result<Self, BrokerError> {
        life.scope(Self::open_parts(parts, life)).await
    }

    async fn open_parts(parts: Parts, life: &Life) -> Result<Self, BrokerError> {
        let limits = {
            let (open_max, per_address_max, rate_max) = limits(&parts.config);
            ConnectionLimits::new(open_max, per_address_max, rate_max)
        };
        let Joined { controller, quorum, groups, membership } =
            join_cluster(&parts, &limits).await?;
        let Parts { config, clock, random, replicas, advertised, .. } = parts;
        let rack = Some(config.text("broker.rack").to_owned()).filter(|rack| !rack.is_empty());
        let config = controller.config();
        replicas.set_settings(settings::replicas(&config));
        groups.begin_loading();
        let slots = config.size("max.incremental.fetch.session.cache.slots");
        let context = Arc::new(Context {
            cluster_id: replicas.cluster_id.clone(),
            node_id: controller.node_id,
            rack,
            advertised,
            sessions: FetchSessions::new(slots, random),
            creations: CreationRate::default(),
            replicas,
            controller,
            groups,
            authorizer: Arc::new(AllowAll),
            clock,
        });
        let metrics = Arc::new(Metrics::new());
        if let (Some(membership), Some(delays)) =
            (&membership, metrics.histogram(Name::HeartbeatSeconds, &[]))
        {
            membership.note_delays(delays);
        }
        Ok(Broker {
            context,
            limits,
            budgets: Budgets::new(config.size("queued.max.request.bytes"), kept_bytes_max(&config)),
            metrics,
            membership,
            quorum,
            tls: None,
            clients: Background::none(),
            life: life.clone(),
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
            budgets: self.budgets.clone(),
        };
        let counts = RequestCounts::new(&self.metrics);
        (Arc::new(KafkaService { context: Arc::clone(&self.context), counts }), rules)
    }

    /// Serves clients, on threads of their own: whatever they ask for, what this node has to do as one of a cluster goes on, and so does
    /// what operators ask.
    fn serve(&mut self, bound: Vec<Listening>, wrappings: &Wrappings) -> io::Result<()> {
        self.clients = Background::start("clients", cores(), Yielding::Nothing)?;
        let (service, rules) = self.service();
        for listening in bound {
            let (service, limits) = (Arc::clone(&service), Arc::clone(&self.limits));
            let stop = self.life.stopping();
            let wrapping = wrappings.of(&listening.endpoint.name);
            self.clients.within(|| {
                listening.moved()?.start(service, wrapping, rules.clone(), limits, stop);
                Ok::<(), io::Error>(())
            })?;
        }
        Ok(())
    }

    /// The names by which HTTP may be asked: those of the setting, and those that clients are told.
    fn hosts(&self) -> Arc<Hosts> {
        let config = self.context.controller.config();
        let allowed = config.list("http.allowed.hosts");
        let told = self.context.advertised.values().map(|(host, _)| host.as_str());
        Hosts::new(allowed.into_iter().chain(told))
    }

    fn serve_http(&self, listener: TcpListener) -> Result<SocketAddr, BrokerError> {
        let http = Arc::new(Http {
            context: Arc::clone(&self.context),
            limits: Arc::clone(&self.limits),
            budgets: self.budgets.clone(),
            metrics: Arc::clone(&self.metrics),
            scrapes: Arc::new(Semaphore::new(http::SCRAPES_MAX)),
            hosts: self.hosts(),
            stopping: self.life.stopping(),
        });
        http.start(listener).map_err(not_listening("", "http.listen"))
    }

    /// Waits until this node can't go on, and says why. A node that is alone goes on with whatever logs are left.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let (quorum, replicas) = (Arc::clone(&self.quorum), Arc::clone(&self.context.replicas));
        let ended = self.life.failed();
        async move {
            let left = async move {
                loop {
                    if quorum.has_others() {
                        if let Some(why) = quorum.failure() {
                            return format!("this node has left the quorum: {why}");
                        }
                        if replicas.have_all_failed() {
                            return "every log directory has failed".to_owned();
                        }
                    }
                    sleep(FAILURE_CHECK).await;
                }
            };
            tokio::select! {
                biased;
                why = ended => why,
                why = left => why,
            }
        }
    }

    /// Takes up what has changed outside: certificates.
    pub(crate) async fn reload(&self) {
        let Some(tls) = self.tls.clone() else { return };
        let _ = blocking(move || tls.reload()).await;
    }

    /// Answers what was asked, then closes everything. `Err`: something did not end in time, and the next start recovers.
    pub(crate) async fn stop(self) -> Result<(), String> {
        self.life.enter(Phase::Leaving);
        if let Some(membership) = self.membership.as_ref().filter(|_| self.quorum.has_others()) {
            membership.leave(LEAVE).await;
        }
        self.life.enter(Phase::Draining);
        let deadline = monotonic() + DRAIN;
        if let Err(names) = self.life.ended(deadline).await {
            tracing::warn!(names, "not ended yet");
        }
        let patience = monotonic() + SETTLE;
        while self.limits.open() > 0 && monotonic() < deadline {
            if monotonic() > patience {
                // What is left waits for other clients.
                self.context.groups.forget();
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.life.enter(Phase::Closing);
        // Whatever is still at work may change the logs: they are left as they are.
        self.life.ended(monotonic() + END).await.map_err(|names| format!("{names}: not ended"))?;
        if timeout_at(monotonic() + END, self.quorum.stop()).await.is_err() {
            return Err("the quorum did not end".to_owned());
        }
        let epoch = self.membership.as_ref().map_or(-1, |membership| membership.epoch());
        let replicas = Arc::clone(&self.context.replicas);
        let closed = blocking(move || replicas.stop(epoch));
        match timeout_at(monotonic() + CLOSE, closed).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err("closing the logs panicked".to_owned()),
            Err(_) => Err("the logs are not closed: the disk is too slow".to_owned()),
        }
    }
}

/// What a node is once it takes part.
struct Joined {
    controller: Arc<Controller>,
    quorum: Arc<Quorum>,
    groups: Arc<Groups>,
    membership: Option<Arc<Membership>>,
}

/// Loads the metadata, takes part in the quorum, registers, and takes on the roles that the metadata says.
async fn join_cluster(
    parts: &Parts,
    limits: &Arc<ConnectionLimits>,
) -> Result<Joined, BrokerError> {
    let Parts { config, disk, clock, random, replicas, peers, dialer, .. } = parts;
    let state = ClusterState::new(config.clone(), random);
    let directory = replicas.metadata_directory(METADATA_FOLDER)?;
    let reserve_bytes = parts.metadata_reserve_bytes;
    let storage = QuorumStorage::open_with(disk, &directory.path, reserve_bytes)?;
    let machine: Arc<dyn StateMachine> = Arc::<ClusterState>::clone(&state);
    let loaded = LoadedQuorum::load(storage, machine, settings::quorum(config)?)?;
    let clean_epoch = replicas.take_clean_marks()?;
    let disks: Arc<dyn VoterDisks> = Arc::<ClusterState>::clone(&state);
    let quorum = loaded.start(Arc::clone(peers), disks, random.clone()).await?;
    let awake = Arc::clone(replicas.awake());
    awake.keep_counting();
    let active = ActiveController::start(
        Arc::clone(&state),
        Arc::clone(&quorum),
        (Arc::clone(dialer), awake),
    );
    let controller = Arc::new(Controller::new(
        Arc::clone(&state),
        Arc::clone(&active),
        Arc::clone(&quorum),
        Arc::clone(peers),
        random.clone(),
    ));
    parts.service.open_for_all(Arc::clone(&quorum), Arc::new(active));
    observe(&controller, &quorum, peers);
    if !settings::roles(config).is_broker {
        let groups = start_groups(&controller, replicas, clock, random);
        return Ok(Joined { controller, quorum, groups, membership: None });
    }
    let inter_broker = settings::inter_broker_listener(config)?;
    let fetchers = {
        let (replicas, dialer) = (Arc::clone(replicas), Arc::clone(&parts.broker_dialer));
        Fetchers::new(replicas, clock.clone(), dialer, inter_broker.clone())
    };
    let groups = start_groups(&controller, replicas, clock, random);
    let follower = Follower {
        node_id: controller.node_id,
        replicas: Arc::clone(replicas),
        fetchers: Arc::clone(&fetchers),
        limits: Arc::clone(limits),
        groups: Arc::downgrade(&groups),
    };
    fetchers.begin(&controller);
    let registration = registration(parts, &inter_broker, clean_epoch);
    let parts = (Arc::clone(replicas), Arc::clone(&fetchers));
    let membership = Membership::new(Arc::clone(&controller), parts, registration);
    membership.register().await?;
    // Roles are taken from metadata that is current, not from what was current when this node stopped.
    let publisher: Arc<dyn Publisher> = Arc::new(follower);
    let tier = open_tier(config, disk, replicas)?;
    let opening = Arc::clone(replicas);
    let opened = blocking(move || {
        opening.start(&specs(&state.image(), &state.config()))?;
        state.set_publisher(publisher);
        Ok::<(), StartError>(())
    });
    opened.await.unwrap_or(Err(StartError::NoneLeft))?;
    name_unopened(replicas);
    replicas.start_maintenance();
    if let Some(tier) = tier {
        let parts = (replicas, &controller, &groups);
        start_tier(tier, config, parts, (clock.clone(), random.clone(), Arc::clone(disk)));
    }
    membership.begin().await;
    resume_moves(&controller, replicas);
    open_later(&controller, replicas);
    Ok(Joined { controller, quorum, groups, membership: Some(membership) })
}

/// Moves between log directories go on that the end of the process interrupted (KIP-113).
fn resume_moves(controller: &Arc<Controller>, replicas: &Arc<Replicas>) {
    for (name, path) in replicas.take_interrupted() {
        let Some(topic) = replicas.topic(&name.topic).map(|topic| topic.id) else { continue };
        let (controller, partition) = (Arc::clone(controller), name.partition);
        let done = move || controller.show_again(topic, partition);
        if let Err(error) = replicas.move_replica(&name, &path, done) {
            tracing::warn!(partition = %name, %error, "an interrupted move does not go on");
        }
    }
}

fn start_groups(
    controller: &Arc<Controller>,
    replicas: &Arc<Replicas>,
    clock: &Clock,
    random: &Random,
) -> Arc<Groups> {
    let settings = settings::groups(&controller.config());
    let (replicas, controller) = (Arc::clone(replicas), Arc::clone(controller));
    let groups = Groups::new(settings, replicas, controller, clock.clone(), random.clone());
    groups.start_timers();
    groups.start_expiry();
    groups
}

/// Who this node is, as far as its folders say.
fn identity(disk: &SharedDisk, config: &Config, random: &Random) -> Result<Identity, BrokerError> {
    let replica_settings = settings::replicas(config);
    let known = Replicas::peek(disk, &replica_settings)?;
    let (cluster, directory) = known.unzip();
    let directory = directory.unwrap_or_else(|| random.uuid());
    Ok(Identity { node: config.int("node.id"), directory, cluster })
}

/// Learns the cluster's id from the other voters, where the folders do not say it.
async fn join(
    config: &Config,
    known: Identity,
    dialer: Dialer,
) -> Result<(Arc<Peers>, Option<String>), BrokerError> {
    let quorum = settings::quorum(config)?;
    let cluster = known.cluster.clone();
    let peers = Peers::new(known, dialer);
    let has_others = quorum.voters.len() > 1 || !quorum.known.is_empty();
    let cluster = match cluster {
        None if has_others => cluster_of(&peers, &quorum).await,
        known => known,
    };
    Ok((peers, cluster))
}

/// The identity that the opened folders give.
fn own_identity(peers: &Peers, replicas: &Replicas) -> Arc<Peers> {
    let directory = replicas.metadata_directory(METADATA_FOLDER).map(|directory| directory.id);
    let identity = Identity {
        node: peers.identity.node,
        directory: directory.unwrap_or(peers.identity.directory),
        cluster: Some(replicas.cluster_id.clone()),
    };
    peers.renamed(identity)
}

/// An address that can't be listened on, and the setting that names it.
fn not_listening(
    address: &str,
    setting: &'static str,
) -> impl FnOnce(io::Error) -> BrokerError + use<> {
    let address = address.to_owned();
    move |error| BrokerError::Listen { address, setting, error }
}

fn peer_rules() -> ConnectionRules {
    ConnectionRules {
        frame_bytes_max: PEER_FRAME_BYTES_MAX,
        idle: Duration::from_mins(10),
        budgets: Budgets::new(4 * PEER_FRAME_BYTES_MAX, 16 * PEER_FRAME_BYTES_MAX),
    }
}

/// What this broker tells the controller of itself.
fn registration(parts: &Parts, inter_broker: &str, clean_epoch: Option<i64>) -> Registration {
    let Parts { config, replicas, advertised, random, .. } = parts;
    let endpoint = |(listener, (host, port)): (&Arc<str>, &(String, u16))| BrokerEndpoint {
        listener: listener.to_string(),
        host: host.clone(),
        port: *port,
    };
    let mut endpoints: Vec<BrokerEndpoint> = advertised.iter().map(endpoint).collect();
    // The one that other brokers use is the first.
    endpoints.sort_by_key(|e| (e.listener != inter_broker, e.listener.clone()));
    Registration {
        broker: config.int("node.id"),
        incarnation: random.uuid(),
        endpoints,
        rack: Some(config.text("broker.rack").to_owned()).filter(|rack| !rack.is_empty()),
        directories: replicas.directories().iter().map(|directory| directory.id).collect(),
        is_incomplete: replicas.has_left_out(),
        clean_epoch,
        level_max: level_max(),
        capacity: Some(capacity(config, replicas)),
    }
}

/// A controller shows the others which disk its vote lies on.
fn observe(controller: &Arc<Controller>, quorum: &Quorum, peers: &Peers) {
    let Some(address) = quorum.settings().address.clone() else { return };
    let (controller, directory) = (Arc::clone(controller), peers.identity.directory);
    run_errand("telling of a voter's disk", async move {
        controller.observe(directory, address).await;
    });
}

async fn bind(wanted: &[Endpoint]) -> Result<Vec<Listening>, BrokerError> {
    let mut bound = Vec::new();
    for endpoint in wanted {
        let failed = not_listening(&endpoint.to_string(), "listeners");
        bound.push(listen(endpoint).await.map_err(failed)?);
    }
    Ok(bound)
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
