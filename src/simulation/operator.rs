//! What an operator asks of a simulated cluster while things go wrong: replicas move, brokers are drained, voters change.

use std::sync::Arc;
use std::time::Duration;

use super::client::TOPIC;
use super::nodes::{Node, Role};
use crate::controller::{Command, Controller};
use crate::replication::Replicas;
use crate::system::Random;
use crate::system::clock::sleep;
use crate::system::sim_nodes::spawn_on;

/// Most that a broker is drained.
const DRAINED_MS: u64 = 5_000;

/// See the file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// A partition gets other replicas, wherever they are.
    Move,
    /// A broker leads nothing for a while.
    Drain,
    /// A voter comes or goes.
    Voters,
    /// A replica goes to another log directory of its broker.
    Directory,
}

/// Asks `through` for it; what becomes of it nobody knows, as with every fault.
pub(super) fn carry_out(act: Act, through: &Node, nodes: &[Node], random: Random) {
    let Some(controller) = through.controller() else { return };
    let Some(replicas) = through.with_broker(|broker| Arc::clone(&broker.context().replicas))
    else {
        return;
    };
    let nodes: Vec<(i32, Role)> =
        nodes.iter().map(|node| (i32::try_from(node.id).expect("small"), node.role)).collect();
    drop(spawn_on(through.id, async move {
        match act {
            Act::Move => move_replicas(&controller, &nodes, &random).await,
            Act::Drain => drain(&controller, &nodes, &random).await,
            Act::Voters => change_voters(&controller, &nodes, &random).await,
            Act::Directory => change_directory(controller, &replicas, &random),
        }
    }));
}

fn pick<T: Clone>(from: &[T], random: &Random) -> Option<T> {
    let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
    from.get(usize::try_from(random.below(count)).ok()?).cloned()
}

async fn move_replicas(controller: &Arc<Controller>, nodes: &[(i32, Role)], random: &Random) {
    let image = controller.image();
    let Some(topic) = image.topic(TOPIC) else { return };
    let partitions: Vec<i32> = (0..).zip(&topic.partitions).map(|(index, _)| index).collect();
    let Some(partition) = pick(&partitions, random) else { return };
    let mut left: Vec<i32> = nodes.iter().map(|(id, _)| *id).collect();
    let mut replicas = Vec::new();
    while replicas.len() < 3
        && let Some(next) = pick(&left, random)
    {
        left.retain(|id| *id != next);
        replicas.push(next);
    }
    // Now and then a move that is under way is taken back.
    let replicas = Some(replicas).filter(|_| random.below(5) > 0);
    let result = controller.ask(Command::Reassign { topic: topic.id, partition, replicas }).await;
    tracing::info!(partition, ?result, "asked to move");
}

fn change_directory(controller: Arc<Controller>, replicas: &Arc<Replicas>, random: &Random) {
    let Some(topic) = replicas.topic(TOPIC) else { return };
    let Some(partition) = pick(&topic.partitions(), random) else { return };
    let paths: Vec<_> = replicas.directories().iter().map(|d| d.path.clone()).collect();
    let Some(path) = pick(&paths, random) else { return };
    let (name, id) = (partition.name.clone(), topic.id);
    let done = move || controller.show_again(id, name.partition);
    let result = replicas.move_replica(&partition.name, &path, done);
    tracing::info!(partition = %partition.name, path = %path.display(), ?result, "asked to move to another directory");
}

async fn drain(controller: &Arc<Controller>, nodes: &[(i32, Role)], random: &Random) {
    let Some((broker, _)) = pick(nodes, random) else { return };
    for is_draining in [true, false] {
        let result = controller.ask(Command::Drain { broker, is_draining }).await;
        tracing::info!(broker, is_draining, ?result, "asked to drain");
        sleep(Duration::from_millis(random.below(DRAINED_MS))).await;
    }
}

/// Lets every broker lead again, whatever became of whoever had it drained.
pub(super) async fn undrain(nodes: &[Node]) {
    let Some(controller) = nodes.iter().find_map(Node::controller) else { return };
    let image = controller.image();
    for (broker, _) in image.brokers.iter().filter(|(_, broker)| broker.is_draining) {
        let command = Command::Drain { broker: *broker, is_draining: false };
        let _ = controller.submit_once(&command, Duration::from_secs(1)).await;
    }
}

async fn change_voters(controller: &Arc<Controller>, nodes: &[(i32, Role)], random: &Random) {
    let voters = controller.quorum().voters;
    let others: Vec<i32> = nodes
        .iter()
        .filter(|(id, role)| *role != Role::Broker && !voters.contains(id))
        .map(|(id, _)| *id)
        .collect();
    let directory = uuid::Uuid::nil();
    let command = match pick(&others, random) {
        Some(id) if voters.len() < 3 || random.below(2) == 0 => {
            Command::AddVoter { id, directory, address: format!("n{id}:9093") }
        }
        _ if voters.len() > 2 => {
            let Some(id) = pick(&voters, random) else { return };
            Command::RemoveVoter { id, directory }
        }
        _ => return,
    };
    let text = format!("{command:?}");
    let result = controller.ask_for_long(command).await;
    tracing::info!(text, ?result, "asked to change the voters");
}
