//! A cluster in the hands of its operator: nodes come and go, replicas move, voters change, Kafka's own tools work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::broker::{BINARY, folder, run};
use crate::cluster::Cluster;
use crate::judges::Judge;
use crate::kit::{eventually, java, succeed};
use crate::plans::Plan;

/// A command of ours against the cluster; its output.
pub(crate) fn ours(cluster: &Cluster, words: &[&str]) -> String {
    let bootstrap = cluster.bootstrap();
    let output = run(&[words, &["-b", &bootstrap]].concat());
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{words:?}: {out}{err}");
    out
}

/// How many partitions a broker leads, and of how many it has replicas.
fn held_by(cluster: &Cluster, topic: &str, id: usize) -> (usize, usize) {
    let text = ours(cluster, &["topic", "describe", topic, "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let (mut leads, mut replicas) = (0, 0);
    for row in rows.as_array().expect("rows") {
        leads += usize::from(row["leader"].as_u64() == u64::try_from(id).ok());
        let all = row["replicas"].to_string();
        let numbers = all.split(|letter: char| !letter.is_ascii_digit());
        replicas += usize::from(numbers.into_iter().any(|number| number == id.to_string()));
    }
    (leads, replicas)
}

fn voters(cluster: &Cluster) -> Vec<(u64, bool)> {
    let text = ours(cluster, &["cluster", "voters", "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let row = |row: &serde_json::Value| {
        (row["node"].as_u64().expect("an id"), row["votes"].as_bool().expect("a word"))
    };
    let mut all: Vec<_> = rows.as_array().expect("rows").iter().map(row).collect();
    all.sort_unstable();
    all
}

#[test]
fn voters_and_brokers_come_and_go_while_clients_produce_and_nothing_is_lost() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let judge = Judge::start(&[], &cluster.bootstrap(), 25);
    std::thread::sleep(Duration::from_secs(2));
    // One that may vote one day, and one that never does.
    let fourth = cluster.add(folder.path(), true, &[]);
    let fifth = cluster.add(folder.path(), false, &[]);
    let keeps = ours(&cluster, &["topic", "create", "kept", "-p", "10", "-r", "5"]);
    assert!(keeps.contains("kept"), "{keeps}");
    eventually("the fourth node is told everything", || voters(&cluster).contains(&(4, false)));
    let address = format!("127.0.0.1:{}", cluster.places[fourth - 1].controller);
    let wrong = run(&["cluster", "add-voter", "7", &address, "-b", &cluster.bootstrap()]);
    assert!(!wrong.status.success(), "a voter under another id");
    ours(&cluster, &["cluster", "add-voter", "4", &address]);
    ours(&cluster, &["cluster", "remove-voter", "1"]);
    eventually("three vote, and not the first", || {
        let voting: Vec<u64> =
            voters(&cluster).iter().filter(|(_, votes)| *votes).map(|(id, _)| *id).collect();
        voting == [2, 3, 4]
    });
    // The cluster goes on without the one that votes no more, and decides with one voter less.
    cluster.kill(0);
    cluster.kill(1);
    std::thread::sleep(Duration::from_secs(2));
    ours(&cluster, &["topic", "create", "decided", "-r", "2"]);
    cluster.start_missing();
    assert!(judge.verdict() > 1_000, "too little was produced");
    cluster.wait_healthy();
    assert_eq!(held_by(&cluster, "kept", fifth).1, 10);
    // A voter whose disk is gone is another voter: it is taken away and added again.
    cluster.kill(2);
    let data = cluster.places[2].data.clone();
    std::fs::remove_dir_all(&data).expect("removed");
    ours(&cluster, &["cluster", "remove-voter", "3"]);
    cluster.start_missing();
    // Apache Kafka's own tool adds it: it reads the new disk's id out of the log directory.
    let properties = folder.path().join("node3.properties");
    let text = format!(
        "node.id=3\nprocess.roles=broker,controller\ncontroller.listener.names=CONTROLLER\n\
         listeners=CONTROLLER://127.0.0.1:{}\nlog.dirs={}\n",
        cluster.places[2].controller,
        data.display()
    );
    std::fs::write(&properties, text).expect("written");
    let bootstrap = cluster.bootstrap();
    let quorum = |words: &[&str]| {
        let server = ["--bootstrap-server", bootstrap.as_str()];
        let class = "org.apache.kafka.tools.MetadataQuorumCommand";
        succeed(&mut java(class, &[&server, words].concat()))
    };
    let config = properties.to_str().expect("text");
    quorum(&["--command-config", config, "add-controller"]);
    cluster.wait_healthy();
    let said = quorum(&["describe", "--replication"]);
    let with = |role: &str| said.lines().filter(|line| line.contains(role)).count();
    assert_eq!((with("Leader"), with("Follower"), with("Observer")), (1, 2, 2), "{said}");
}

#[test]
fn a_drained_broker_leads_nothing_a_new_one_gets_its_share_and_one_that_leaves_keeps_nothing() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    ours(&cluster, &["topic", "create", "t", "-p", "12", "-r", "3"]);
    let judge = Judge::start(&[], &cluster.bootstrap(), 20);
    std::thread::sleep(Duration::from_secs(2));
    ours(&cluster, &["broker", "drain", "2"]);
    assert_eq!(held_by(&cluster, "t", 2), (0, 12));
    ours(&cluster, &["broker", "undrain", "2"]);
    let fourth = cluster.add(folder.path(), false, &[]);
    let proposed = ours(&cluster, &["cluster", "balance", "--dry-run", "--sample", "1"]);
    assert!(proposed.contains("t-"), "{proposed}");
    assert_eq!(held_by(&cluster, "t", fourth), (0, 0), "a dry run moves nothing");
    ours(&cluster, &["cluster", "balance", "--sample", "0"]);
    let (_, replicas) = held_by(&cluster, "t", fourth);
    assert!((4..=12).contains(&replicas), "{replicas} replicas on the new broker");
    ours(&cluster, &["broker", "decommission", "1"]);
    assert_eq!(held_by(&cluster, "t", 1), (0, 0));
    ours(&cluster, &["cluster", "remove-voter", "1"]);
    cluster.remove(1);
    ours(&cluster, &["broker", "unregister", "1"]);
    // Planned moves lose nothing, also of what only leaders acknowledged.
    assert!(judge.verdict_on(&["all", "one"]) > 1_000, "too little was produced");
    let health = ours(&cluster, &["cluster", "health"]);
    assert!(health.contains("Healthy: 3 brokers"), "{health}");
}

/// The build that knows one feature level less.
fn release_before() -> PathBuf {
    let built = Path::new(BINARY).parent().expect("a folder").join("examples/release_before");
    if !built.exists() {
        // `cargo test` makes it; a run of this target alone does not.
        succeed(Command::new("cargo").args(["build", "-q", "--example", "release_before"]));
    }
    built
}

#[test]
fn nodes_of_two_releases_work_together_and_a_level_is_used_only_once_it_is_finalized() {
    let (folder, _) = folder();
    let mut places = Cluster::places(folder.path());
    for place in &mut places {
        place.program = Some(release_before());
    }
    let mut cluster = Cluster::start_at(places);
    let judge = Judge::start(&[], &cluster.bootstrap(), 20);
    std::thread::sleep(Duration::from_secs(2));
    let refused = |cluster: &Cluster, words: &[&str]| {
        let output = run(&[words, &["-b", &cluster.bootstrap()]].concat());
        assert!(!output.status.success(), "{words:?} was not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for index in 0..3 {
        let why = refused(&cluster, &["cluster", "upgrade"]);
        assert!(why.contains("only supports versions 1-1"), "{why}");
        // One node after the other, as an operator does it.
        assert!(cluster.nodes[index].take().expect("running").terminate().success());
        cluster.places[index].program = None;
        cluster.start_missing();
        cluster.wait_healthy();
    }
    let why = refused(&cluster, &["cluster", "remove-voter", "3"]);
    assert!(why.contains("cluster upgrade"), "{why}");
    let said = ours(&cluster, &["cluster", "upgrade"]);
    assert!(said.contains("strandline.version 2"), "{said}");
    ours(&cluster, &["cluster", "remove-voter", "3"]);
    assert!(judge.verdict_on(&["all", "one"]) > 1_000, "too little was produced");
    // Who does not know what is used now is told so, and does not start.
    assert!(cluster.nodes[2].take().expect("running").terminate().success());
    cluster.places[2].program = Some(release_before());
    let mut old = cluster.command(2);
    let output = old.output().expect("it runs");
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && why.contains("start a newer release"), "{why}");
}

#[test]
fn kafkas_tool_moves_a_replica_to_another_log_directory_while_clients_produce() {
    let (folder, _) = folder();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let directories = format!("log.dirs={},{}", place("one"), place("two"));
    let broker = crate::broker::Broker::start_with(folder.path(), &[&directories]);
    let judge = Judge::start_alone(&broker.address, 12);
    std::thread::sleep(Duration::from_secs(3));
    let holds = |name: &str| Path::new(&place(name)).join("all-0").exists();
    for (from, to) in [("one", "two"), ("two", "one"), ("one", "two")] {
        if !holds(from) {
            continue;
        }
        let to_path = PathBuf::from(place(to));
        let plan = Plan::to_directory(&broker.address, folder.path(), &["all"], &to_path);
        plan.execute();
        eventually("the replica is moved", || holds(to) && !holds(from));
        let said = plan.verify();
        assert!(said.contains("completed successfully"), "{said}");
    }
    assert!(judge.verdict_on(&["all", "one"]) > 1_000, "too little was produced");
}

#[test]
fn more_partitions_than_the_cluster_is_to_hold_are_refused_with_the_way_out() {
    let (folder, data) = folder();
    let _ = &folder;
    let settings = ["broker.partitions.max=10", "cluster.partitions.max=12"];
    let broker = crate::broker::Broker::start_with(&data, &settings);
    let create = |name: &str, count: &str| {
        run(&["topic", "create", name, "-p", count, "-b", &broker.address])
    };
    assert!(create("small", "8").status.success());
    let refused = create("large", "3");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("hold 10 by broker.partitions.max"), "{why}");
    let refused = create("larger", "5");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("cluster.partitions.max is 12"), "{why}");
}

