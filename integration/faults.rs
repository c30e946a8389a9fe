//! Damaged files, foreign folders, full disks: each with the outcome that the documentation promises.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broker::{Broker, folder, run};
use crate::first_run::{cli, consume, produce};
use crate::kit::eventually;

/// A stopped broker's folder with two topics of a hundred records each.
fn filled() -> (tempfile::TempDir, PathBuf) {
    let (folder, data) = folder();
    let broker = Broker::start(&data);
    for topic in ["good", "bad"] {
        for round in 0..10 {
            let lines: String =
                (0..10).fold(String::new(), |all, n| all + &format!("{round}-{n}\n"));
            assert!(produce(&broker, topic, &lines).0);
        }
    }
    assert!(broker.terminate().success());
    (folder, data)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("readable");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

fn segment(data: &Path, ending: &str) -> PathBuf {
    data.join("bad-0").join(format!("00000000000000000000.{ending}"))
}

fn verify(data: &Path) -> (bool, String) {
    let output = run(&["log", "verify", &data.display().to_string()]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_flipped_bit_in_a_record_is_found_by_verify_and_by_its_reader() {
    let (_folder, data) = filled();
    assert!(verify(&data).0);
    flip(&segment(&data, "log"), 100);
    let (is_good, text) = verify(&data);
    assert!(!is_good && text.contains("bad-0") && text.contains("checksum differs"), "{text}");
    let broker = Broker::start(&data);
    assert_eq!(consume(&broker, "good").lines().count(), 100);
}

#[test]
fn a_file_that_lost_flushed_bytes_takes_its_partition_offline_and_no_other() {
    let (_folder, data) = filled();
    let file = std::fs::OpenOptions::new().write(true).open(segment(&data, "log")).expect("opens");
    file.set_len(300).expect("cut");
    drop(file);
    let broker = Broker::start(&data);
    assert_eq!(consume(&broker, "good").lines().count(), 100);
    let health = run(&["cluster", "health", "-b", &broker.address]);
    let text = String::from_utf8_lossy(&health.stderr).into_owned();
    assert!(
        !health.status.success() && text.contains("have no leader") && text.contains("bad-0"),
        "{text}"
    );
    assert!(produce(&broker, "good", "more\n").0);
}

#[test]
fn missing_and_damaged_indexes_are_made_again() {
    let (_folder, data) = filled();
    for ending in ["index", "timeindex"] {
        let path = segment(&data, ending);
        if path.exists() {
            std::fs::write(&path, [9; 13]).expect("written");
        }
    }
    let _ = std::fs::remove_file(data.join("good-0/00000000000000000000.index"));
    let broker = Broker::start(&data);
    for topic in ["good", "bad"] {
        assert_eq!(consume(&broker, topic).lines().count(), 100, "{topic}");
    }
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_served() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    assert!(produce(&broker, "bad", "one\ntwo\n").0);
    broker.kill();
    let log = segment(&data, "log");
    let mut bytes = std::fs::read(&log).expect("readable");
    let half = bytes.get(..40).expect("bytes").to_vec();
    bytes.extend(half);
    std::fs::write(&log, bytes).expect("written");
    let broker = Broker::start(&data);
    assert_eq!(consume(&broker, "bad"), "one\ntwo\n");
    assert!(produce(&broker, "bad", "three\n").0);
    assert_eq!(consume(&broker, "bad"), "one\ntwo\nthree\n");
}

#[test]
fn a_damaged_checkpoint_is_named_and_nothing_is_served_on_a_guess() {
    let (_folder, data) = filled();
    flip(&data.join("recovery-points"), 40);
    let dirs = format!("log.dirs={}", data.display());
    let listen = "listeners=PLAINTEXT://127.0.0.1:0";
    let output = run(&["serve", "--set", &dirs, "--set", listen, "--set", "http.listen="]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("recovery-points"), "{text}");
}

#[test]
fn a_folder_of_another_cluster_or_node_is_refused() {
    let (_one, first) = filled();
    let (_two, second) = filled();
    let dirs = format!("log.dirs={},{}", first.display(), second.display());
    let listen = "listeners=PLAINTEXT://127.0.0.1:0";
    let refused = |settings: &[&str]| {
        let mut arguments = vec!["serve", "--set", listen, "--set", "http.listen="];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        let output = run(&arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&[&dirs]).contains("belongs to cluster"));
    let one = format!("log.dirs={}", first.display());
    assert!(refused(&[&one, "node.id=7"]).contains("belongs to node"));
}

#[test]
fn a_broker_without_its_metadata_does_not_begin_anew() {
    let (_folder, data) = filled();
    let dirs = format!("log.dirs={}", data.display());
    let listen = "listeners=PLAINTEXT://127.0.0.1:0";
    let start = || run(&["serve", "--set", &dirs, "--set", listen, "--set", "http.listen="]);
    std::fs::rename(data.join("__cluster_metadata-0"), data.join("aside")).expect("moved");
    let output = start();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("the metadata is in a log directory"),
        "{text}"
    );
    std::fs::rename(data.join("aside"), data.join("__cluster_metadata-0")).expect("moved");
    let broker = Broker::start(&data);
    assert_eq!(consume(&broker, "good").lines().count(), 100);
}

#[test]
fn a_full_disk_refuses_producers_and_serves_them_again_when_there_is_room() {
    let (folder, data) = folder();
    std::fs::create_dir_all(&data).expect("made");
    // A small file system in a namespace of our own.
    let mount = |program: &str| {
        let script =
            format!("mount -t tmpfs -o size=24m tmpfs '{}' && exec {program}", data.display());
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]);
        command
    };
    if !mount("true").status().is_ok_and(|status| status.success()) {
        println!("skipped: this machine makes no mount namespaces (unshare -rm)");
        return;
    }
    let broker = Broker::start_command(mount(&format!(
        "{} serve --set log.dirs='{}' --set listeners=PLAINTEXT://127.0.0.1:0 \
             --set http.listen=127.0.0.1:0 --set log.dirs.min.free.bytes=4194304",
        crate::broker::BINARY,
        data.display()
    )));
    cli(&broker, &["topic", "create", "big", "-c", "file.delete.delay.ms=0"]);
    assert!(produce(&broker, "small", "kept\n").0);
    let lines: String = (0..1000).fold(String::new(), |all, _| all + &"x".repeat(1000) + "\n");
    let mut refused = None;
    for _ in 0..60 {
        let (is_good, text) = produce(&broker, "big", &lines);
        if !is_good {
            refused = Some(text);
            break;
        }
    }
    let refused = refused.expect("the disk is full at last");
    assert!(refused.contains("KafkaStorageError"), "{refused}");
    assert_eq!(consume(&broker, "small"), "kept\n", "reads go on");
    cli(&broker, &["topic", "rm", "big"]);
    eventually("producers are served again", || produce(&broker, "small", "more\n").0);
    drop(folder);
}
