//! What the modules take from the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, ConfigError, Endpoint, parse_address, parse_endpoints};
use crate::coordinator::GroupSettings;
use crate::model::BrokerId;
use crate::quorum::QuorumSettings;
use crate::replication::ReplicaSettings;

/// The addresses to listen on, and those that clients are told.
#[derive(Debug, Clone)]
pub(super) struct Listeners {
    pub listen: Vec<Endpoint>,
    /// Those of `controller.listener.names`.
    pub controller: Vec<Endpoint>,
    pub advertised: Vec<Endpoint>,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Roles {
    pub is_broker: bool,
    pub is_controller: bool,
}

pub(super) fn roles(config: &Config) -> Roles {
    let roles = config.list("process.roles");
    let has = |name: &str| roles.contains(&name);
    Roles { is_broker: has("broker"), is_controller: has("controller") }
}

/// Whether no other node is named anywhere.
pub(super) fn is_alone(config: &Config) -> bool {
    config.list("controller.quorum.voters").is_empty()
        && config.list("controller.quorum.bootstrap.servers").is_empty()
}

/// Checks what one row's check can't: values that must fit together.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let listeners = listeners(config)?;
    let (voters, roles) = (voters(config)?, roles(config));
    let id = config.int("node.id");
    let refused = |why: String| Err(ConfigError::Invalid(why));
    if !roles.is_broker && !roles.is_controller {
        return refused("process.roles names neither broker nor controller".to_owned());
    }
    if !roles.is_controller {
        if is_alone(config) {
            return refused(
                "process.roles is broker: controller.quorum.bootstrap.servers has to say where the controllers are"
                    .to_owned(),
            );
        }
        if voters.contains_key(&id) {
            return refused(format!(
                "controller.quorum.voters names this node ({id}), but process.roles does not say controller"
            ));
        }
        if !listeners.controller.is_empty() {
            return refused(
                "process.roles is broker, but listeners has one of controller.listener.names: only controllers listen there"
                    .to_owned(),
            );
        }
    } else if listeners.controller.is_empty() && (!is_alone(config) || !roles.is_broker) {
        return refused(
            "this node is a controller among others, but no listener of controller.listener.names is in listeners"
                .to_owned(),
        );
    }
    if roles.is_broker == listeners.listen.is_empty() {
        return refused(if roles.is_broker {
            "listeners names no address".to_owned()
        } else {
            "process.roles is controller, but listeners has one that is not of controller.listener.names".to_owned()
        });
    }
    inter_broker_listener(config)?;
    let (beat, session) =
        (config.long("broker.heartbeat.interval.ms"), config.long("broker.session.timeout.ms"));
    if beat * 2 > session {
        return Err(ConfigError::Invalid(format!(
            "broker.session.timeout.ms ({session}) is less than two of broker.heartbeat.interval.ms ({beat})"
        )));
    }
    if config.list("log.dirs").is_empty() {
        return Err(ConfigError::Invalid("log.dirs names no folder".to_owned()));
    }
    let (low, high) =
        (config.int("group.min.session.timeout.ms"), config.int("group.max.session.timeout.ms"));
    if low > high {
        return Err(ConfigError::Invalid(format!(
            "group.min.session.timeout.ms ({low}) is above group.max.session.timeout.ms ({high})"
        )));
    }
    Ok(())
}

/// The names of listeners that are for nodes only, as endpoints have them.
pub(super) fn controller_names(config: &Config) -> Vec<String> {
    config.list("controller.listener.names").iter().map(|name| name.to_ascii_uppercase()).collect()
}

/// The listener that followers fetch from.
pub(super) fn inter_broker_listener(config: &Config) -> Result<String, ConfigError> {
    let wanted = config.text("inter.broker.listener.name").to_ascii_uppercase();
    let listeners = listeners(config)?.listen;
    if wanted.is_empty() {
        return Ok(listeners.first().map(|first| first.name.clone()).unwrap_or_default());
    }
    if listeners.iter().any(|listener| listener.name == wanted) {
        return Ok(wanted);
    }
    Err(ConfigError::Invalid(format!(
        "inter.broker.listener.name is {wanted}, but listeners has no listener of that name for brokers and clients"
    )))
}

pub(super) fn listeners(config: &Config) -> Result<Listeners, ConfigError> {
    let names = controller_names(config);
    let (controller, listen): (Vec<Endpoint>, Vec<Endpoint>) =
        parse_endpoints(&config.list("listeners"))?
            .into_iter()
            .partition(|endpoint| names.contains(&endpoint.name));
    let advertised = parse_endpoints(&config.list("advertised.listeners"))?;
    for endpoint in &advertised {
        if !listen.iter().chain(&controller).any(|other| other.name == endpoint.name) {
            return Err(ConfigError::Invalid(format!(
                "advertised.listeners has {endpoint}, but listeners has no listener named {}",
                endpoint.name
            )));
        }
    }
    Ok(Listeners { listen, controller, advertised })
}

