//! The folders of all nodes are deleted, and a new cluster has everything again that was in the bucket.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::broker::{BINARY, folder, run};
use crate::cluster::Cluster;
use crate::kit::{eventually, java, succeed};
use crate::operations::ours;
use crate::tier::S3;
use crate::tiering::{cluster_on, files, manifests};

const LINES: usize = 20_000;
const READ: usize = 7_500;

/// The commands of a page, block by block.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1);
    blocks.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block.to_owned()).collect()
}

fn lines(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|number| format!("line {number:06}")).collect()
}

fn produce(cluster: &Cluster, folder: &std::path::Path, topic: &str, what: &BTreeSet<String>) {
    let input = folder.join("input");
    let text = what.iter().fold(String::new(), |all, line| all + line + "\n");
    std::fs::write(&input, text).expect("written");
    let mut command = Command::new(BINARY);
    command.args(["produce", topic, "-b", &cluster.bootstrap()]);
    let input = std::fs::File::open(&input).expect("a file");
    assert!(command.stdin(input).stdout(Stdio::null()).status().expect("runs").success());
}

/// Runs the commands of the page as somebody would who follows it.
fn run_page(s3: &S3, bootstrap: &str) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating/restore.md");
    let blocks = commands(&std::fs::read_to_string(page).expect("the page"));
    assert_eq!(blocks.len(), 3);
    let path = std::env::join_paths(
        std::path::Path::new(BINARY)
            .parent()
            .map(std::path::Path::to_path_buf)
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").expect("a path"))),
    );
    let path = path.expect("a path");
    for block in &blocks {
        let mut command = s3.shell(&format!("set -eu\n{block}"));
        command.envs([("BUCKET", "s3://lab/tier"), ("STRANDLINE_BOOTSTRAP", bootstrap)]);
        println!("{block}{}", succeed(command.env("PATH", &path)));
    }
}

#[test]
fn when_all_disks_are_gone_the_commands_of_the_page_bring_everything_back_from_the_bucket() {
    let (folder, _) = folder();
    let s3 = S3::start(folder.path());
    let old = cluster_on(s3.settings(), folder.path());
    let tiered = ["-c", "remote.storage.enable=true", "-c", "segment.ms=1500"];
    let more =
        ["-p", "3", "-r", "3", "-c", "local.retention.ms=1", "-c", "max.message.bytes=2777777"];
    ours(&old, &[&["topic", "create", "orders"][..], &tiered, &more].concat());
    ours(&old, &[&["topic", "create", "empty", "-p", "2"][..], &tiered].concat());
    ours(&old, &["topic", "create", "local", "-p", "1"]);
    produce(&old, folder.path(), "orders", &lines(0..LINES));
    let wanted = READ.to_string();
    let read = ours(&old, &["consume", "orders", "-g", "readers", "-o", "start", "-n", &wanted]);
    let read: BTreeSet<String> = read.lines().map(str::to_owned).collect();
    assert_eq!(read.len(), READ);
    let bucket = folder.path().join("data/lab");
    let all = i64::try_from(LINES).expect("small");
    eventually("everything is in the bucket, and where the group is", || {
        let offsets = files(&bucket.join("tier/groups"), "*.json");
        let text: String = offsets.iter().filter_map(|p| std::fs::read_to_string(p).ok()).collect();
        manifests(&bucket).0.iter().map(|(_, end)| end).sum::<i64>() == all
            && text.matches("\"orders\"").count() == 3
            && files(&bucket, "topic.json").len() == 2
    });
    let described = ours(&old, &["topic", "describe", "orders"]);
    drop(old);
    for node in 1..=3 {
        std::fs::remove_dir_all(folder.path().join(format!("node{node}"))).expect("removed");
    }

    let new = cluster_on(s3.settings(), folder.path());
    run_page(&s3, &new.bootstrap());
    // A second time changes nothing.
    let mut again = s3.ours(&["tier", "restore", "s3://lab/tier", "-b", &new.bootstrap()]);
    let said = succeed(&mut again);
    assert_eq!(said.matches("restored before").count(), 2, "{said}");

    let back = ours(&new, &["topic", "describe", "orders"]);
    for setting in ["max.message.bytes=2777777", "segment.ms=1500", "local.retention.ms=1"] {
        assert!(described.contains(setting) && back.contains(setting), "{setting}: {back}");
    }
    let rest = ours(&new, &["consume", "orders", "-g", "readers", "-e"]);
    let rest: Vec<String> = rest.lines().map(str::to_owned).collect();
    assert_eq!(rest.len(), LINES - READ, "the group goes on where it was");
    assert!(rest.iter().all(|line| !read.contains(line)));
    produce(&new, folder.path(), "orders", &lines(LINES..2 * LINES));
    produce(&new, folder.path(), "empty", &lines(0..10));
    let bootstrap = new.bootstrap();
    let arguments = ["--bootstrap-server", &bootstrap, "--topic", "orders", "--from-beginning"];
    let stop = ["--max-messages", &(2 * LINES).to_string(), "--timeout-ms", "20000"];
    let consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let seen = succeed(java(consumer, &[]).args(arguments).args(stop));
    let seen: Vec<String> = seen.lines().map(str::to_owned).collect();
    assert_eq!(seen.len(), 2 * LINES);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), lines(0..2 * LINES));
    eventually("what is new is copied after what was", || {
        manifests(&bucket).0.iter().map(|(_, end)| end).sum::<i64>() == 2 * all + 10
    });

    // A topic that the bucket has nothing of takes no records, and can be deleted.
    let nothing = "remote.storage.restore=12345678-1234-1234-1234-123456789abc@4";
    ours(&new, &[&["topic", "create", "nothing", "-p", "1", "-c", nothing][..], &tiered].concat());
    let refused = run(&["consume", "nothing", "-o", "start", "-e", "-b", &new.bootstrap()]);
    assert!(!refused.status.success());
    ours(&new, &["topic", "rm", "nothing"]);
}

