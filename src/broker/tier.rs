//! Opens the object storage that the settings name, and lets nothing be copied to it before it is proven.
//!
//! Invariants: a bucket that does not answer keeps no broker from starting; one that can't be trusted (no conditional puts, other
//! bytes than were written) gets nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::backup::Backup;
use super::error::BrokerError;
use crate::config::{Config, ConfigError, MOUNT_URLS, mount_urls};
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::objects::{CLOCKS, Location, Store, check, open};
use crate::remote_log::{DiskCache, Keys, Tier};
use crate::replication::{Replicas, TierSettings};
use crate::system::clock::{millis, sleep};
use crate::system::disk::read_file;
use crate::system::tasks::{Background, Yielding, blocking, keep_job};
use crate::system::{Clock, Random, SharedDisk};

/// Threads that wait for the store and work on what comes, of either kind; reading files of logs has its own.
const THREADS: usize = 2;
const URL: &str = "remote.storage.url";
const DISK_CACHE: &str = "remote.fetch.disk.cache.dir";
const KEYS: &str = "remote.storage.encryption.keys";
/// How long after a bucket failed its first check it is checked again; then twice as long, up to the most.
const CHECK_AGAIN_MS: i64 = 500;
const CHECK_AGAIN_MS_MAX: i64 = 5_000;

/// What was opened.
pub(super) struct OpenedTier {
    /// The bucket of this cluster's topics.
    store: Option<Store>,
    /// One of all, which share their keys.
    any: Arc<Tier>,
    /// The file of their keys as it was read.
    keys: Option<String>,
    has_mounts: bool,
}