/// Voters and their addresses, as `1@host:port,2@host:port`; empty: this node is alone.
pub(super) fn voters(config: &Config) -> Result<BTreeMap<BrokerId, String>, ConfigError> {
    let mut voters = BTreeMap::new();
    for item in config.list("controller.quorum.voters") {
        let parsed = item.split_once('@').and_then(|(id, address)| {
            parse_address(address)?;
            Some((id.parse::<BrokerId>().ok()?, address.to_owned()))
        });
        let (id, address) = parsed.ok_or_else(|| {
            ConfigError::Invalid(format!(
                "controller.quorum.voters has '{item}', which is not of the form id@host:port"
            ))
        })?;
        if voters.insert(id, address).is_some() {
            return Err(ConfigError::Invalid(format!(
                "controller.quorum.voters names node {id} twice"
            )));
        }
    }
    Ok(voters)
}

pub(super) fn quorum(config: &Config) -> Result<QuorumSettings, ConfigError> {
    let node = config.int("node.id");
    let mut voters = voters(config)?;
    let known: Vec<String> =
        config.list("controller.quorum.bootstrap.servers").into_iter().map(str::to_owned).collect();
    if let Some(wrong) = known.iter().find(|address| parse_address(address).is_none()) {
        return Err(ConfigError::Invalid(format!(
            "controller.quorum.bootstrap.servers has '{wrong}', which is not of the form host:port"
        )));
    }
    let address = controller_address(config, voters.get(&node))?;
    if is_alone(config) {
        voters.insert(node, address.clone().unwrap_or_default());
    }
    let election_timeout_ms = config.long("controller.quorum.election.timeout.ms");
    let heartbeat_ms = election_timeout_ms / 6;
    Ok(QuorumSettings { node, voters, known, address, election_timeout_ms, heartbeat_ms })
}

/// Where other nodes find this node's controller listener: as the voters' list says, or as it is advertised.
fn controller_address(
    config: &Config,
    as_voter: Option<&String>,
) -> Result<Option<String>, ConfigError> {
    if as_voter.is_some() {
        return Ok(as_voter.cloned());
    }
    let listeners = listeners(config)?;
    let own = listeners.controller.first().filter(|_| roles(config).is_controller);
    Ok(own.map(|own| {
        let told = listeners.advertised.iter().find(|other| other.name == own.name).unwrap_or(own);
        format!("{}:{}", told.host, told.port)
    }))
}

pub(crate) fn replicas(config: &Config) -> ReplicaSettings {
    ReplicaSettings {
        directories: config.list("log.dirs").into_iter().map(PathBuf::from).collect(),
        node_id: config.int("node.id"),
        recovery_threads: config.size("num.recovery.threads.per.data.dir"),
        free_bytes_min: config.long("log.dirs.min.free.bytes").try_into().unwrap_or(0),
        retention_check_ms: config.long("log.retention.check.interval.ms"),
        producer_expiration_ms: config.long("producer.id.expiration.ms"),
        lag_max_ms: config.long("replica.lag.time.max.ms"),
        throttled_rates: (
            config.long("leader.replication.throttled.rate"),
            config.long("follower.replication.throttled.rate"),
            config.long("replica.alter.log.dirs.io.max.bytes.per.second"),
        ),
        tier_rates: (
            config.long("remote.log.manager.copy.max.bytes.per.second"),
            config.long("remote.log.manager.fetch.max.bytes.per.second"),
        ),
        cleaner_enabled: config.boolean("log.cleaner.enable"),
        cleaner_backoff_ms: config.long("log.cleaner.backoff.ms"),
        cleaner_buffer_bytes: config.long("log.cleaner.dedupe.buffer.size"),
        cleaner_bytes_per_second: config.double("log.cleaner.io.max.bytes.per.second"),
    }
}

pub(crate) fn groups(config: &Config) -> GroupSettings {
    GroupSettings {
        initial_delay_ms: config.long("group.initial.rebalance.delay.ms"),
        session_timeout_ms: (
            config.int("group.min.session.timeout.ms"),
            config.int("group.max.session.timeout.ms"),
        ),
        size_max: config.size("group.max.size"),
        metadata_bytes_max: config.size("offset.metadata.max.bytes"),
        retention_ms: config.long("offsets.retention.minutes").saturating_mul(60_000),
        retention_check_ms: config.long("offsets.retention.check.interval.ms"),
        topic_partitions: config.int("offsets.topic.num.partitions"),
        topic_segment_bytes: config.long("offsets.topic.segment.bytes"),
    }
}
