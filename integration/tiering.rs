//! Segments in a bucket of a real S3 server, while nodes are killed and new ones come, and real clients read across the seam.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::broker::{BINARY, Broker, folder, run};
use crate::bucket::{Between, Weather};
use crate::cluster::{Cluster, racks, read_in_rack};
use crate::judges::Judge;
use crate::kit::{eventually, go_client, java, python_script, succeed};
use crate::operations::ours;
use crate::tier::S3;

/// Segments of a second and a half, copied at once, and gone here as soon as they are there.
const TOPICS: &str = r#"{"remote.storage.enable": "true", "segment.ms": "1500", "local.retention.ms": "1",
    "file.delete.delay.ms": "500"}"#;
const OFTEN: [&str; 2] =
    ["log.retention.check.interval.ms=500", "remote.log.manager.task.interval.ms=300"];

/// Three nodes with a bucket that they look after often.
pub(crate) fn cluster_on(bucket: Vec<String>, folder: &Path) -> Cluster {
    let settings: Vec<&str> = bucket.iter().map(String::as_str).chain(OFTEN).collect();
    Cluster::start_with(Cluster::places(folder), &settings)
}

pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let found = Command::new("find").arg(folder).args(["-type", "f", "-name"]).arg(ending).output();
    let text = String::from_utf8(found.expect("find runs").stdout).expect("text");
    text.lines().map(PathBuf::from).collect()
}

/// What the manifests of a bucket say: for each partition the offsets that it holds, and the objects that are named.
pub(crate) fn manifests(bucket: &Path) -> (Vec<(i64, i64)>, BTreeSet<String>) {
    let (mut ranges, mut named) = (Vec::new(), BTreeSet::new());
    for path in files(bucket, "manifest.json") {
        // Its topic may be deleted meanwhile.
        let Ok(text) = std::fs::read(&path) else { continue };
        let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let number = |value: &serde_json::Value| value.as_i64().expect("a number");
        let segments = manifest["segments"].as_array().expect("segments");
        let mut next = None;
        for segment in segments {
            let (base, end) = (number(&segment["base_offset"]), number(&segment["end_offset"]));
            assert!(next.is_none_or(|next| next == base), "{}: a gap at {base}", path.display());
            next = Some(end);
            let id = segment["id"].as_str().expect("an id").replace('-', "");
            named.insert(format!(
                "{:020}-{}-{id}.log",
                number(&segment["object_offset"]),
                segment["leader_epoch"]
            ));
        }
        ranges.push((number(&manifest["log_start"]), next.unwrap_or(0)));
    }
    (ranges, named)
}

/// The smallest base offset of the logs of a topic on a node.
fn local_starts(data: &Path, topic: &str) -> Vec<i64> {
    let mut starts = Vec::new();
    for partition in 0..3 {
        let logs = files(&data.join(format!("{topic}-{partition}")), "*.log");
        let base = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<i64>().ok();
        starts.extend(logs.iter().filter_map(base).min());
    }
    starts
}

