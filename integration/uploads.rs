//! Uploads in parts that a broker does not live to finish.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::broker::{BINARY, Broker, folder, run};
use crate::kit::eventually;
use crate::tier::S3;
use crate::tiering::{files, manifests};

/// Records of a kilobyte, more than a segment of 25 MB.
const LINES: usize = 30_000;

/// What the server holds of uploads that are not finished; it keeps them in a folder of its own in the bucket.
fn parts(bucket: &Path) -> usize {
    files(&bucket.join(".sgwtmp"), "*").len()
}

fn start(s3: &S3, data: &Path, more: &[&str]) -> Broker {
    let bucket = s3.settings();
    let often = ["remote.log.manager.task.interval.ms=300", "log.dirs.min.free.bytes=0"];
    let settings: Vec<&str> =
        bucket.iter().map(String::as_str).chain(often).chain(more.iter().copied()).collect();
    Broker::start_with(data, &settings)
}

#[test]
fn an_upload_that_a_killed_broker_left_is_gone_from_the_store_with_its_topic() {
    let (folder, data) = folder();
    let s3 = S3::start(folder.path());
    let bucket = folder.path().join("data/lab");
    // So slow that there is time to kill it.
    let slow = "remote.log.manager.copy.max.bytes.per.second=3000000";
    let broker = start(&s3, &data, &[slow]);
    let ours = |broker: &Broker, words: &[&str]| {
        let output = run(&[words, &["-b", &broker.address]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let create = ["topic", "create", "t", "-p", "1", "-c", "remote.storage.enable=true"];
    ours(&broker, &[&create[..], &["-c", "segment.bytes=25000000"]].concat());
    let lines: String = (0..LINES).fold(String::new(), |all, n| all + &format!("{n:0999}\n"));
    std::fs::write(folder.path().join("input"), lines).expect("written");
    let produced = Command::new(BINARY)
        .args(["produce", "t", "-b", &broker.address])
        .stdin(std::fs::File::open(folder.path().join("input")).expect("a file"))
        .stdout(Stdio::null())
        .status();
    assert!(produced.expect("runs").success());
    eventually("parts are there, and a note of them", || {
        parts(&bucket) > 1 && files(&bucket.join("tier"), "*.upload").len() == 1
    });
    broker.kill();
    let left = parts(&bucket);
    assert!(left > 1 && files(&bucket, "*.log").is_empty());

    // The next copy is one of its own; what was left is told by its note until hours are over, or the topic is deleted.
    let broker = start(&s3, &data, &[]);
    eventually("the segment is copied", || {
        manifests(&bucket).0.iter().any(|(start, end)| *start == 0 && *end > 20_000)
    });
    assert_eq!((parts(&bucket), files(&bucket.join("tier"), "*.upload").len()), (left, 1));
    ours(&broker, &["topic", "rm", "t"]);
    eventually("nothing of it is left", || {
        parts(&bucket) == 0
            && ["*.log", "*.upload", "manifest.json"].iter().all(|e| files(&bucket, e).is_empty())
    });
    assert!(broker.terminate().success());
}
