//! Opens the object storage that the settings name, and lets nothing be copied to it before it is proven.
//!
//! Invariants: a bucket that does not answer keeps no broker from starting; one that can't be trusted (no conditional puts, other
//! bytes than were written) gets nothing.

use std::path::Path;
use std::sync::Arc;

use super::backup::Backup;
use super::error::BrokerError;
use crate::config::{Config, ConfigError};
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::objects::{CLOCKS, Location, Store, check, open};
use crate::remote_log::{Keys, Tier};
use crate::replication::{Replicas, TierSettings};
use crate::system::clock::{millis, sleep};
use crate::system::disk::read_file;
use crate::system::tasks::{Background, Yielding, blocking, spawn};
use crate::system::{Clock, Random, SharedDisk};

/// Threads that wait for the store and work on what comes, of either kind; reading files of logs has its own.
const THREADS: usize = 2;
const KEYS: &str = "remote.storage.encryption.keys";
/// How long after a bucket failed its first check it is checked again; then twice as long, up to the most.
const CHECK_AGAIN_MS: i64 = 500;
const CHECK_AGAIN_MS_MAX: i64 = 5_000;

/// Opens the store, if one is named, and gives it to the partitions that are about to be opened.
pub(super) fn open_tier(
    config: &Config,
    disk: &SharedDisk,
    replicas: &Replicas,
) -> Result<Option<Store>, BrokerError> {
    let Some(mut location) = location(config)? else { return Ok(None) };
    let mut open_with = |how| {
        location.background = Background::start("tier", THREADS, how)
            .map_err(|e| ConfigError::Invalid(format!("no threads for object storage: {e}")))?;
        open_at(&location, disk)
    };
    let (store, idle) = (open_with(Yielding::Nice)?, open_with(Yielding::Idle)?);
    let cache_bytes = u64::try_from(config.long("remote.fetch.cache.bytes")).unwrap_or(0);
    let tier = Tier::with_idle((store.clone(), idle), cache_bytes);
    if let Some(text) = read_keys(config, disk)? {
        tier.keyring.set(keys(config, &text)?);
    }
    replicas.set_tier(tier);
    Ok(Some(store))
}

/// The file of keys, if one is named.
fn read_keys(config: &Config, disk: &SharedDisk) -> Result<Option<String>, ConfigError> {
    let path = config.text(KEYS);
    if path.is_empty() {
        return Ok(None);
    }
    let read = read_file(&**disk, Path::new(&path));
    let read = read.map_err(|error| ConfigError::Invalid(format!("{KEYS}: {path}: {error}")))?;
    Ok(Some(String::from_utf8_lossy(&read).into_owned()))
}

fn keys(config: &Config, text: &str) -> Result<Keys, ConfigError> {
    let path = config.text(KEYS);
    Keys::parse(text).map_err(|reason| ConfigError::Invalid(format!("{KEYS}: {path}: {reason}")))
}

/// Takes on keys that were changed, over and over: a wrong file changes nothing.
async fn watch_keys(tier: Arc<Tier>, config: Config, disk: SharedDisk, interval_ms: i64) {
    let mut known = read_keys(&config, &disk).ok().flatten();
    loop {
        sleep(millis(interval_ms)).await;
        let (at, of) = (config.clone(), Arc::clone(&disk));
        let read = blocking(move || read_keys(&at, &of)).await.unwrap_or(Ok(None));
        let changed = read.map(|text| text.filter(|text| known.as_ref() != Some(text)));
        let taken = changed.and_then(|text| {
            let Some(text) = text else { return Ok(()) };
            tier.keyring.set(keys(&config, &text)?);
            tracing::info!(keys = ?tier.keyring, "keys of object storage read anew");
            known = Some(text);
            Ok(())
        });
        if let Err(error) = taken {
            tracing::error!(%error, "keys of object storage not read anew: those that were read before count");
        }
    }
}

/// Checks what the settings say, without asking the store.
pub(super) fn check_tier(config: &Config, disk: &SharedDisk) -> Result<(), BrokerError> {
    let Some(location) = location(config)? else { return Ok(()) };
    if let Some(text) = read_keys(config, disk)? {
        keys(config, &text)?;
    }
    open_at(&location, disk).map(drop)
}

fn open_at(location: &Location, disk: &SharedDisk) -> Result<Store, BrokerError> {
    let opened = open(location, disk);
    Ok(opened.map_err(|error| ConfigError::Invalid(format!("remote.storage.url: {error}")))?)
}

/// Proves the bucket, and then looks after tiered partitions.
pub(super) fn start_tier(
    store: Store,
    config: &Config,
    (replicas, controller, groups): (&Arc<Replicas>, &Arc<Controller>, &Arc<Groups>),
    (clock, random, disk): (Clock, Random, SharedDisk),
) {
    let settings = TierSettings {
        interval_ms: config.long("remote.log.manager.task.interval.ms"),
        copiers: config.size("remote.log.manager.copier.thread.pool.size"),
    };
    let replicas = Arc::clone(replicas);
    let Some(tier) = replicas.tier() else { return };
    if !config.text(KEYS).is_empty() {
        spawn(watch_keys(Arc::clone(&tier), config.clone(), disk, settings.interval_ms));
    }
    let backup = Backup::new(tier, controller, groups, replicas.cluster_id.clone());
    spawn(async move {
        let mut again_ms = CHECK_AGAIN_MS;
        loop {
            let findings = check(&store, &clock, &random).await;
            // A wrong clock is the store's to refuse: nothing here rests on it.
            let wrong = findings.iter().filter(|finding| finding.what != CLOCKS);
            let wrong = wrong.into_iter().find_map(|f| Some((f.what, f.wrong.as_ref()?)));
            let Some((what, why)) = wrong else { break };
            tracing::error!(%store, what, %why, "object storage can't be trusted: nothing is copied (strandline tier check tells all)");
            sleep(millis(again_ms)).await;
            again_ms = (again_ms * 2).min(CHECK_AGAIN_MS_MAX);
        }
        replicas.start_tiering(settings);
        backup.run(settings.interval_ms).await;
    });
}

/// Where the store is; `None` if none is wanted.
fn location(config: &Config) -> Result<Option<Location>, ConfigError> {
    let url = config.text("remote.storage.url").trim().to_owned();
    if url.is_empty() {
        return Ok(None);
    }
    let mut options = Vec::new();
    for option in config.list("remote.storage.options") {
        let Some((key, value)) = option.split_once('=') else {
            return Err(ConfigError::Invalid(format!(
                "remote.storage.options: '{option}' is not of the form KEY=VALUE"
            )));
        };
        options.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    let certificates = Some(config.text("remote.storage.certificates"));
    let certificates = certificates.filter(|path| !path.is_empty()).map(Into::into);
    Ok(Some(Location { url, options, certificates, background: Background::default() }))
}
