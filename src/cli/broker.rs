//! `strandline broker`: take a broker out of service, and back.

use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;

use super::balance::{self, Holder};
use super::cluster_client::{Cluster, check_with};
use super::moves::{carry_out, held_by, how_things_lie, known, set_broker, show};
use super::output::{Format, spinner};
use crate::protocol::messages::{BrokerId, UnregisterBrokerRequest};
use crate::system::clock::{monotonic, sleep};

const DRAIN: &str = "broker.drain";
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Subcommand)]
pub(super) enum BrokerCommand {
    /// Let others lead what this broker leads, and give it nothing new; it stays drained over restarts
    Drain { broker: i32 },
    /// End a drain: the broker leads again what is its own
    Undrain { broker: i32 },
    /// Move everything away from a broker, so that it can be stopped for good
    Decommission {
        broker: i32,
        /// Only show what would be moved
        #[arg(long)]
        dry_run: bool,
    },
    /// Forget a broker that was stopped for good
    Unregister { broker: i32 },
}

pub(super) async fn run(
    command: BrokerCommand,
    cluster: &mut Cluster,
    format: Format,
) -> anyhow::Result<()> {
    match command {
        BrokerCommand::Drain { broker } => drain(cluster, broker).await,
        BrokerCommand::Undrain { broker } => {
            known(cluster, broker).await?;
            set_broker(cluster, broker, DRAIN, None).await?;
            say!(
                "Broker {broker} takes part again; it leads what is its own within leader.imbalance.check.interval.seconds, \
                 or at once with kafka-leader-election --election-type preferred."
            );
            Ok(())
        }
        BrokerCommand::Decommission { broker, dry_run } => {
            decommission(cluster, broker, dry_run, format).await
        }
        BrokerCommand::Unregister { broker } => {
            let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker));
            let response = cluster.any().await?.call(0, &request).await?;
            let message = response.error_message.as_deref();
            check_with(response.error_code, message, &format!("broker {broker}"))?;
            say!("Broker {broker} is forgotten.");
            Ok(())
        }
    }
}

async fn drain(cluster: &mut Cluster, broker: i32) -> anyhow::Result<()> {
    known(cluster, broker).await?;
    set_broker(cluster, broker, DRAIN, Some("true")).await?;
    let bar = spinner("{spinner} {msg}");
    let until = monotonic() + PATIENCE;
    loop {
        let (leads, replicas) = held_by(cluster, broker).await?;
        if leads == 0 {
            bar.finish_and_clear();
            say!(
                "Broker {broker} leads nothing, and follows with {replicas} replicas. It may be stopped; \
                 `strandline broker undrain {broker}` ends this."
            );
            return Ok(());
        }
        if monotonic() >= until {
            bail!(
                "broker {broker} still leads {leads} partitions, which nobody else has in sync: see `strandline cluster health`"
            );
        }
        bar.set_message(format!("{leads} partitions to hand over"));
        bar.tick();
        sleep(LOOK).await;
    }
}

async fn decommission(
    cluster: &mut Cluster,
    broker: i32,
    dry_run: bool,
    format: Format,
) -> anyhow::Result<()> {
    let (mut brokers, partitions) = how_things_lie(cluster, Duration::ZERO).await?;
    // One that is dead is not listed any more, but may still have to be replaced.
    if !partitions.iter().any(|held| held.replicas.contains(&broker)) {
        known(cluster, broker).await?;
    }
    let before = brokers.insert(broker, Holder { rack: None, is_leaving: true });
    let moves = balance::plan(&brokers, &partitions).map_err(|why| anyhow::anyhow!("{why}"))?;
    let away: Vec<_> = moves.into_iter().filter(|change| change.from.contains(&broker)).collect();
    if dry_run {
        show(&away, format);
        return Ok(());
    }
    if before.is_some() {
        set_broker(cluster, broker, DRAIN, Some("true")).await?;
    }
    carry_out(cluster, &away).await?;
    let (leads, replicas) = held_by(cluster, broker).await?;
    if leads > 0 || replicas > 0 {
        bail!("broker {broker} got new replicas meanwhile ({replicas}): run this again");
    }
    say!(
        "Broker {broker} has nothing any more. Stop it, then `strandline broker unregister {broker}`; if it votes, \
         first `strandline cluster remove-voter {broker}`."
    );
    Ok(())
}
