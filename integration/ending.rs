//! A node that loses a task which others wait for: its process ends by itself, says so, and others take over.
//!
//! Nothing in the program helps: the faults are those of disks that lose what they had. Each task's end by itself is in
//! `src/broker/life_tests.rs`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::{folder, run};
use crate::cluster::Cluster;
use crate::devices::sh;
use crate::judges::Judge;
use crate::kit::eventually_within;
use crate::operations::ours;

/// What a node ends with that could not go on.
pub(crate) const COULD_NOT_GO_ON: i32 = 70;
/// The longest until a node has ended, and the longest until others lead whatever it led; a busy machine has some time of it.
const ENDED: Duration = Duration::from_secs(20);
const TAKEN_OVER: Duration = Duration::from_secs(15);

/// Who leads the quorum.
fn leader_of_quorum(cluster: &Cluster) -> usize {
    let text = ours(cluster, &["cluster", "voters", "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let leads = rows.as_array().expect("rows").iter().find(|row| row["leads"] == true);
    let id = leads.and_then(|row| row["node"].as_u64()).expect("a leader");
    usize::try_from(id).expect("small") - 1
}

/// Waits until a node has ended by itself; what it said.
fn ended(cluster: &mut Cluster, index: usize) -> String {
    let node = cluster.nodes[index].as_mut().expect("running");
    let pause = Duration::from_millis(20);
    eventually_within(ENDED, pause, "the node ends by itself", || node.has_ended());
    assert_eq!(node.exit_code(), Some(COULD_NOT_GO_ON), "{}", node.said());
    let said = node.said();
    cluster.nodes[index] = None;
    said
}

/// Waits until nothing is led by a node any more.
fn taken_over(cluster: &Cluster, from: usize, begun: Instant) {
    let id = u64::try_from(from + 1).expect("small");
    let pause = Duration::from_millis(50);
    eventually_within(TAKEN_OVER, pause, "others lead", || {
        let leaders = leaders(cluster, "all");
        leaders.len() == 3 && leaders.iter().all(|leader| *leader > 0 && *leader != id)
    });
    println!("others lead {:?} after the fault", begun.elapsed());
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    sh(&format!("cp -a {} {}", from.display(), to.display())).expect("copied");
}

/// The numbers of those who lead a topic's partitions, as whoever answers knows them; 0 is nobody.
fn leaders(cluster: &Cluster, topic: &str) -> Vec<u64> {
    let words = ["topic", "describe", topic, "--format", "json", "-b", &cluster.bootstrap()];
    let output = run(&words);
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let leader = |row: &serde_json::Value| row["leader"].as_u64().unwrap_or(0);
    rows.as_array().map(|rows| rows.iter().map(leader).collect()).unwrap_or_default()
}

/// Three nodes, a client that produces, and the index of the node that leads the quorum and is about to have its fault.
fn under_load(folder: &Path) -> (Cluster, Judge, usize) {
    let cluster = Cluster::start(folder);
    let judge = Judge::start(&[], &cluster.bootstrap(), 22);
    std::thread::sleep(Duration::from_secs(3));
    let active = leader_of_quorum(&cluster);
    (cluster, judge, active)
}

/// The rest goes on without it, nothing is lost, and it comes back.
fn goes_on(mut cluster: Cluster, judge: Judge) {
    ours(&cluster, &["topic", "create", "decided", "-r", "2"]);
    assert!(judge.verdict() > 1_000, "too little was produced");
    cluster.start_missing();
    cluster.wait_healthy();
}

#[test]
fn a_leader_whose_quorum_task_panics_ends_with_70_and_others_lead() {
    if !cfg!(debug_assertions) {
        println!("skipped: it takes the debug assertions of the consensus library");
        return;
    }
    let (folder, _) = folder();
    let (mut cluster, judge, active) = under_load(folder.path());
    // The disk of a follower is put back to what it was a while ago: it promised to have what it no longer has, and the leader,
    // which counted on it, has to give up.
    let follower = (active + 1) % 3;
    let metadata = cluster.places[follower].data.join("__cluster_metadata-0");
    let aside = folder.path().join("aside");
    cluster.kill(follower);
    copy(&metadata, &aside);
    cluster.start_missing();
    assert_eq!(leader_of_quorum(&cluster), active, "a restart of a follower changes no leader");
    for round in 0..3 {
        ours(&cluster, &["topic", "create", &format!("later{round}"), "-r", "3"]);
    }
    cluster.wait_healthy();
    cluster.kill(follower);
    copy(&aside, &metadata);
    let begun = Instant::now();
    cluster.start_missing();
    let said = ended(&mut cluster, active);
    assert!(said.contains("the task 'quorum' panicked at"), "{said}");
    taken_over(&cluster, active, begun);
    goes_on(cluster, judge);
}

#[test]
fn a_leader_whose_metadata_can_be_written_no_more_ends_with_70_and_others_lead() {
    let (folder, _) = folder();
    let (mut cluster, judge, active) = under_load(folder.path());
    let metadata = cluster.places[active].data.join("__cluster_metadata-0");
    let begun = Instant::now();
    std::fs::rename(&metadata, folder.path().join("aside")).expect("moved");
    // Whatever is decided next finds out.
    let _ = run(&["topic", "create", "later", "-r", "3", "-b", &cluster.bootstrap()]);
    let said = ended(&mut cluster, active);
    // Which of its tasks ends first is nobody's promise.
    assert!(said.contains("metadata log not written"), "{said}");
    taken_over(&cluster, active, begun);
    std::fs::rename(folder.path().join("aside"), &metadata).expect("put back");
    goes_on(cluster, judge);
}
