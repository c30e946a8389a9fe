//! Whoever asks a broker to stop does not wait for what it does in the background.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, JoinGroupRequest, OffsetCommitRequest,
};

use crate::broker::{BINARY, Broker, folder, run};
use crate::first_run::{cli, consume, create};
use crate::kit::eventually;
use crate::plans::Plan;
use crate::tier::S3;
use crate::tiering::files;
use crate::wire::{Wire, fetch, name, text};

/// A stop takes no longer, but for what the machine needs for itself.
const STOP_MAX: Duration = Duration::from_secs(3);

fn stop(what: &str, broker: Broker) {
    let begun = Instant::now();
    assert!(broker.terminate().success(), "{what}");
    assert!(begun.elapsed() < STOP_MAX, "{what}: stopped after {:?}", begun.elapsed());
}

/// Sends records of a kilobyte, with keys.
fn fill(folder: &Path, broker: &Broker, topic: &str, keys: std::ops::Range<usize>) {
    let text: Vec<String> = keys.map(|key| format!("{key}:{key:01000}\n")).collect();
    std::fs::write(folder.join("input"), text.concat()).expect("written");
    let input = std::fs::File::open(folder.join("input")).expect("a file");
    let mut command = Command::new(BINARY);
    command.args(["produce", topic, "-k", ":", "-p", "0", "-b", &broker.address]);
    let sent = command.stdin(input).stdout(Stdio::null()).status();
    assert!(sent.expect("runs").success());
}

#[test]
fn a_stop_breaks_off_a_pass_of_the_cleaner_that_goes_slowly() {
    let (folder, data) = folder();
    let slow = ["log.cleaner.backoff.ms=200", "log.cleaner.io.max.bytes.per.second=150000"];
    let broker = Broker::start_with(&data, &slow);
    let settings = ["cleanup.policy=compact", "segment.bytes=2000000", "segment.ms=1500"];
    create(&broker, "t", &settings);
    for _ in 0..3 {
        fill(folder.path(), &broker, "t", 0..2_000);
    }
    std::thread::sleep(Duration::from_secs(3));
    stop("the cleaner", broker);
    assert!(data.join("clean-shutdown").exists());
    assert!(files(&data, "*.cleaned").is_empty());
    let broker = Broker::start(&data);
    let left = consume(&broker, "t").lines().count();
    assert!((2_500..=6_000).contains(&left), "{left} records: it had come to its end");
}

#[test]
fn a_stop_breaks_off_a_move_between_log_directories_which_goes_on_after_the_next_start() {
    let (folder, _) = folder();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let directories = format!("log.dirs={},{}", place("one"), place("two"));
    let rate = "replica.alter.log.dirs.io.max.bytes.per.second=200000";
    let broker = Broker::start_with(folder.path(), &[&directories, rate]);
    create(&broker, "t", &[]);
    fill(folder.path(), &broker, "t", 0..5_000);
    let is_in = |name: &str| Path::new(&place(name)).join("t-0").exists();
    let (from, to) = if is_in("one") { ("one", "two") } else { ("two", "one") };
    Plan::to_directory(&broker.address, folder.path(), &["t"], Path::new(&place(to))).execute();
    let has = |name: &str, ending: &str| {
        let mut entries = std::fs::read_dir(place(name)).expect("a folder").map_while(Result::ok);
        entries.any(|entry| entry.file_name().to_string_lossy().ends_with(ending))
    };
    eventually("the move has begun", || has(to, "-future"));
    stop("a move", broker);
    assert!(!is_in(to));
    let broker = Broker::start_with(folder.path(), &[&directories]);
    eventually("it went on", || is_in(to) && !is_in(from) && !has(from, "-moved"));
    assert_eq!(consume(&broker, "t").lines().count(), 5_000);
    stop("nothing", broker);
}

