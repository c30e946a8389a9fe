//! What the modules take from the configuration.

use std::path::PathBuf;

use crate::config::{Config, ConfigError, Endpoint, parse_endpoints};
use crate::coordinator::GroupSettings;
use crate::replication::ReplicaSettings;

/// The addresses to listen on, and those that clients are told.
#[derive(Debug, Clone)]
pub(super) struct Listeners {
    pub listen: Vec<Endpoint>,
    pub advertised: Vec<Endpoint>,
}

/// Checks what one row's check can't: values that must fit together.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    listeners(config)?;
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

pub(super) fn listeners(config: &Config) -> Result<Listeners, ConfigError> {
    let listen = parse_endpoints(&config.list("listeners"))?;
    if listen.is_empty() {
        return Err(ConfigError::Invalid("listeners names no address".to_owned()));
    }
    let advertised = parse_endpoints(&config.list("advertised.listeners"))?;
    for endpoint in &advertised {
        if !listen.iter().any(|other| other.name == endpoint.name) {
            return Err(ConfigError::Invalid(format!(
                "advertised.listeners has {endpoint}, but listeners has no listener named {}",
                endpoint.name
            )));
        }
    }
    Ok(Listeners { listen, advertised })
}

pub(crate) fn replicas(config: &Config) -> ReplicaSettings {
    ReplicaSettings {
        directories: config.list("log.dirs").into_iter().map(PathBuf::from).collect(),
        node_id: config.int("node.id"),
        recovery_threads: config.size("num.recovery.threads.per.data.dir"),
        free_bytes_min: config.long("log.dirs.min.free.bytes").try_into().unwrap_or(0),
        retention_check_ms: config.long("log.retention.check.interval.ms"),
        producer_expiration_ms: config.long("producer.id.expiration.ms"),
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
