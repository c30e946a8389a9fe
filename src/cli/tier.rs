//! `strandline tier`: object storage, looked at from here.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};

use super::mount::{self, MountArguments};
use super::output::{Format, Rows, spinner};
use super::restore::{self, RestoreArguments};
use super::tier_status::{self, StatusArguments};
use crate::objects::{Finding, Location, check, open};
use crate::remote_log::{Inventory, Keys, Tier};
use crate::system::disk::read_file;
use crate::system::{Clock, OsDisk, Random, SharedDisk};

/// Memory for what is read.
const CACHE_BYTES: u64 = 64 << 20;

/// Where a store is.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreArguments {
    /// s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or file:FOLDER
    pub(super) location: String,
    /// An option of the store as KEY=VALUE, e.g. aws_endpoint=http://localhost:9000; what is not given comes from the
    /// environment (AWS_ACCESS_KEY_ID and its like), a web identity, or the machine. Repeatable
    #[arg(long = "option", short = 'o', value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// PEM file of certificates to trust beside the operating system's
    #[arg(long, value_name = "FILE")]
    certificates: Option<PathBuf>,
    /// File of keys, if what is there is encrypted: remote.storage.encryption.keys of the brokers
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TierCommand {
    /// Prove that a bucket can be trusted: rights, conditional puts, ranges, uploads in parts, clock
    Check {
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Print a line with a new key for the file that remote.storage.encryption.keys names
    Key,
    /// List the partitions in a bucket, as their manifests tell
    Ls {
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Show a topic of another cluster here, read only, from that cluster's bucket (remote.storage.mount.urls of the brokers)
    Mount(MountArguments),
    /// Bring topics back from a bucket into a cluster that has them no more: records, settings, and where groups were
    Restore(RestoreArguments),
    /// Show what of a cluster's tiered topics is in the bucket, on disk, and not copied yet, and what that costs
    Status(StatusArguments),
    /// Read every byte in a bucket again and compare it with its checksum
    Verify {
        #[command(flatten)]
        store: StoreArguments,
        /// Only this topic
        #[arg(long)]
        topic: Option<String>,
    },
}

impl StoreArguments {
    fn location(&self) -> anyhow::Result<Location> {
        let options = Location::parse_options(self.options.iter().map(String::as_str))
            .map_err(|why| anyhow!("--option {why}"))?;
        let certificates = self.certificates.clone();
        Ok(Location { url: self.location.clone(), options, certificates, ..Location::default() })
    }
}

pub(super) async fn run(command: TierCommand, format: Format) -> anyhow::Result<()> {
    match command {
        TierCommand::Check { store } => prove(&store, format).await,
        TierCommand::Key => new_key(),
        TierCommand::Ls { store } => list(&store, format).await,
        TierCommand::Status(arguments) => tier_status::run(arguments, format).await,
        TierCommand::Mount(arguments) => mount::run(arguments, format).await,
        TierCommand::Restore(arguments) => restore::run(arguments, format).await,
        TierCommand::Verify { store, topic } => verify(&store, topic.as_deref(), format).await,
    }
}

async fn prove(store: &StoreArguments, format: Format) -> anyhow::Result<()> {
    let disk: SharedDisk = Arc::new(OsDisk);
    let location = store.location()?;
    let opened = open(&location, &disk)?;
    let findings = check(&opened, &Clock::system(), &Random::from_system()).await;
    show(&findings, format);
    let wrong = findings.iter().filter(|finding| finding.wrong.is_some()).count();
    if wrong > 0 {
        bail!(
            "{} can't be trusted with data: {wrong} of {} checks failed",
            location.url,
            findings.len()
        );
    }
    Ok(())
}

/// The bucket, to be read.
pub(super) fn tier(store: &StoreArguments) -> anyhow::Result<Arc<Tier>> {
    let disk: SharedDisk = Arc::new(OsDisk);
    let tier = Tier::new(open(&store.location()?, &disk)?, CACHE_BYTES);
    if let Some(path) = &store.keys {
        let text = read_file(&OsDisk, path).with_context(|| path.display().to_string())?;
        let keys = Keys::parse(&String::from_utf8_lossy(&text));
        tier.keyring.set(keys.map_err(|reason| anyhow!("{}: {reason}", path.display()))?);
    }
    Ok(tier)
}

fn new_key() -> anyhow::Result<()> {
    say!("{}", Keys::new_line().context("the operating system gives no random numbers")?);
    Ok(())
}

async fn list(store: &StoreArguments, format: Format) -> anyhow::Result<()> {
    let inventory = tier(store)?.inventory().await?;
    let columns =
        ["topic", "id", "partition", "start", "end", "segments", "bytes", "epoch", "keys"];
    let mut rows = Rows::new(&columns);
    for manifest in &inventory.manifests {
        rows.add(vec![
            manifest.topic.as_str().into(),
            manifest.topic_id.to_string().into(),
            manifest.partition.into(),
            manifest.log_start.into(),
            manifest.end().unwrap_or(manifest.log_start).into(),
            manifest.segments.len().into(),
            manifest.bytes().into(),
            manifest.leader_epoch.into(),
            manifest.key_ids().join(",").into(),
        ]);
    }
    rows.print(format);
    complain(&inventory)
}

/// Says what is wrong with manifests; orphans are no fault, but told.
pub(super) fn complain(inventory: &Inventory) -> anyhow::Result<()> {
    if !inventory.orphans.is_empty() {
        eprintln!(
            "{} objects that no manifest names: copies under way, or broken off (the leader removes those after six hours)",
            inventory.orphans.len()
        );
    }
    for (name, error) in &inventory.unreadable {
        eprintln!("{name}: {error}");
    }
    if !inventory.unreadable.is_empty() {
        bail!("{} manifests can't be read", inventory.unreadable.len());
    }
    Ok(())
}

async fn verify(store: &StoreArguments, topic: Option<&str>, format: Format) -> anyhow::Result<()> {
    let tier = tier(store)?;
    let inventory = tier.inventory().await?;
    let mut rows = Rows::new(&["topic", "partition", "segments", "bytes", "damaged"]);
    let progress = spinner("{spinner} {msg}");
    let wanted = inventory.manifests.iter().filter(|m| topic.is_none_or(|topic| m.topic == topic));
    let (mut damaged, mut partitions) = (Vec::new(), 0);
    for manifest in wanted {
        progress.set_message(format!("{}-{}", manifest.topic, manifest.partition));
        progress.tick();
        let verified = tier.verify(manifest).await;
        partitions += 1;
        rows.add(vec![
            manifest.topic.as_str().into(),
            manifest.partition.into(),
            verified.segments.into(),
            verified.bytes.into(),
            verified.damaged.len().into(),
        ]);
        damaged.extend(verified.damaged);
    }
    progress.finish_and_clear();
    rows.print(format);
    for (object, error) in &damaged {
        eprintln!("{object}: {error}");
    }
    complain(&inventory)?;
    if let Some(topic) = topic.filter(|_| partitions == 0) {
        bail!("there is nothing of a topic {topic} in {}", store.location);
    }
    if !damaged.is_empty() {
        bail!("{} objects are missing or damaged", damaged.len());
    }
    Ok(())
}

fn show(findings: &[Finding], format: Format) {
    let mut rows = Rows::new(&["check", "ms", "result"]);
    for finding in findings {
        let result = finding.wrong.as_deref().unwrap_or("ok");
        let took_ms = u64::try_from(finding.took.as_millis()).unwrap_or(u64::MAX);
        rows.add(vec![finding.what.into(), took_ms.into(), result.into()]);
    }
    rows.print(format);
}