#[test]
fn a_tiered_topic_loses_nothing_while_nodes_are_killed_and_a_new_broker_begins_from_the_bucket() {
    let (folder, _) = folder();
    let s3 = S3::start(folder.path());
    let mut cluster = cluster_on(s3.settings(), folder.path());
    let bootstrap = cluster.bootstrap();
    let judge = Judge::start_on(&bootstrap, 40, TOPICS);
    std::thread::sleep(Duration::from_secs(4));
    for index in 0..3 {
        cluster.kill(index);
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.start_missing();
        std::thread::sleep(Duration::from_secs(3));
    }
    // Paused in the middle of a copy, it wakes up as a leader that is none any more.
    cluster.node(0).pause(true);
    std::thread::sleep(Duration::from_secs(4));
    cluster.node(0).pause(false);
    cluster.wait_healthy();
    let fourth = cluster.add(folder.path(), false, &[]);
    ours(&cluster, &["broker", "decommission", "1"]);
    let starts = local_starts(&cluster.places[fourth - 1].data, "all");
    assert!(starts.len() == 3 && starts.iter().all(|start| *start > 0), "{starts:?}");
    let acked = judge.verdict();
    assert!(acked > 10_000, "{acked} records");
    cluster.wait_healthy();
    let bucket = folder.path().join("data/lab");
    eventually("most of it is in the bucket only", || {
        let end: i64 = manifests(&bucket).0.iter().map(|(_, end)| end).sum();
        let local: i64 = local_starts(&cluster.places[1].data, "all").iter().sum();
        end > 2 * i64::try_from(acked).expect("small") * 9 / 10
            && local * 10 > i64::try_from(acked).expect("small") * 9
    });
    let told =
        ["--bootstrap-server", &bootstrap, "--describe", "--all", "--entity-type", "brokers"];
    let mut told = java("kafka.admin.ConfigCommand", &told);
    let told = succeed(told.args(["--entity-name", "2"]));
    assert!(told.contains("remote.storage.options=null") && !told.contains("secret123"), "{told}");
    let (ranges, named) = manifests(&bucket);
    assert!(ranges.iter().all(|(start, _)| *start == 0), "{ranges:?}");
    let there: BTreeSet<String> = files(&bucket, "*.log")
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?}");
    println!(
        "{} objects, {} that no manifest names",
        there.len(),
        there.difference(&named).count()
    );
    // Another client reads across the seam too.
    let arguments = ["--bootstrap-server", &bootstrap, "--topic", "all", "--from-beginning"];
    let stop = ["--max-messages", &acked.to_string(), "--timeout-ms", "30000"];
    let read = succeed(
        java("org.apache.kafka.tools.consumer.ConsoleConsumer", &[]).args(arguments).args(stop),
    );
    let read: BTreeSet<&str> = read.lines().collect();
    assert_eq!(u64::try_from(read.len()).expect("small"), acked);
    // A deleted topic leaves nothing.
    ours(&cluster, &["topic", "rm", "all", "one"]);
    eventually("the bucket is empty", || {
        files(&bucket, "*.log").is_empty() && files(&bucket, "manifest.json").is_empty()
    });
}

#[test]
fn a_bucket_that_fails_in_every_way_loses_nothing_and_is_caught_up_with_afterwards() {
    let (folder, _) = folder();
    let s3 = S3::start(folder.path());
    let between = Between::start(s3.address());
    let mut cluster = cluster_on(S3::settings_through(between.address), folder.path());
    let judge = Judge::start_on(&cluster.bootstrap(), 45, TOPICS);
    std::thread::sleep(Duration::from_secs(4));
    between.set(Weather::Foul);
    std::thread::sleep(Duration::from_secs(9));
    cluster.kill(1);
    std::thread::sleep(Duration::from_secs(2));
    cluster.start_missing();
    std::thread::sleep(Duration::from_secs(5));
    between.set(Weather::Gone);
    std::thread::sleep(Duration::from_secs(6));
    cluster.kill(2);
    std::thread::sleep(Duration::from_secs(2));
    cluster.start_missing();
    std::thread::sleep(Duration::from_secs(5));
    between.set(Weather::Foul);
    std::thread::sleep(Duration::from_secs(5));
    between.set(Weather::Fair);
    let acked = i64::try_from(judge.verdict()).expect("small");
    assert!(acked > 20_000, "{acked} records");
    let bucket = folder.path().join("data/lab");
    eventually("everything that is closed is in the bucket", || {
        manifests(&bucket).0.iter().map(|(_, end)| end).sum::<i64>() > 2 * acked * 95 / 100
    });
    assert!(manifests(&bucket).0.iter().all(|(start, _)| *start == 0));
    succeed(&mut s3.ours(&["tier", "verify", "s3://lab/tier"]));
}

/// One broker with a folder for a bucket, and eight thousand lines in a topic `t`, most of them in the bucket only.
pub(crate) struct Alone {
    pub broker: Broker,
    pub address: String,
    pub tier: PathBuf,
}

