//! `strandline demo`: shows on this machine what is promised.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;

use super::cluster_client::Cluster;
use crate::protocol::messages::MetadataResponse;
use crate::system::clock::{Instant, monotonic, sleep};
use crate::system::{Disk, OsDisk};

const NODES: usize = 3;
const RECORDS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum DemoCommand {
    /// Run three nodes in temporary folders, produce, kill one with -9, and show that nothing was lost
    Cluster,
}

/// The nodes of the demonstration; they end with it.
struct Nodes {
    folder: PathBuf,
    processes: Vec<Child>,
    addresses: Vec<String>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = OsDisk.remove_dir_all(&self.folder);
    }
}

pub(super) async fn run(command: DemoCommand) -> anyhow::Result<()> {
    let DemoCommand::Cluster = command;
    let mut nodes = start()?;
    let bootstrap = nodes.addresses.join(",");
    say!("Three nodes are starting: {bootstrap}");
    let begun = monotonic();
    wait(&bootstrap, "three brokers", |found| found.brokers.len() == NODES).await?;
    say!("They are a cluster after {} ms.", begun.elapsed().as_millis());
    ours(&["topic", "create", "demo", "--partitions", "1"], &bootstrap, None)?;
    produce(&bootstrap, 0)?;
    say!("{RECORDS} records were acknowledged by all replicas in sync.");
    let leader = leader_of(&Cluster::connect(&bootstrap).await?.metadata(None).await?);
    let leader = leader.context("topic demo has no leader")?;
    say!("Node {leader} leads. It is killed now (kill -9).");
    let victim = usize::try_from(leader - 1).ok().and_then(|index| nodes.processes.get_mut(index));
    victim.context("the leader is not one of ours")?.kill()?;
    let killed = monotonic();
    let others: Vec<String> = (1..)
        .zip(&nodes.addresses)
        .filter(|(id, _)| *id != leader)
        .map(|(_, a)| a.clone())
        .collect();
    let bootstrap = others.join(",");
    wait(&bootstrap, "another leader", |found| {
        leader_of(found).is_some_and(|now| now >= 0 && now != leader)
    })
    .await?;
    let now = leader_of(&Cluster::connect(&bootstrap).await?.metadata(None).await?).unwrap_or(-1);
    say!("Node {now} leads after {} ms.", killed.elapsed().as_millis());
    produce(&bootstrap, RECORDS)?;
    say!("{RECORDS} more records were acknowledged by the two that are left.");
    let read = ours(&["consume", "demo", "--offset", "start", "--exit"], &bootstrap, None)?;
    let found: Vec<usize> = read.lines().filter_map(|line| line.trim().parse().ok()).collect();
    ensure!(
        found.iter().copied().eq(0..2 * RECORDS),
        "read {} records, not the {} that were acknowledged",
        found.len(),
        2 * RECORDS
    );
    say!("All {} records are there, each once, in their order. Nothing was lost.", found.len());
    Ok(())
}

fn start() -> anyhow::Result<Nodes> {
    let folder = std::env::temp_dir().join(format!("strandline-demo-{}", std::process::id()));
    OsDisk.create_dir_all(&folder)?;
    let bound =
        (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports =
        bound.iter().map(|l| Ok(l.local_addr()?.port())).collect::<std::io::Result<Vec<_>>>()?;
    drop(bound);
    let (kafka, controller) = ports.split_at(NODES);
    let voters: Vec<String> = (1..)
        .zip(controller)
        .map(|(id, port): (usize, _)| format!("{id}@127.0.0.1:{port}"))
        .collect();
    let mut nodes = Nodes { folder, processes: Vec::new(), addresses: Vec::new() };
    for ((id, kafka), controller) in (1..).zip(kafka).zip(controller) {
        let id: usize = id;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        for setting in [
            format!("node.id={id}"),
            format!("log.dirs={}", nodes.folder.join(id.to_string()).display()),
            format!("listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{controller}"),
            format!("controller.quorum.voters={}", voters.join(",")),
            "http.listen=".to_owned(),
        ] {
            command.args(["--set", &setting]);
        }
        nodes.processes.push(command.spawn().context("a node does not start")?);
        nodes.addresses.push(format!("127.0.0.1:{kafka}"));
    }
    Ok(nodes)
}

fn leader_of(found: &MetadataResponse) -> Option<i32> {
    let named = |t: &&crate::protocol::messages::metadata_response::MetadataResponseTopic| {
        t.name.as_ref().is_some_and(|name| name.as_str() == "demo")
    };
    Some(found.topics.iter().find(named)?.partitions.first()?.leader_id.0)
}

/// Asks until the answer is as it should be.
async fn wait(
    bootstrap: &str,
    what: &str,
    is_there: impl Fn(&MetadataResponse) -> bool,
) -> anyhow::Result<()> {
    let until: Instant = monotonic() + PATIENCE;
    while monotonic() < until {
        if let Ok(mut cluster) = Cluster::connect(bootstrap).await
            && let Ok(found) = cluster.metadata(None).await
            && is_there(&found)
        {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
    bail!("waited {} s for {what}", PATIENCE.as_secs())
}

fn produce(bootstrap: &str, from: usize) -> anyhow::Result<()> {
    let lines: Vec<String> = (from..from + RECORDS).map(|number| number.to_string()).collect();
    ours(&["produce", "demo"], bootstrap, Some(lines.join("\n"))).map(drop)
}

/// Runs a command of this program as a user would; its output.
fn ours(arguments: &[&str], bootstrap: &str, input: Option<String>) -> anyhow::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).args(["-b", bootstrap]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "strandline {}: {}", arguments.join(" "), why.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
