//! Replicas that leave a broker and come back to it, with other records than they had.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::broker::folder;
use crate::cluster::Cluster;
use crate::judges::Judge;
use crate::kit::python_script;
use crate::operations::ours;
use crate::plans::Plan;

fn commit(cluster: &Cluster, seconds: u32) -> Child {
    let mut script = python_script("offsets.py");
    script.args([&cluster.bootstrap(), &seconds.to_string()]);
    script.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python runs")
}

/// Every group has what was acknowledged last.
fn check(client: Child) {
    let output = client.wait_with_output().expect("python ends");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_str(out.trim()).expect("JSON");
    assert!(found["wrong"].as_array().is_some_and(Vec::is_empty), "{out}");
    assert!(found["commits"].as_u64().unwrap_or(0) > 50, "{out}");
}

#[test]
fn groups_keep_their_offsets_when_their_topic_shrinks_to_one_replica_and_grows_again_under_compaction()
 {
    let (folder, _) = folder();
    let settings = [
        "offsets.topic.num.partitions=1",
        "offsets.topic.segment.bytes=20000",
        "log.cleaner.backoff.ms=300",
        "log.cleaner.min.cleanable.ratio=0.01",
    ];
    let mut cluster = Cluster::start_with(Cluster::places(folder.path()), &settings);
    ours(&cluster, &["topic", "create", "t", "-p", "1", "-r", "3"]);
    // The topic is there from the first commit on.
    check(commit(&cluster, 4));
    for leader in [1, 3] {
        let client = commit(&cluster, 25);
        let others: Vec<usize> = [leader, 2].into_iter().chain([4 - leader]).collect();
        let move_to = |replicas: &[usize]| {
            Plan::to_brokers(&cluster.bootstrap(), folder.path(), "__consumer_offsets", replicas)
        };
        move_to(&[leader]).carry_out();
        // What those that left had is far behind by the time they come back.
        std::thread::sleep(Duration::from_secs(4));
        move_to(&others).carry_out();
        cluster.kill(leader - 1);
        std::thread::sleep(Duration::from_secs(3));
        cluster.start_missing();
        check(client);
        cluster.wait_healthy();
    }
}

#[test]
fn a_broker_that_was_decommissioned_and_comes_back_with_its_disk_serves_what_the_others_have() {
    let (folder, _) = folder();
    let mut cluster = Cluster::start(folder.path());
    let fourth = cluster.add(folder.path(), false, &[]);
    let judge = Judge::start(&[], &cluster.bootstrap(), 25);
    std::thread::sleep(Duration::from_secs(2));
    ours(&cluster, &["cluster", "balance", "--sample", "0"]);
    for _ in 0..2 {
        ours(&cluster, &["broker", "decommission", "4"]);
        cluster.remove(fourth);
        ours(&cluster, &["broker", "unregister", "4"]);
        std::thread::sleep(Duration::from_secs(1));
        cluster.start_missing();
        ours(&cluster, &["cluster", "balance", "--sample", "0"]);
        cluster.wait_healthy();
    }
    // Whoever came back leads as much as it can.
    ours(&cluster, &["broker", "drain", "1"]);
    ours(&cluster, &["broker", "drain", "2"]);
    assert!(judge.verdict_on(&["all", "one"]) > 1_000, "too little was produced");
    cluster.wait_healthy();
}