/// The only partition of a bucket, as `tier ls` tells.
fn listed(tier: &str) -> serde_json::Value {
    let listed = run(&["tier", "ls", tier, "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    rows[0].clone()
}

fn line(number: u32) -> String {
    format!("{number:06}{}\n", "x".repeat(1_000))
}

impl Alone {
    /// The same without a topic.
    pub(crate) fn begin(data: &Path, tier: PathBuf) -> Self {
        Self::begin_with(data, tier, &[])
    }

    /// The same with further settings.
    pub(crate) fn begin_with(data: &Path, tier: PathBuf, more: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--tier", &format!("file:{}", tier.display())]);
        let own = [
            format!("log.dirs={}", data.display()),
            "listeners=PLAINTEXT://127.0.0.1:0".to_owned(),
            "http.listen=127.0.0.1:0".to_owned(),
            "log.dirs.min.free.bytes=0".to_owned(),
        ];
        for setting in own.iter().map(String::as_str).chain(OFTEN).chain(more.iter().copied()) {
            command.args(["--set", setting]);
        }
        let broker = Broker::start_command(command);
        let address = broker.address.clone();
        Self { broker, address, tier }
    }

    fn start(folder: &Path) -> Self {
        let data = folder.join("data");
        let alone = Self::begin(&data, folder.join("tier"));
        let create = ["topic", "create", "t", "-p", "1", "-c", "remote.storage.enable=true"];
        let small = ["-c", "segment.bytes=1048576", "-c", "local.retention.ms=1"];
        alone.ours(&[&create[..], &small, &["-c", "file.delete.delay.ms=100"]].concat());
        alone.produce(folder, 0..8_000);
        eventually("the local disk shrinks", || {
            let logs = files(&data.join("t-0"), "*.log");
            let bytes = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
            logs.iter().map(bytes).sum::<u64>() < 1_100_000
        });
        alone
    }

    fn produce(&self, folder: &Path, numbers: std::ops::Range<u32>) {
        self.send(folder, "t", &numbers.map(line).collect::<String>());
    }

    /// Produces lines.
    pub(crate) fn send(&self, folder: &Path, topic: &str, lines: &str) {
        let input = folder.join("input");
        std::fs::write(&input, lines).expect("written");
        let produced = Command::new(BINARY)
            .args(["produce", topic, "-b", &self.address])
            .stdin(std::fs::File::open(&input).expect("a file"))
            .stdout(Stdio::null())
            .status();
        assert!(produced.expect("runs").success());
    }

    pub(crate) fn ours(&self, words: &[&str]) -> String {
        let output = run(&[words, &["-b", &self.address]].concat());
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {err}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn refusal(&self, words: &[&str]) -> String {
        let output = run(&[words, &["-b", &self.address]].concat());
        assert!(!output.status.success(), "{words:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn offset(&self, time: &str) -> i64 {
        self.offset_of("t", time)
    }

    /// An offset by Kafka's own tool.
    pub(crate) fn offset_of(&self, topic: &str, time: &str) -> i64 {
        let arguments = ["--bootstrap-server", &self.address, "--topic", topic, "--time", time];
        let said = succeed(&mut java("org.apache.kafka.tools.GetOffsetShell", &arguments));
        said.trim().rsplit(':').next().and_then(|text| text.parse().ok()).expect("an offset")
    }
}

#[test]
fn offsets_and_times_reach_into_the_bucket_and_local_disks_shrink() {
    let (folder, _) = folder();
    let alone = Alone::start(folder.path());
    let all: String = (0..8_000).map(line).collect();
    assert_eq!(alone.ours(&["consume", "t", "-o", "start", "-e"]), all);
    assert_eq!(alone.ours(&["consume", "t", "-o", "4321", "-n", "1"]), line(4_321));
    let (first, local, tiered) =
        (alone.offset("earliest"), alone.offset("earliest-local"), alone.offset("latest-tiered"));
    assert!(first == 0 && local > 7_000 && tiered >= local - 1, "{first} {local} {tiered}");
    assert_eq!(alone.offset("earliest-pending-upload"), tiered + 1);
    // By the time of a record that is in the bucket only.
    let shown = alone.ours(&["consume", "t", "-o", "2000", "-n", "1", "-f", "%T"]);
    let at = alone.offset(shown.trim());
    let again = alone.ours(&["consume", "t", "-o", &at.to_string(), "-n", "1", "-f", "%T"]);
    assert!(at <= 2_000 && again == shown, "{at}");
    let metrics = metrics(&alone.broker);
    let puts = metrics.lines().find(|line| line.contains("remote_requests_total{kind=\"put\"}"));
    assert!(puts.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    let bytes = metrics.lines().find(|line| line.starts_with("strandline_remote_bytes"));
    assert!(bytes.is_some_and(|line| line.contains("topic=\"t\"")), "{metrics}");
    // librdkafka reads everything while it tails, and finds times in what is only in the bucket.
    let mut clients = python_script("tiered.py");
    print!("{}", succeed(clients.args([&alone.address, "t", "8000"])));
    print!("{}", succeed(Command::new(go_client()).args(["tiered", &alone.address, "t"])));
    let tier = format!("file:{}", alone.tier.display());
    // More may be copied between the two looks.
    eventually("what is listed is what the broker says", || {
        let tiered = alone.offset("latest-tiered");
        let listed = listed(&tier);
        assert_eq!((&listed["topic"], &listed["start"]), (&"t".into(), &0.into()));
        listed["end"] == tiered + 1
    });
    // A byte that rots is found, and its record is never shown.
    let object = files(&alone.tier, "*0000-0-*.log").into_iter().min().expect("an object");
    let mut bytes = std::fs::read(&object).expect("a file");
    bytes[500_000] ^= 1;
    std::fs::write(&object, bytes).expect("written");
    let verified = run(&["tier", "verify", &tier]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(!verified.status.success() && said.contains("checksum"), "{said}");
    assert!(alone.broker.terminate().success());
}

#[test]
fn a_consumer_that_names_its_rack_reads_the_bucket_through_the_follower_there() {
    let (folder, _) = folder();
    let s3 = S3::start(folder.path());
    let bucket = s3.settings();
    let settings: Vec<&str> = bucket.iter().map(String::as_str).chain(OFTEN).collect();
    let cluster = Cluster::start_with(racks(folder.path()), &settings);
    let follower = read_in_rack(&cluster, &["tiered"]);
    let broker = cluster.node(follower - 1);
    let metrics = metrics(broker);
    let read = metrics.lines().find_map(|line| line.strip_prefix("strandline_remote_reads_total "));
    assert!(read.is_some_and(|count| count.trim() != "0"), "{metrics}");
    let told = s3
        .ours(&["tier", "status", "s3://lab/tier", "-b", &cluster.bootstrap(), "--format", "json"])
        .output();
    let told = told.expect("runs");
    let rows: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let number = |column: &str| rows[0][column].as_i64().expect("a number");
    assert_eq!((number("records"), number("unknown")), (600, 0), "{rows}");
    assert!(number("segments") > 0 && number("uncopied_records") < 600, "{rows}");
    assert!((0..600).contains(&number("oldest_uncopied_s")), "{rows}");
}

pub(crate) fn metrics(broker: &Broker) -> String {
    succeed(Command::new("curl").args(["-s", &format!("http://{}/metrics", broker.http)]))
}

#[test]
fn deletions_and_retention_reach_into_the_bucket() {
    let (folder, _) = folder();
    let alone = Alone::start(folder.path());
    let tiered = alone.offset("latest-tiered");
    let plan = folder.path().join("delete.json");
    let wish = r#"{"partitions": [{"topic": "t", "partition": 0, "offset": 3000}], "version": 1}"#;
    std::fs::write(&plan, wish).expect("written");
    let plan = plan.display().to_string();
    let arguments = ["--bootstrap-server", &alone.address, "--offset-json-file", &plan];
    succeed(&mut java("org.apache.kafka.tools.DeleteRecordsCommand", &arguments));
    assert_eq!(alone.offset("earliest"), 3_000);
    assert_eq!(alone.ours(&["consume", "t", "-o", "start", "-n", "1"]), line(3_000));
    let objects = files(&alone.tier, "*.log").len();
    eventually("objects that nobody needs go", || {
        let (ranges, named) = manifests(&alone.tier);
        ranges == [(3_000, tiered + 1)] && files(&alone.tier, "*.log").len() == named.len()
    });
    alone.ours(&["topic", "alter", "t", "retention.ms=100"]);
    eventually("what is too old goes from the bucket", || {
        files(&alone.tier, "*.log").len() < objects.min(2) && alone.offset("earliest") > 7_000
    });
    assert!(alone.broker.terminate().success());
}

#[test]
fn copying_can_be_stopped_and_go_on_and_a_topic_can_leave_the_bucket() {
    let (folder, _) = folder();
    let alone = Alone::start(folder.path());
    let end = || manifests(&alone.tier).0.first().map_or(0, |(_, end)| *end);
    let alter = |settings: &[&'static str]| [&["topic", "alter", "t"], settings].concat();
    let stop = ["remote.log.copy.disable=true"];
    assert!(alone.refusal(&alter(&stop)).contains("identical value"));
    alone.ours(&alter(&["remote.log.copy.disable=true", "local.retention.ms=-2"]));
    alone.produce(folder.path(), 8_000..12_000);
    std::thread::sleep(Duration::from_millis(1_500));
    // A copy that was under way when it was forbidden may end.
    let copied = end();
    assert!(copied <= 8_000, "what came since then is copied: {copied}");
    let all: String = (0..12_000).map(line).collect();
    assert_eq!(alone.ours(&["consume", "t", "-o", "start", "-e"]), all);
    alone.ours(&alter(&["remote.log.copy.disable=false", "local.retention.ms=1"]));
    eventually("copying goes on where it was", || end() > 11_000);
    eventually("the local disk shrinks again", || alone.offset("earliest-local") > 11_000);
    assert_eq!(alone.ours(&["consume", "t", "-o", "start", "-e"]), all);

    let off = alone.refusal(&alter(&["remote.storage.enable=false"]));
    assert!(off.contains("invalid to disable"), "what is in the bucket would be forgotten: {off}");
    let local = u32::try_from(alone.offset("earliest-local")).expect("small");
    alone.ours(&alter(&["remote.storage.enable=false", "remote.log.delete.on.disable=true"]));
    eventually("nothing is left in the bucket", || {
        files(&alone.tier, "*.log").is_empty() && files(&alone.tier, "*.json").is_empty()
    });
    assert_eq!(alone.offset("earliest"), i64::from(local));
    let tail: String = (local..12_000).map(line).collect();
    assert_eq!(alone.ours(&["consume", "t", "-o", "start", "-e"]), tail);
    // What nobody flushes for its own sake is copied too.
    let cached = ["topic", "create", "cached", "-p", "1", "-c", "remote.storage.enable=true"];
    alone.ours(&[&cached[..], &["-c", "write.caching=true", "-c", "segment.ms=500"]].concat());
    assert!(crate::first_run::produce(&alone.broker, "cached", "one\ntwo\n").0);
    eventually("it is in the bucket", || manifests(&alone.tier).0.contains(&(0, 2)));
    alone.ours(&["topic", "rm", "cached"]);
    eventually("and gone", || files(&alone.tier, "*.json").is_empty());
    alone.ours(&alter(&["remote.storage.enable=true"]));
    alone.produce(folder.path(), 12_000..15_000);
    eventually("and it may come back", || end() > 14_000);
    assert!(alone.broker.terminate().success());
}
