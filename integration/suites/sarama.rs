//! sarama's functional suite: five brokers, which it reaches through a proxy that breaks connections, and which it stops and
//! starts.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::network::Network;
use super::packages::{SARAMA, go_tests, toxiproxy};
use super::{go, is_everything, judge, shim};
use crate::broker::{BINARY, folder};
use crate::cluster::{Cluster, Place};
use crate::kit::eventually;

const NODES: u16 = 5;

/// What waits for minutes: transactions for their retries to end, groups that grow and shrink, a broker that is away.
const SLOW: [&str; 8] = [
    "TestFuncTxn.*",
    "TestFuncInitProducerId3",
    "TestFuncDescribeTransactions",
    "TestFuncListTransactions",
    "TestConsumerFetchFollowerFailover",
    "TestFuncConsumerGroup.*",
    "TestConsumerGroupDeadlock",
    "TestFuncProducingIdempotentWithBrokerFailure",
];

/// Brokers with the settings of sarama's own set-up: what clients are told leads through the proxy.
fn places(network: &Network, folder: &Path) -> Vec<Place> {
    let place = |id: u16| {
        let (outside, inside, controller) = (19_090 + id, 49_090 + id, 39_090 + id);
        let proxied = 29_090 + id;
        let settings = [
            format!(
                "listeners=LOCAL://127.0.0.1:{outside},INTERNAL://127.0.0.1:{inside},CONTROLLER://127.0.0.1:{controller}"
            ),
            format!("advertised.listeners=LOCAL://localhost:{proxied},INTERNAL://127.0.0.1:{inside}"),
            "listener.security.protocol.map=LOCAL:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
                .to_owned(),
            "inter.broker.listener.name=INTERNAL".to_owned(),
            format!("broker.rack={id}"),
            "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector".to_owned(),
            "default.replication.factor=2".to_owned(),
            "auto.create.topics.enable=false".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
        ];
        Place {
            host: "127.0.0.1".to_owned(),
            kafka: outside,
            controller,
            data: folder.join(format!("node{id}")),
            prefix: network.prefix().to_vec(),
            settings: settings.to_vec(),
            program: None,
        }
    };
    (1..=NODES).map(place).collect()
}

/// The proxy; it ends when it is dropped.
struct Proxy(Child);

impl Proxy {
    fn start(network: &Network, folder: &Path) -> Self {
        let proxies: Vec<serde_json::Value> = (1..=NODES)
            .map(|id| {
                let (listen, upstream) = (29_090 + id, 19_090 + id);
                serde_json::json!({
                    "name": format!("kafka{id}"),
                    "listen": format!("127.0.0.1:{listen}"),
                    "upstream": format!("127.0.0.1:{upstream}"),
                    "enabled": true,
                })
            })
            .collect();
        let config = folder.join("proxies.json");
        std::fs::write(&config, serde_json::Value::from(proxies).to_string()).expect("written");
        let mut command = network.command(toxiproxy());
        command.args(["-host", "127.0.0.1", "-port", "8474", "-config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the proxy runs"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until others have loaded the groups of a broker that was stopped, if they can: a container takes longer to stop, and what the suite asks
/// next it asks once.
fn groups_are_loaded(network: &Network) {
    let brokers: Vec<String> = (1..=NODES).map(|id| format!("localhost:{}", 29_090 + id)).collect();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let mut ours = network.command(BINARY);
        ours.args(["group", "ls", "-b", &brokers.join(",")]);
        if ours.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
            return;
        }
    }
}

/// Does what the tests asked for (`shims/docker`).
fn obey(network: &Network, cluster: &mut Cluster, orders: &Path) {
    for entry in std::fs::read_dir(orders).expect("a folder").flatten() {
        let order = entry.file_name().to_string_lossy().into_owned();
        let id: usize = order.rsplit('-').next().and_then(|id| id.parse().ok()).expect("an id");
        if order.starts_with("start-") {
            cluster.start_missing();
        } else if let Some(node) = cluster.nodes[id - 1].take() {
            assert!(node.terminate().success());
            groups_are_loaded(network);
        }
        std::fs::remove_file(entry.path()).expect("removed");
    }
}

#[test]
fn saramas_own_tests_pass_but_for_the_findings() {
    let Some(network) = Network::new("sarama") else { return };
    let program = go_tests(SARAMA, ".", "functional");
    let (folder, orders) = folder();
    std::fs::create_dir_all(&orders).expect("a folder");
    let _proxy = Proxy::start(&network, folder.path());
    let mut cluster = Cluster::start_at(places(&network, folder.path()));
    eventually("the proxy listens", || {
        let mut ask = network.command("curl");
        ask.args(["-sf", "http://127.0.0.1:8474/proxies"]).stdout(Stdio::null());
        ask.status().is_ok_and(|status| status.success())
    });
    let mut command = command(&network, &program, &orders);
    let outcomes = std::thread::scope(|scope| {
        let running = scope.spawn(|| go::run(&mut command, "sarama", &SLOW));
        while !running.is_finished() {
            obey(&network, &mut cluster, &orders);
            std::thread::sleep(Duration::from_millis(50));
        }
        running.join().expect("it ran")
    });
    judge("sarama", &outcomes, is_everything(), 30);
}

fn command(network: &Network, program: &Path, orders: &Path) -> Command {
    let shims = shim("docker");
    let shims = shims.parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = network.command(program);
    command
        .current_dir(program.parent().expect("a folder"))
        .env("PATH", format!("{}:{path}", shims.display()))
        .env("DOCKER_ORDERS", orders)
        .env("TOXIPROXY_ADDR", "http://127.0.0.1:8474")
        .env("KAFKA_VERSION", "4.1.0");
    command
}