#[test]
fn a_stop_waits_for_nobody_who_only_holds_a_connection() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let open = |address: &str, said: &[u8]| {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(said).expect("sent");
        stream
    };
    let half: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x";
    let kept = open(&broker.http, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    let held = [
        kept,
        open(&broker.http, half),
        open(&broker.http, b""),
        open(&broker.address, b""),
        open(&broker.address, &[0, 0, 0, 90, 0, 3]),
    ];
    // One that waits for records for minutes.
    create(&broker, "t", &[]);
    let mut parked = Wire::connect(&broker.address);
    let sent = parked.send(11, &fetch("t", 200_000, 1));
    // And one that waits for another member of its group.
    let mut joining = Wire::connect(&broker.address);
    let coordinator = FindCoordinatorRequest::default().with_key(text("g"));
    eventually("there is a coordinator", || joining.ask(0, &coordinator).error_code == 0);
    let range = JoinGroupRequestProtocol::default().with_name(text("range"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(200_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range]);
    let mut first = Wire::connect(&broker.address);
    eventually("one is in the group", || first.ask(2, &join).error_code == 0);
    let waits = joining.send(2, &join);
    std::thread::sleep(Duration::from_millis(300));
    stop("connections", broker);
    assert!(data.join("clean-shutdown").exists());
    drop((held, parked, sent, waits));
}

#[test]
fn a_stop_waits_for_no_bucket() {
    let (folder, data) = folder();
    let s3 = S3::start(folder.path());
    let bucket = s3.settings();
    let often = ["remote.log.manager.task.interval.ms=200", "log.cleaner.backoff.ms=200"];
    let settings: Vec<&str> = bucket.iter().map(String::as_str).chain(often).collect();
    let broker = Broker::start_with(&data, &settings);
    let tiered = ["remote.storage.enable=true", "segment.ms=1000", "local.retention.ms=1"];
    for (topic, policy) in [("kept", "delete"), ("compacted", "compact"), ("gone", "delete")] {
        let policy = format!("cleanup.policy={policy}");
        create(&broker, topic, &[&[&*policy], &tiered[..]].concat());
        fill(folder.path(), &broker, topic, 0..500);
    }
    let bucket = folder.path().join("data/lab");
    eventually("all of them are in the bucket", || files(&bucket, "*.log").len() >= 3);
    s3.freeze();
    for topic in ["kept", "compacted"] {
        fill(folder.path(), &broker, topic, 0..500);
    }
    cli(&broker, &["topic", "delete", "gone"]);
    std::thread::sleep(Duration::from_millis(2_500));
    stop("copies, compaction and sweeping", broker);
    assert!(data.join("clean-shutdown").exists());
}

#[test]
fn a_stop_waits_for_no_topic_that_is_to_be_brought_back_from_a_bucket_that_does_not_answer() {
    let (folder, data) = folder();
    let s3 = S3::start(folder.path());
    let bucket = s3.settings();
    let often = "remote.log.manager.task.interval.ms=200";
    let settings: Vec<&str> = bucket.iter().map(String::as_str).chain([often]).collect();
    let broker = Broker::start_with(&data, &settings);
    let tiered = "remote.storage.enable=true";
    create(&broker, "first", &[tiered, "segment.ms=1000"]);
    fill(folder.path(), &broker, "first", 0..10);
    let files = || files(&folder.path().join("data/lab"), "*.log").len();
    eventually("the bucket is used", || files() == 1);
    s3.freeze();
    let whose = "remote.storage.restore=12345678-1234-1234-1234-123456789abc@4";
    create(&broker, "back", &[tiered, whose]);
    std::thread::sleep(Duration::from_millis(1_500));
    stop("a topic that is brought back", broker);
    assert!(data.join("clean-shutdown").exists());
}

#[test]
fn a_stop_breaks_off_retention_and_the_expiry_of_offsets_and_leaves_nothing_half_done() {
    const GROUPS: usize = 400;
    let (folder, data) = folder();
    let often = ["log.retention.check.interval.ms=50", "offsets.retention.check.interval.ms=1000"];
    let broker = Broker::start_with(&data, &often);
    let small = ["segment.bytes=1048576", "file.delete.delay.ms=0", "write.caching=true"];
    create(&broker, "t", &small);
    for _ in 0..4 {
        fill(folder.path(), &broker, "t", 0..20_000);
    }
    let mut wire = Wire::connect(&broker.address);
    let commit = |group: usize, retention_ms: i64| {
        let offset = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic =
            OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![offset]);
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&format!("g{group}"))))
            .with_retention_time_ms(retention_ms)
            .with_topics(vec![topic])
    };
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    eventually("the coordinator is there", || {
        wire.ask(4, &find);
        let answer = wire.ask(3, &commit(GROUPS, -1));
        answer.topics.iter().flat_map(|topic| &topic.partitions).next().expect("one").error_code
            == 0
    });
    for group in 0..GROUPS {
        wire.ask(3, &commit(group, 1));
    }
    cli(&broker, &["topic", "alter", "t", "retention.bytes=5000000"]);
    std::thread::sleep(Duration::from_millis(300));
    stop("retention and expiry", broker);
    assert!(data.join("clean-shutdown").exists());
    let broker = Broker::start_with(&data, &often);
    // What retention takes while it is read, and groups that are being loaded, fail a command.
    let tried = |words: &[&str]| {
        let output = run(&[words, &["-b", &broker.address]].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("retention goes on where it was", || {
        let left = tried(&["consume", "t", "-o", "start", "-e"]).lines().count();
        (4_000..7_000).contains(&left)
    });
    eventually("so does expiry, and what has no end stays", || {
        let listed = tried(&["group", "ls"]);
        let words = listed.split_whitespace();
        words.filter(|word| word.starts_with('g')).eq([format!("g{GROUPS}")])
    });
    stop("nothing", broker);
}

#[test]
fn a_start_can_be_stopped_while_it_waits_for_others_and_while_it_recovers() {
    let (folder, data) = folder();
    // Nobody else is there, and never will be.
    let lonely = |command: &mut Command| {
        command
            .args([
                "serve",
                "--set",
                &format!("log.dirs={}", folder.path().join("alone").display()),
            ])
            .args(["--set", "listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"])
            .args(["--set", "http.listen=", "--set", "node.id=1"])
            .args(["--set", "controller.quorum.voters=1@127.0.0.1:1,2@127.0.0.1:2"]);
    };
    ends_early(Duration::from_millis(1_500), lonely);
    let broker = Broker::start_with(&data, &["write.caching=true"]);
    create(&broker, "t", &[]);
    for _ in 0..4 {
        fill(folder.path(), &broker, "t", 0..20_000);
    }
    broker.kill();
    for wait_ms in [20, 60, 150] {
        ends_early(Duration::from_millis(wait_ms), |command| {
            command.args(["serve", "--set", &format!("log.dirs={}", data.display())]).args([
                "--set",
                "listeners=PLAINTEXT://127.0.0.1:0",
                "--set",
                "http.listen=",
            ]);
        });
    }
    let broker = Broker::start(&data);
    assert_eq!(consume(&broker, "t").lines().count(), 80_000);
}

/// Starts a broker and stops it a while later, whether or not it is ready.
fn ends_early(wait: Duration, arguments: impl Fn(&mut Command)) {
    let mut command = Command::new(BINARY);
    arguments(&mut command);
    let mut child = command.stdout(Stdio::null()).spawn().expect("the binary runs");
    std::thread::sleep(wait);
    let begun = Instant::now();
    let killed = Command::new("kill").arg(child.id().to_string()).status();
    assert!(killed.expect("kill runs").success());
    let status = child.wait().expect("it ends");
    // Before the handler is there, the signal itself ends the process.
    let is_early = std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
    assert!(status.success() || is_early, "{status}");
    assert!(begun.elapsed() < STOP_MAX, "ended after {:?}", begun.elapsed());
}