/// Opens the stores that are named, and gives them to the partitions that are about to be opened.
pub(super) fn open_tier(
    config: &Config,
    disk: &SharedDisk,
    replicas: &Replicas,
) -> Result<Option<OpenedTier>, BrokerError> {
    let (own, urls) = (own_url(config), mount_urls(config));
    let background = |how| {
        Background::start("tier", THREADS, how)
            .map_err(|e| ConfigError::Invalid(format!("no threads for object storage: {e}")))
    };
    if own.is_none() && urls.is_empty() {
        return Ok(None);
    }
    let cache_bytes = u64::try_from(config.long("remote.fetch.cache.bytes")).unwrap_or(0);
    let nice = background(Yielding::Nice)?;
    let (mut store, mut any) = (None, None);
    if let Some(own) = own {
        let opened = open_at(config, (URL, own, nice.clone()), disk)?;
        let idle = open_at(config, (URL, own, background(Yielding::Idle)?), disk)?;
        let tier = Tier::with_idle((opened.clone(), idle), cache_bytes);
        replicas.set_tier(Arc::clone(&tier));
        (store, any) = (Some(opened), Some(tier));
    }
    let mut mounts = BTreeMap::new();
    for url in urls {
        let opened = open_at(config, (MOUNT_URLS, &url, nice.clone()), disk)?;
        let tier = match &any {
            Some(any) => any.beside(opened),
            None => Tier::new(opened, cache_bytes),
        };
        any.get_or_insert_with(|| Arc::clone(&tier));
        mounts.insert(url, tier);
    }
    let has_mounts = !mounts.is_empty();
    replicas.set_mounts(mounts);
    let Some(any) = any else { return Ok(None) };
    let text = read_keys(config, disk)?;
    if let Some(text) = &text {
        any.keyring.set(keys(config, text)?);
    }
    let dir = config.text(DISK_CACHE);
    if !dir.is_empty() {
        let bytes = u64::try_from(config.long("remote.fetch.disk.cache.bytes")).unwrap_or(0);
        let opened = DiskCache::open(disk, (Path::new(dir), bytes), &nice);
        any.set_disk_cache(
            opened
                .map_err(|error| ConfigError::Invalid(format!("{DISK_CACHE}: {dir}: {error}")))?,
        );
    }
    Ok(Some(OpenedTier { store, any, keys: text, has_mounts }))
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
async fn watch_keys(
    (tier, mut known): (Arc<Tier>, String),
    config: Config,
    disk: SharedDisk,
    interval_ms: i64,
) {
    loop {
        sleep(millis(interval_ms)).await;
        let (at, of) = (config.clone(), Arc::clone(&disk));
        let read = blocking(move || read_keys(&at, &of)).await.unwrap_or(Ok(None));
        let changed = read.map(|text| text.filter(|text| *text != known));
        let taken = changed.and_then(|text| {
            let Some(text) = text else { return Ok(()) };
            tier.keyring.set(keys(&config, &text)?);
            tracing::info!(keys = ?tier.keyring, "keys of object storage read anew");
            known = text;
            Ok(())
        });
        if let Err(error) = taken {
            tracing::error!(%error, "keys of object storage not read anew: those that were read before count");
        }
    }
}

/// Checks what the settings say, without asking the stores.
pub(super) fn check_tier(config: &Config, disk: &SharedDisk) -> Result<(), BrokerError> {
    if let Some(text) = read_keys(config, disk)? {
        keys(config, &text)?;
    }
    let urls = mount_urls(config);
    if own_url(config).is_none() && urls.is_empty() {
        // Whoever writes one of these takes something for kept safe that goes nowhere.
        let unused = [KEYS, "remote.storage.certificates", "remote.storage.options"];
        if let Some(name) = unused.into_iter().find(|name| !config.text(name).is_empty()) {
            let why = format!(
                "{name} is set, but neither {URL} nor {MOUNT_URLS}: nothing is kept elsewhere"
            );
            return Err(ConfigError::Invalid(why).into());
        }
    }
    let mounts = urls.iter().map(|url| (MOUNT_URLS, url.as_str()));
    for (name, url) in own_url(config).map(|own| (URL, own)).into_iter().chain(mounts) {
        open_at(config, (name, url, Background::none()), disk)?;
    }
    Ok(())
}

fn own_url(config: &Config) -> Option<&str> {
    Some(config.text(URL).trim()).filter(|url| !url.is_empty())
}

/// Opens a store that a setting names.
fn open_at(
    config: &Config,
    (name, url, background): (&str, &str, Background),
    disk: &SharedDisk,
) -> Result<Store, ConfigError> {
    let kind = |url: &str| url.split(':').next().map(str::to_owned);
    let are_its = own_url(config).is_none_or(|own| kind(own) == kind(url));
    let options = config.list("remote.storage.options").into_iter().filter(|_| are_its);
    let options = Location::parse_options(options)
        .map_err(|why| ConfigError::Invalid(format!("remote.storage.options: {why}")))?;
    let certificates = Some(config.text("remote.storage.certificates"));
    let certificates = certificates.filter(|path| !path.is_empty()).map(Into::into);
    let location = Location { url: url.to_owned(), options, certificates, background };
    open(&location, disk).map_err(|error| ConfigError::Invalid(format!("{name}: {error}")))
}

/// Looks after mounted partitions, and, once the bucket is proven, after tiered ones.
pub(super) fn start_tier(
    opened: OpenedTier,
    config: &Config,
    (replicas, controller, groups): (&Arc<Replicas>, &Arc<Controller>, &Arc<Groups>),
    (clock, random, disk): (Clock, Random, SharedDisk),
) {
    let settings = TierSettings {
        interval_ms: config.long("remote.log.manager.task.interval.ms"),
        copiers: config.size("remote.log.manager.copier.thread.pool.size"),
    };
    let (replicas, OpenedTier { store, any, keys, has_mounts }) = (Arc::clone(replicas), opened);
    if let Some(keys) = keys {
        let watching = watch_keys((any, keys), config.clone(), disk, settings.interval_ms);
        keep_job("keys of object storage", watching);
    }
    if has_mounts {
        replicas.start_mounts(config.long("remote.storage.mount.refresh.ms"));
    }
    let (Some(tier), Some(store)) = (replicas.tier(), store) else { return };
    let backup = Backup::new(tier, controller, groups, &replicas);
    keep_job("backup", async move {
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
