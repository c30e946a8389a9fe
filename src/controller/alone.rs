//! A controller that is alone, without a broker around it (tests and micro-benchmarks).

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::{ActiveController, ClusterState, Command, Controller, Registration};
use crate::config::Config;
use crate::metadata::level_max;
use crate::network::{Dialer, TcpDialer};
use crate::quorum::{
    Identity, LoadedQuorum, Peers, QuorumSettings, QuorumStorage, StateMachine, VoterDisks,
};
use crate::system::clock::{millis, sleep};
use crate::system::{Awake, Random, SharedDisk};

/// Opens the metadata below `folder` and registers the one broker that there is.
pub(crate) async fn alone(
    disk: &SharedDisk,
    folder: &Path,
    config: Config,
    random: Random,
) -> Arc<Controller> {
    let node = config.int("node.id");
    let identity = Identity { node, directory: Uuid::from_u128(1), cluster: None };
    let dialer: Dialer = Arc::new(TcpDialer);
    let peers = Peers::new(identity, Arc::clone(&dialer));
    let state = ClusterState::new(config, &random);
    let storage = QuorumStorage::open(disk, folder).expect("opens");
    let machine: Arc<dyn StateMachine> = Arc::<ClusterState>::clone(&state);
    let settings = QuorumSettings {
        node,
        voters: [(node, String::new())].into(),
        known: Vec::new(),
        address: None,
        election_timeout_ms: 600,
        heartbeat_ms: 100,
    };
    let loaded = LoadedQuorum::load(storage, machine, settings).expect("loads");
    let disks: Arc<dyn VoterDisks> = Arc::<ClusterState>::clone(&state);
    let quorum = loaded.start(Arc::clone(&peers), disks, random.clone()).await.expect("starts");
    let active =
        ActiveController::start(Arc::clone(&state), Arc::clone(&quorum), (dialer, Awake::new()));
    let controller = Arc::new(Controller::new(state, active, quorum, peers, random.clone()));
    register(&controller, random.uuid(), None).await;
    let id = controller.node_id;
    let epoch = controller.image().brokers.get(&id).map_or(0, |broker| broker.epoch);
    controller.ask(Command::Unfence { broker: id, epoch }).await.expect("unfenced");
    while controller.image().brokers.get(&id).is_none_or(|broker| broker.is_fenced) {
        sleep(millis(1)).await;
    }
    controller
}

/// Registers the broker's process with this incarnation.
pub(crate) async fn register(controller: &Controller, incarnation: Uuid, clean_epoch: Option<i64>) {
    let registration = Registration {
        broker: controller.node_id,
        incarnation,
        endpoints: Vec::new(),
        rack: None,
        directories: vec![Uuid::from_u128(1)],
        is_incomplete: false,
        clean_epoch,
        capacity: None,
        level_max: level_max(),
    };
    controller.ask(Command::Register(registration)).await.expect("registered");
}
