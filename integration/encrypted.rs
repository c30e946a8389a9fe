//! A bucket that nobody can read without the brokers' keys, while those change.

use std::path::Path;
use std::process::Command;

use crate::broker::{folder, run};
use crate::kit::{eventually, java, succeed};
use crate::tiering::{Alone, files, manifests, metrics};

const LINES: i64 = 6_000;

/// The ids of keys that the bucket's only partition says it is encrypted with.
fn key_ids(tier: &str) -> String {
    let listed = run(&["tier", "ls", tier, "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    rows[0]["keys"].as_str().expect("keys").to_owned()
}

/// A line for a file of keys, and its id.
fn new_key() -> (String, String) {
    let made = String::from_utf8(run(&["tier", "key"]).stdout).expect("text");
    let id = made.split_once('=').expect("ID=BASE64").0.to_owned();
    (made, id)
}

fn shows(folder: &Path, ending: &str, text: &str) -> bool {
    let shows = |path| {
        std::fs::read(path).expect("a file").windows(text.len()).any(|w| w == text.as_bytes())
    };
    files(folder, ending).into_iter().any(shows)
}

fn lines(from: i64, to: i64) -> String {
    (from..to).fold(String::new(), |all, number| all + &format!("secret {number:06}\n"))
}

#[test]
fn an_encrypted_bucket_is_read_with_its_keys_only_and_keys_change_while_it_is_in_use() {
    let (folder, data) = folder();
    let (tier, keys) = (folder.path().join("tier"), folder.path().join("keys"));
    let (url, path) = (format!("file:{}", tier.display()), keys.display().to_string());
    let ((first, first_id), (second, second_id)) = (new_key(), new_key());
    std::fs::write(&keys, &first).expect("written");
    let setting = format!("remote.storage.encryption.keys={path}");
    let alone = Alone::begin_with(&data, tier.clone(), &[&setting]);
    let tiered = ["-c", "remote.storage.enable=true", "-c", "segment.ms=1000"];
    let create = ["topic", "create", "t", "-p", "1", "-c", "local.retention.ms=1"];
    alone.ours(&[&create[..], &tiered].concat());
    alone.send(folder.path(), "t", &lines(0, LINES));
    eventually("all of it is in the bucket, and nothing is here", || {
        manifests(&tier).0 == [(0, LINES)] && alone.offset_of("t", "earliest-local") == LINES
    });
    assert!(!shows(&tier, "*.log", "secret") && !shows(&tier, "*.json", "secret"));
    assert_eq!(key_ids(&url), first_id);
    let read = || alone.ours(&["consume", "t", "-o", "start", "-e"]);
    assert_eq!(read(), lines(0, LINES));
    // Whoever has the bucket and no key learns nothing of it but that.
    assert!(run(&["tier", "verify", &url, "--keys", &path]).status.success());
    let refused = run(&["tier", "verify", &url]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&first_id), "{said}");

    // A wrong file changes nothing; with a new key in front nothing is written but manifests.
    std::fs::write(&keys, "nonsense").expect("written");
    let objects = files(&tier, "*.log");
    std::fs::write(&keys, format!("{second}{first}")).expect("written");
    eventually("the new key wraps all", || key_ids(&url) == second_id);
    assert_eq!(files(&tier, "*.log"), objects);
    std::fs::write(&keys, &second).expect("written");
    alone.send(folder.path(), "t", &lines(LINES, 2 * LINES));
    eventually("what is new is in the bucket too", || manifests(&tier).0 == [(0, 2 * LINES)]);
    assert_eq!(read(), lines(0, 2 * LINES));
    assert!(alone.broker.terminate().success());

    // The disk is gone, and so is the first key.
    std::fs::remove_dir_all(&data).expect("removed");
    assert!(run(&["tier", "verify", &url, "--keys", &path]).status.success());
    let cache = folder.path().join("cache");
    let dir = format!("remote.fetch.disk.cache.dir={}", cache.display());
    let alone = Alone::begin_with(&data, tier.clone(), &[&setting, &dir]);
    alone.ours(&["tier", "restore", &url]);
    assert_eq!(alone.ours(&["consume", "t", "-o", "start", "-e"]), lines(0, 2 * LINES));
    let consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let arguments = ["--bootstrap-server", &alone.address, "--topic", "t", "--from-beginning"];
    let stop = ["--max-messages", &(2 * LINES).to_string(), "--timeout-ms", "20000"];
    assert_eq!(succeed(java(consumer, &[]).args(arguments).args(stop)), lines(0, 2 * LINES));
    // What stays on the disk is as it is in the bucket.
    eventually("what was read is on the disk", || files(&cache, "*-trailer").len() > 1);
    assert!(!shows(&cache, "*", "secret"));
    assert!(alone.broker.terminate().success());
    let alone = Alone::begin_with(&data, tier.clone(), &[&setting, &dir]);
    assert_eq!(alone.ours(&["consume", "t", "-o", "start", "-e"]), lines(0, 2 * LINES));
    let metrics = metrics(&alone.broker);
    let hits =
        metrics.lines().find(|line| line.starts_with("strandline_remote_disk_cache_hits_total"));
    assert!(hits.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    assert!(alone.broker.terminate().success());

    // A broker without keys says so, and one with a file that is none does not start.
    let alone = Alone::begin(&data, tier);
    let consume = ["consume", "t", "-o", "start", "-n", "1", "-b", &alone.address];
    let mut consume = Command::new(crate::broker::BINARY).args(consume).spawn().expect("runs");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(consume.try_wait().expect("waits").is_none_or(|ended| !ended.success()));
    let _ = consume.kill();
    let _ = consume.wait();
    std::fs::write(&keys, "nonsense").expect("written");
    let tier = format!("remote.storage.url={url}");
    let refused = run(&["serve", "--check-config", "--set", &setting, "--set", &tier]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("line 1 is not of the form"), "{said}");
}