#[test]
fn where_the_only_disk_that_had_it_is_lost_the_bucket_still_has_what_was_copied() {
    let (folder, _) = folder();
    let s3 = S3::start(folder.path());
    let mut cluster = cluster_on(s3.settings(), folder.path());
    // Brokers that do not vote, so that the cluster goes on without them.
    let (full, short) =
        (cluster.add(folder.path(), false, &[]), cluster.add(folder.path(), false, &[]));
    let bootstrap = cluster.bootstrap();
    let create = ["--bootstrap-server", &bootstrap, "--create", "--topic", "t"];
    let tiered = ["--config", "remote.storage.enable=true", "--config", "segment.ms=1500"];
    let alone = ["--config", "min.insync.replicas=1"];
    let placed = ["--replica-assignment", &format!("{full}:{short}")];
    succeed(
        java("org.apache.kafka.tools.TopicCommand", &create).args(tiered).args(alone).args(placed),
    );
    produce(&cluster, folder.path(), "t", &lines(0..1_000));
    cluster.wait_healthy();
    cluster.kill(short - 1);
    produce(&cluster, folder.path(), "t", &lines(1_000..LINES));
    let bucket = folder.path().join("data/lab");
    let all = i64::try_from(LINES).expect("small");
    eventually("everything is in the bucket", || {
        manifests(&bucket).0.iter().map(|(_, end)| end).sum::<i64>() == all
    });
    cluster.kill(full - 1);
    std::fs::remove_dir_all(folder.path().join(format!("node{full}"))).expect("removed");
    cluster.start_missing();
    // Nobody is left who is known to have everything: somebody says that one is to lead all the same.
    let elect = ["--bootstrap-server", &bootstrap, "--election-type", "unclean"];
    let elect = [&elect[..], &["--topic", "t", "--partition", "0"]].concat();
    let elected =
        crate::kit::finish(&mut java("org.apache.kafka.tools.LeaderElectionCommand", &elect));
    println!("{}", String::from_utf8_lossy(&elected.stdout));
    eventually("it is led again", || {
        let read = run(&["consume", "t", "-o", "start", "-e", "-b", &bootstrap]);
        read.status.success() && !read.stdout.is_empty()
    });
    let read = ours(&cluster, &["consume", "t", "-o", "start", "-e"]);
    assert_eq!(read.lines().map(str::to_owned).collect::<BTreeSet<_>>(), lines(0..LINES));
    produce(&cluster, folder.path(), "t", &lines(LINES..LINES + 10));
    cluster.wait_healthy();
    let read = ours(&cluster, &["consume", "t", "-o", "start", "-e"]);
    assert_eq!(read.lines().count(), LINES + 10);
    assert_eq!(read.lines().map(str::to_owned).collect::<BTreeSet<_>>(), lines(0..LINES + 10));
}
