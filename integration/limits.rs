//! What a fetch over many partitions may bring at most, wherever their records are: on the disk, in the bucket, in another cluster's.

use crate::broker::folder;
use crate::kit::{eventually, python_script, succeed};
use crate::tiering::{Alone, manifests};

const PARTITIONS: usize = 16;
const COUNT: i64 = 40;

#[test]
fn a_fetch_over_many_partitions_obeys_its_limits_wherever_their_records_are() {
    let (folder, _) = folder();
    let (far, near) = (folder.path().join("far"), folder.path().join("near"));
    let source = Alone::begin(&folder.path().join("source"), far.clone());
    let url = format!("file:{}", far.display());
    let urls = format!("remote.storage.mount.urls={url}");
    let more = [urls.as_str(), "remote.storage.mount.refresh.ms=500"];
    let reader = Alone::begin_with(&folder.path().join("data"), near.clone(), &more);
    let partitions = PARTITIONS.to_string();
    let tiered = ["-c", "remote.storage.enable=true", "-c", "segment.ms=1000"];
    let gone = ["-c", "local.retention.ms=1", "-c", "file.delete.delay.ms=100"];
    let create = |alone: &Alone, topic: &str, more: &[&str]| {
        alone.ours(&[&["topic", "create", topic, "-p", &partitions], more].concat());
    };
    let count = COUNT.to_string();
    let limited = |alone: &Alone, mode: &str, topics: &[&str]| {
        let mut script = python_script("limited.py");
        script.args([mode, &alone.address, &partitions, &count]).args(topics);
        print!("{}", succeed(&mut script));
    };
    create(&source, "other", &[&tiered[..], &gone].concat());
    create(&reader, "tiered", &[&tiered[..], &gone].concat());
    create(&reader, "here", &[]);
    limited(&source, "fill", &["other"]);
    limited(&reader, "fill", &["tiered", "here"]);
    for tier in [&far, &near] {
        eventually("all of it is in the bucket", || {
            manifests(tier).0 == vec![(0, COUNT); PARTITIONS]
        });
    }
    eventually("and there only", || {
        (0..PARTITIONS).all(|partition| {
            let log = folder.path().join(format!("data/tiered-{partition}"));
            crate::tiering::files(&log, &format!("{COUNT:020}.log")).len() == 1
                && crate::tiering::files(&log, "*.log").len() == 1
        })
    });
    reader.ours(&["tier", "mount", &url, "--topic", "other", "--as", "mounted"]);
    eventually("what is mounted is seen", || {
        reader.ours(&["consume", "mounted", "-o", "start", "-e"]).lines().count()
            == PARTITIONS * usize::try_from(COUNT).expect("small")
    });
    limited(&reader, "read", &["here"]);
    limited(&reader, "read", &["tiered"]);
    limited(&reader, "read", &["mounted", "tiered", "here"]);
    limited(&reader, "read", &["here", "mounted", "tiered"]);
    assert!(source.broker.terminate().success() && reader.broker.terminate().success());
}
