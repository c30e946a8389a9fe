//! `strandline tier mount`: a topic of another cluster, read from that cluster's bucket.
//!
//! Invariants: nothing in the bucket is changed, neither from here nor by the brokers.

use anyhow::bail;
use clap::Args;

use super::found::{Wanted, select, wait_for};
use super::output::{Format, Rows};
use super::tier::{StoreArguments, complain, tier};
use super::tier_status::ClusterArguments;
use super::topic;
use crate::config::{MOUNT, Mount};
use crate::protocol::messages::TopicName;
use crate::protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::protocol::text;

#[derive(Debug, Args)]
pub(super) struct MountArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// The topic, by its name or its id
    #[arg(long, short, value_name = "TOPIC")]
    topic: String,
    /// Only of the cluster with this id
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    /// What it is called here, without which as there
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Replication factor; without it the cluster's default
    #[arg(long, short)]
    replicas: Option<i16>,
    #[command(flatten)]
    into: ClusterArguments,
}

pub(super) async fn run(arguments: MountArguments, format: Format) -> anyhow::Result<()> {
    let tier = tier(&arguments.store)?;
    let inventory = tier.inventory().await?;
    complain(&inventory)?;
    let location = &*arguments.store.location;
    let topics = std::slice::from_ref(&arguments.topic);
    let wanted = Wanted { topics, cluster: arguments.cluster.as_ref(), location };
    let found = select(&tier, inventory, wanted).await?;
    let [found] = &*found else {
        bail!("{location} has several topics {}: choose with --topic ID", arguments.topic)
    };
    let mount = format!("{}:{}@{location}", found.note.topic_id, found.note.topic);
    let mount = Mount::parse(&mount).map_err(anyhow::Error::msg)?;
    let Some(mount) = mount else { bail!("{location} names no bucket") };
    let name = arguments.name.unwrap_or_else(|| found.note.topic.clone());
    let setting = CreatableTopicConfig::default()
        .with_name(text(MOUNT))
        .with_value(Some(text(mount.to_string())));
    let wanted = CreatableTopic::default()
        .with_name(TopicName(text(name.as_str())))
        .with_num_partitions(found.note.partitions)
        .with_replication_factor(arguments.replicas.unwrap_or(-1))
        .with_configs(vec![setting]);
    let mut cluster = arguments.into.connect().await?;
    topic::create(&mut cluster, wanted).await?;
    wait_for(&mut cluster, &name, &found.ends()).await?;
    let mut rows = Rows::new(&["topic", "of", "partitions", "records"]);
    rows.add(vec![
        name.into(),
        mount.to_string().into(),
        found.note.partitions.into(),
        found.records().into(),
    ]);
    rows.print(format);
    Ok(())
}