#[test]
fn kafkas_own_tools_for_clusters_work_unmodified() {
    let (folder, _) = folder();
    let cluster = Cluster::start(folder.path());
    let bootstrap = cluster.bootstrap();
    let tool = |class: &str, words: &[&str]| {
        let server = ["--bootstrap-server", bootstrap.as_str()];
        // This one takes its command first.
        let arguments = if class == "ClusterTool" {
            [words, &server].concat()
        } else {
            [&server, words].concat()
        };
        succeed(&mut java(&format!("org.apache.kafka.tools.{class}"), &arguments))
    };
    ours(&cluster, &["topic", "create", "t", "-p", "2", "-r", "2"]);
    let plan = folder.path().join("plan.json");
    let moved = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[2,3]},{"topic":"t","partition":1,"replicas":[3,1]}]}"#;
    std::fs::write(&plan, moved).expect("written");
    let plan = plan.display().to_string();
    let reassign = "reassign.ReassignPartitionsCommand";
    let file = ["--reassignment-json-file", plan.as_str()];
    tool(reassign, &[&file[..], &["--execute", "--throttle", "10000000"]].concat());
    eventually("the partitions are moved", || {
        let said = tool(reassign, &[&file[..], &["--verify", "--preserve-throttles"]].concat());
        said.contains("partition t-0 is completed") && said.contains("partition t-1 is completed")
    });
    let said = tool(reassign, &[&file[..], &["--verify"]].concat());
    assert!(said.contains("Clearing broker-level throttles"), "{said}");
    assert_eq!(held_by(&cluster, "t", 3).1, 2);
    let said = tool(
        "LeaderElectionCommand",
        &["--election-type", "preferred", "--topic", "t", "--partition", "0"],
    );
    assert!(said.contains("elected") || said.contains("leader election"), "{said}");
    let said = tool("MetadataQuorumCommand", &["describe", "--status"]);
    assert!(said.contains("LeaderId:") && said.contains("CurrentVoters:"), "{said}");
    let said = tool("MetadataQuorumCommand", &["describe", "--replication"]);
    assert!(said.matches("Follower").count() == 2 && said.contains("Leader"), "{said}");
    let said = tool("ClusterTool", &["cluster-id"]);
    assert!(said.contains("Cluster ID:"), "{said}");
    let said = tool("LogDirsCommand", &["--describe", "--topic-list", "t"]);
    assert!(said.contains("\"partition\":\"t-0\""), "{said}");
}
