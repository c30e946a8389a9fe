//! A topic comes again under the name of one that was deleted, with its records in the bucket only: made, mounted and restored, it shows
//! its own records and nothing of the other's, whatever is kept of that in memory and on disks.

use std::path::Path;

use crate::broker::folder;
use crate::kit::{eventually, java, python_script, succeed};
use crate::tiered_sizes::metric;
use crate::tiering::{Alone, files, manifests, metrics};

/// Lines that tell which life of the topic they are of.
fn lines(life: &str, count: usize, bytes: usize) -> String {
    let fill = "y".repeat(bytes);
    (0..count).fold(String::new(), |all, number| all + &format!("{life}{number:06}{fill}\n"))
}

fn create(alone: &Alone) {
    let create = ["topic", "create", "t", "-p", "1", "-c", "remote.storage.enable=true"];
    let small = ["-c", "segment.bytes=1048576", "-c", "segment.ms=1500"];
    let gone = ["-c", "local.retention.ms=1", "-c", "file.delete.delay.ms=100"];
    alone.ours(&[&create[..], &small, &gone].concat());
}

/// Produces, and waits until all of it is in the bucket, and there only.
fn fill(alone: &Alone, folder: &Path, data: &Path, lines: &str) {
    alone.send(folder, "t", lines);
    let count = i64::try_from(lines.lines().count()).expect("small");
    eventually("it is in the bucket", || manifests(&alone.tier).0.contains(&(0, count)));
    eventually("and there only", || {
        let logs = files(&data.join("t-0"), "*.log");
        logs.len() == 1 && logs[0].metadata().is_ok_and(|log| log.len() == 0)
    });
}

/// Every client reads exactly these lines.
fn check(alone: &Alone, folder: &Path, topic: &str, lines: &str) {
    assert!(alone.ours(&["consume", topic, "-o", "start", "-e"]) == lines, "{topic}");
    let wanted = folder.join("wanted");
    std::fs::write(&wanted, lines).expect("written");
    print!("{}", succeed(python_script("exactly.py").args([&alone.address, topic]).arg(&wanted)));
    let arguments = ["--bootstrap-server", &alone.address, "--topic", topic, "--from-beginning"];
    let mut consumer = java("org.apache.kafka.tools.consumer.ConsoleConsumer", &arguments);
    let count = lines.lines().count();
    let stop = ["--max-messages", &count.to_string(), "--timeout-ms", "20000"];
    let read = consumer.args(stop).output().expect("runs").stdout;
    assert!(read == lines.as_bytes(), "Java: {} bytes of {topic}", read.len());
    assert_eq!(alone.offset_of(topic, "latest"), i64::try_from(count).expect("small"));
}

#[test]
fn a_tiered_topic_that_comes_again_shows_nothing_of_the_one_that_had_its_name() {
    let (folder, data) = folder();
    let folder = folder.path();
    let tier = folder.join("tier");
    let cache = |name: &str| {
        let dir = folder.join(name).display().to_string();
        [format!("remote.fetch.disk.cache.dir={dir}"), "remote.fetch.cache.bytes=16777216".into()]
    };
    let cached = cache("cache");
    let source = Alone::begin_with(&data, tier.clone(), &[&cached[0], &cached[1]]);
    let url = format!("file:{}", tier.display());
    let urls = format!("remote.storage.mount.urls={url}");
    let cached = cache("other-cache");
    let more = [&urls, "remote.storage.mount.refresh.ms=500", &cached[0], &cached[1]];
    let reader = Alone::begin_with(&folder.join("reader"), folder.join("own"), &more);
    let mount = ["tier", "mount", &url, "--topic", "t", "--as", "copy", "-b", &reader.address];

    // Of the same sizes, so that whatever is kept of the first one would fit the second one too; then of others.
    let lives =
        [lines("first ", 2_600, 1_000), lines("other ", 2_600, 1_000), lines("third", 777, 3)];
    for (life, lines) in lives.iter().enumerate() {
        create(&source);
        fill(&source, folder, &data, lines);
        check(&source, folder, "t", lines);
        let group = ["consume", "t", "-g", "readers", "-o", "start", "-e"];
        assert!(
            source.ours(&group) == *lines,
            "a group reads the topic that there is, life {life}"
        );
        let told = metrics(&source.broker);
        let bytes = metric(&told, "strandline_remote_bytes", "t");
        let all = f64::from(u32::try_from(lines.len()).expect("small"));
        assert!((all * 0.9..all * 1.6).contains(&bytes), "{bytes} for {all}");
        succeed(std::process::Command::new(crate::broker::BINARY).args(mount));
        eventually("what is mounted is seen", || {
            reader.ours(&["consume", "copy", "-o", "start", "-e"]).lines().count()
                == lines.lines().count()
        });
        check(&reader, folder, "copy", lines);
        if life + 1 < lives.len() {
            source.ours(&["topic", "rm", "t"]);
            reader.ours(&["topic", "rm", "copy"]);
            eventually("the bucket has nothing of it", || manifests(&tier).0.is_empty());
        }
    }
    assert!(reader.broker.terminate().success() && source.broker.terminate().success());

    // Nothing but the bucket is left, and what the broker keeps of it on its disk.
    std::fs::remove_dir_all(&data).expect("removed");
    let cached = cache("cache");
    let source = Alone::begin_with(&data, tier.clone(), &[&cached[0], &cached[1]]);
    let restore = ["tier", "restore", &url, "-b", &source.address];
    succeed(std::process::Command::new(crate::broker::BINARY).args(restore));
    eventually("it is restored", || {
        source.ours(&["consume", "t", "-o", "start", "-e"]) == lives[2]
    });
    check(&source, folder, "t", &lives[2]);
    source.ours(&["topic", "rm", "t"]);
    eventually("the bucket has nothing of it", || manifests(&tier).0.is_empty());
    create(&source);
    fill(&source, folder, &data, &lives[1]);
    check(&source, folder, "t", &lives[1]);
    assert!(source.broker.terminate().success());
}
