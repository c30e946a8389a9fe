//! A topic of one cluster is read in another one, from the bucket of the first.

use std::process::{Command, Stdio};

use crate::broker::{BINARY, folder, run};
use crate::cluster::Cluster;
use crate::kit::{eventually, go_client, java, python_script, succeed};
use crate::operations::ours;
use crate::tiering::{Alone, files, manifests};

const LINES: i64 = 8_000;

fn lines(range: std::ops::Range<i64>) -> String {
    range.fold(String::new(), |all, number| all + &format!("{number:06}\n"))
}

#[test]
fn a_mounted_topic_shows_what_the_other_cluster_has_copied_and_nothing_changes_it() {
    let (folder, data) = folder();
    let tier = folder.path().join("tier");
    let source = Alone::begin(&data, tier.clone());
    let tiered = ["-c", "remote.storage.enable=true", "-c", "segment.ms=1000"];
    let create = ["topic", "create", "orders", "-p", "1", "-c", "local.retention.ms=1"];
    source.ours(&[&create[..], &tiered].concat());
    source.send(folder.path(), "orders", &lines(0..LINES));
    eventually("all of it is in the bucket", || manifests(&tier).0 == [(0, LINES)]);

    let url = format!("file:{}", tier.display());
    let refused = ["tier", "mount", &url, "--topic", "orders", "-b", &source.address];
    let refused = run(&[&refused[..], &["--as", "mine"]].concat());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("remote.storage.mount.urls"), "{said}");

    let urls = format!("remote.storage.mount.urls={url}");
    let settings = [urls.as_str(), "remote.storage.mount.refresh.ms=500"];
    let mut cluster = Cluster::start_with(Cluster::places(folder.path()), &settings);
    let mount = ["tier", "mount", &url, "--topic", "orders", "--as", "copy", "-r", "3"];
    print!("{}", ours(&cluster, &mount));
    let read = |cluster: &Cluster| ours(cluster, &["consume", "copy", "-o", "start", "-e"]);
    assert_eq!(read(&cluster), lines(0..LINES));
    let bootstrap = cluster.bootstrap();
    let consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let arguments = ["--bootstrap-server", &bootstrap, "--topic", "copy", "--from-beginning"];
    let stop = ["--max-messages", &LINES.to_string(), "--timeout-ms", "20000"];
    assert_eq!(succeed(java(consumer, &[]).args(arguments).args(stop)), lines(0..LINES));
    let one = bootstrap.split(',').next().expect("an address");
    print!("{}", succeed(Command::new(go_client()).args(["tiered", one, "copy"])));

    // What is new there is new here, through a change of leaders too, and by groups.
    source.send(folder.path(), "orders", &lines(LINES..LINES + 500));
    eventually("it is seen here", || read(&cluster) == lines(0..LINES + 500));
    let group = ["consume", "copy", "-g", "readers", "-o", "start", "-n", "5000"];
    assert_eq!(ours(&cluster, &group), lines(0..5_000));
    let before = leader(&cluster, "copy").expect("a leader");
    cluster.kill(before - 1);
    eventually("another one leads", || leader(&cluster, "copy").is_some_and(|now| now != before));
    let rest = ours(&cluster, &["consume", "copy", "-g", "readers", "-e"]);
    assert_eq!(rest, lines(5_000..LINES + 500));
    cluster.start_missing();
    cluster.wait_healthy();

    // Nobody writes to it, and nothing that is done to it reaches the bucket.
    let before = files(&tier, "*");
    let bootstrap = cluster.bootstrap();
    let mut produce = Command::new(BINARY);
    produce.args(["produce", "copy", "-b", &bootstrap]).stdin(Stdio::null());
    let input = std::fs::File::open(folder.path().join("input")).expect("a file");
    let refused = produce.stdin(input).output().expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("read only"), "{said}");
    let refused = ["topic", "alter", "copy", "remote.storage.mount=", "-b", &bootstrap];
    assert!(!run(&refused).status.success());
    print!("{}", succeed(python_script("mounted.py").args([&bootstrap, "copy"])));
    ours(&cluster, &["topic", "rm", "copy"]);
    print!("{}", ours(&cluster, &mount));
    assert_eq!(read(&cluster), lines(0..LINES + 500));
    assert_eq!(files(&tier, "*"), before);
    assert_eq!(source.ours(&["consume", "orders", "-o", "start", "-e"]), lines(0..LINES + 500));
    drop(cluster);
    assert!(source.broker.terminate().success());
}

/// Who leads the only partition of a topic; `None` while nobody says so.
fn leader(cluster: &Cluster, topic: &str) -> Option<usize> {
    let described =
        run(&["topic", "describe", topic, "--format", "json", "-b", &cluster.bootstrap()]);
    let rows: serde_json::Value = serde_json::from_slice(&described.stdout).ok()?;
    rows[0]["leader"].as_u64()?.try_into().ok()
}
