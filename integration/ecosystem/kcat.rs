//! kcat: lines in, lines out, with every codec, by partition and by group, while the broker is killed.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::installs::has_packages;
use super::{Phoenix, create};
use crate::broker::folder;
use crate::kit::succeed;

fn kcat(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(["-b", address, "-X", "broker.address.family=v4"]).args(arguments);
    command
}

/// A kcat that produces what is written to it, each line once.
fn producer(address: &str, arguments: &[&str]) -> Child {
    // Without -E it gives up when its only broker is away.
    let mut command = kcat(address, &["-P", "-E", "-K", "=", "-X", "enable.idempotence=true"]);
    command.args(["-X", "linger.ms=5", "-X", "reconnect.backoff.max.ms=200"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("kcat runs")
}

fn end(producer: Child) {
    let output = producer.wait_with_output().expect("kcat ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn lines(codec: &str, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("{codec}-{n}={}", format!("value {n} ").repeat(5))).collect()
}

#[test]
fn kcat_finds_every_line_in_its_place_once_with_every_codec_though_the_broker_was_killed() {
    if !has_packages(&["kcat"], &["kcat"]) {
        return;
    }
    let (_folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    let address = broker.address.clone();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let mut producers = Vec::new();
    for codec in codecs {
        create(&address, codec, "1");
        producers.push((codec, producer(&address, &["-t", codec, "-z", codec])));
    }
    let mut feed = |range: std::ops::Range<u32>| {
        for (codec, producer) in &mut producers {
            let text = lines(codec, range.clone()).join("\n") + "\n";
            let input = producer.stdin.as_mut().expect("piped");
            input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("kcat listens");
        }
    };
    // Before, while, and after the broker is away.
    feed(0..2_000);
    std::thread::sleep(Duration::from_millis(300));
    feed(2_000..3_000);
    broker.kill();
    feed(3_000..4_000);
    broker.rise();
    feed(4_000..5_000);
    for (codec, mut producer) in producers {
        drop(producer.stdin.take());
        end(producer);
        let read = succeed(&mut kcat(
            &address,
            &["-C", "-t", codec, "-o", "beginning", "-e", "-q", "-K", "="],
        ));
        let expected = lines(codec, 0..5_000);
        assert!(read.lines().eq(expected.iter().map(String::as_str)), "{codec}: {}", read.len());
    }
}

#[test]
fn kcat_lists_asks_for_times_and_reads_as_a_group_that_goes_on_where_it_ended() {
    if !has_packages(&["kcat"], &["kcat"]) {
        return;
    }
    let (_folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    let address = broker.address.clone();
    create(&address, "many", "3");
    let mut written = BTreeSet::new();
    let mut read = BTreeSet::new();
    for round in 0..2 {
        let more = lines("many", round * 300..(round + 1) * 300);
        let mut producer = producer(&address, &["-t", "many", "-H", "round=1", "-H", "empty="]);
        let text = more.join("\n") + "\n";
        producer.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        end(producer);
        written.extend(more);
        let arguments =
            ["-G", "cats", "-e", "-q", "-f", "%h|%k=%s\n", "-X", "auto.offset.reset=earliest"];
        let found = succeed(kcat(&address, &arguments).arg("many"));
        for line in found.lines() {
            let line = line.strip_prefix("round=1,empty=|").expect("headers").to_owned();
            assert!(read.insert(line), "the group read a line again in round {round}");
        }
        assert!(read == written, "round {round}: {} of {}", read.len(), written.len());
        broker.kill_and_rise();
    }
    let listed = succeed(&mut kcat(&address, &["-L", "-J", "-t", "many"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["topics"][0]["partitions"].as_array().map(Vec::len), Some(3), "{listed}");
    let ends = (0..3).map(|partition| {
        let asked = format!("many:{partition}:-1");
        let told = succeed(&mut kcat(&address, &["-Q", "-t", &asked]));
        told.rsplit(' ').next().and_then(|end| end.trim().parse::<usize>().ok()).expect("an offset")
    });
    assert_eq!(ends.sum::<usize>(), written.len());
}
