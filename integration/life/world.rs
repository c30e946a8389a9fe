//! The nodes and the bucket that a plan is lived through on, and what happens to them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kafka_protocol::messages::*;

use super::plan::{Plan, Point, Tier};
use super::talk::{Client, now_ms};
use crate::broker::{Broker, run};
use crate::bucket::{Between, Weather};
use crate::cluster::{Cluster, Place};
use crate::kit::eventually;
use crate::tier::S3;
use crate::tiering::metrics;
use crate::wire::{name, text};

/// Everything that is done now and then is done often.
const OFTEN: [&str; 9] = [
    // A busy machine is no fault that would explain a fenced broker.
    "broker.session.timeout.ms=4000",
    "log.retention.check.interval.ms=500",
    "log.cleaner.backoff.ms=300",
    "remote.log.manager.task.interval.ms=300",
    "replica.lag.time.max.ms=3000",
    "message.max.bytes=13000000",
    "offsets.topic.num.partitions=1",
    "auto.leader.rebalance.enable=false",
    "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector",
];
/// What a fault explains comes within this time after it.
const AFTERMATH_MS: i64 = 15_000;

/// See the file's header.
pub(crate) struct World {
    pub cluster: Cluster,
    pub s3: S3,
    between: Between,
    keys: Option<PathBuf>,
    /// From when to when faults explain what brokers say.
    faults: Vec<(i64, i64)>,
}

impl World {
    pub(crate) fn start(plan: &Plan, folder: &Path) -> Self {
        let s3 = S3::start(folder);
        let between = Between::start(s3.address());
        let mut settings = S3::settings_through(between.address);
        settings.extend(OFTEN.map(str::to_owned));
        let keys = plan.is_encrypted.then(|| {
            let keys = folder.join("keys");
            std::fs::write(&keys, run(&["tier", "key"]).stdout).expect("written");
            settings.push(format!("remote.storage.encryption.keys={}", keys.display()));
            keys
        });
        let mut places = Cluster::places(folder);
        places.truncate(plan.nodes);
        for (index, place) in places.iter_mut().enumerate() {
            place.prefix = ["sh", "-c", "log=$1; shift; exec \"$@\" 2>> \"$log\"", "sh"]
                .map(str::to_owned)
                .into();
            place.prefix.push(log_of(place).display().to_string());
            let dirs = dirs(place).map(|dir| dir.display().to_string());
            place.settings = vec![
                format!("log.dirs={}", dirs.join(",")),
                format!("broker.rack=rack{}", index + 1),
            ];
        }
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let cluster = Cluster::start_with(places, &settings);
        Self { cluster, s3, between, keys, faults: Vec::new() }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.cluster.bootstrap())
    }

    pub(crate) fn node(&self, index: usize) -> &Broker {
        self.cluster.node(index)
    }

    /// Makes a topic, with a replica on each node.
    pub(crate) fn create(&self, point: &Point) {
        let settings: Vec<String> =
            point.settings().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let bootstrap = self.cluster.bootstrap();
        let mut words = vec!["topic", "create", &point.name, "-p", "1", "-b", &bootstrap];
        words.extend(settings.iter().flat_map(|setting| ["-c", setting]));
        let made = run(&words);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Begins or ends what explains words in the brokers' logs.
    fn hurt<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let begun = now_ms();
        let done = work(self);
        self.faults.push((begun, now_ms() + AFTERMATH_MS));
        done
    }

    pub(crate) fn kill(&mut self, index: usize, pause: Duration) {
        self.hurt(|world| {
            world.cluster.kill(index);
            std::thread::sleep(pause);
            world.cluster.start_missing();
            world.cluster.wait_healthy();
        });
    }

    /// Stops a node as an operator does; on others its absence is a fault.
    pub(crate) fn restart(&mut self, index: usize, pause: Duration) {
        self.hurt(|world| {
            let node = world.cluster.nodes[index].take().expect("running");
            assert!(node.terminate().success());
            std::thread::sleep(pause);
            world.cluster.start_missing();
            world.cluster.wait_healthy();
        });
    }

    pub(crate) fn pause(&mut self, index: usize, pause: Duration) {
        self.hurt(|world| {
            world.node(index).pause(true);
            std::thread::sleep(pause);
            world.node(index).pause(false);
            world.cluster.wait_healthy();
        });
    }

    pub(crate) fn bucket(&mut self, weather: Weather, pause: Duration) {
        self.hurt(|world| {
            world.between.set(weather);
            std::thread::sleep(pause);
            world.between.set(Weather::Fair);
        });
    }

    /// Moves every replica of a node to its other directory, and waits until they lie there. What is being copied to the bucket
    /// meanwhile begins anew with the replica, and the two may find each other's manifest.
    pub(crate) fn move_all(&mut self, index: usize, points: &[Point]) {
        self.hurt(|world| world.moved(index, points));
    }

    fn moved(&self, index: usize, points: &[Point]) {
        use alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
        let node = i32::try_from(index + 1).expect("few");
        let [one, two] = dirs(&self.cluster.places[index]);
        let mut client = self.client();
        for point in points {
            let partition = format!("{}-0", point.name);
            let to = if one.join(&partition).exists() { &two } else { &one };
            let topic = AlterReplicaLogDirTopic::default()
                .with_name(name(&point.name))
                .with_partitions(vec![0]);
            let dir = AlterReplicaLogDir::default()
                .with_path(text(&to.display().to_string()))
                .with_topics(vec![topic]);
            let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
            let answer = client.ask_node(node, 2, &request).expect("an answer");
            assert_eq!(answer.results[0].partitions[0].error_code, 0, "{}", point.name);
        }
        for point in points {
            let partition = format!("{}-0", point.name);
            eventually("a replica is moved", || {
                // A copy is there before it takes the original's place; both are never there under the name.
                let there = [&one, &two].map(|dir| dir.join(&partition).exists());
                let busy = [&one, &two].iter().any(|dir| is_moving(dir, &point.name));
                there[0] != there[1] && !busy
            });
        }
    }

    /// Gives every topic such replicas, of which the first leads.
    pub(crate) fn reassign(&mut self, replicas: &[i32], points: &[Point]) {
        use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
        let ids: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(*id)).collect();
        let topic = |point: &Point| {
            let partition = ReassignablePartition::default()
                .with_partition_index(0)
                .with_replicas(Some(ids.clone()));
            ReassignableTopic::default()
                .with_name(name(&point.name))
                .with_partitions(vec![partition])
        };
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(10_000)
            .with_topics(points.iter().map(topic).collect());
        let mut client = self.client();
        let answer = client.ask_any(0, &request).expect("an answer");
        let codes: Vec<i16> = answer
            .responses
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| p.error_code))
            .collect();
        assert!(answer.error_code == 0 && codes.iter().all(|code| *code == 0), "{codes:?}");
        self.wait_replicas(replicas, points);
        self.elect(points);
        eventually("the first replica leads", || {
            points.iter().all(|point| {
                client.look(&point.name).is_ok_and(|found| found.leader == replicas[0])
            })
        });
    }

    fn wait_replicas(&self, replicas: &[i32], points: &[Point]) {
        let mut client = self.client();
        let mut wanted = replicas.to_vec();
        wanted.sort_unstable();
        eventually("the replicas are those that were asked for, and in sync", || {
            points.iter().all(|point| {
                client.look(&point.name).is_ok_and(|mut found| {
                    found.replicas.sort_unstable();
                    found.in_sync.sort_unstable();
                    found.replicas == wanted && found.in_sync == wanted
                })
            })
        });
    }

    fn elect(&self, points: &[Point]) {
        use elect_leaders_request::TopicPartitions;
        let topic = |point: &Point| {
            TopicPartitions::default().with_topic(name(&point.name)).with_partitions(vec![0])
        };
        let request = ElectLeadersRequest::default()
            .with_topic_partitions(Some(points.iter().map(topic).collect()))
            .with_timeout_ms(10_000);
        let _ = self.client().ask_any(2, &request).expect("an answer");
    }

    /// Tells the topics that are to be tiered while they live.
    pub(crate) fn tier(&self, points: &[Point]) {
        let bootstrap = self.cluster.bootstrap();
        for point in points.iter().filter(|point| point.tier == Tier::Later) {
            let words =
                ["topic", "alter", &point.name, "remote.storage.enable=true", "-b", &bootstrap];
            let done = run(&words);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }

    /// Lines of warnings and errors that no fault explains.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut all = Vec::new();
        for place in &self.cluster.places {
            let text = std::fs::read_to_string(log_of(place)).unwrap_or_default();
            let bad = text.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR"));
            all.extend(bad.filter(|line| !self.is_explained(line)).map(str::to_owned));
        }
        all
    }

    fn is_explained(&self, line: &str) -> bool {
        let at = time_of(line);
        at.is_some_and(|at| self.faults.iter().any(|(from, to)| (*from..=*to).contains(&at)))
    }

    /// Files, below the log directories, of what is only there while something is being done.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for place in &self.cluster.places {
            let found = Command::new("find").args(dirs(place)).output().expect("find runs");
            let text = String::from_utf8_lossy(&found.stdout).into_owned();
            let is_left = |path: &&str| {
                let last = path.rsplit('/').next().unwrap_or_default();
                let endings = [
                    ".cleaned", ".swap", ".deleted", ".tmp", "-future", "-moved", "-delete",
                    "-stray",
                ];
                endings.iter().any(|ending| last.ends_with(ending))
            };
            left.extend(text.lines().filter(is_left).map(str::to_owned));
        }
        left
    }

    /// Bytes of the segments of a topic on a node.
    pub(crate) fn bytes_on(&self, index: usize, topic: &str) -> u64 {
        let folders = dirs(&self.cluster.places[index]).map(|dir| dir.join(format!("{topic}-0")));
        let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let logs = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "log"));
        logs.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
    }

    /// Hundredths of a second of a core that a node took since it began.
    pub(crate) fn cpu_ticks(&self, index: usize) -> u64 {
        // The shell before it made way for it: the process is the broker's.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.node(index).pid()));
        let stat = stat.unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        let number = |at| after.split_whitespace().nth(at)?.parse::<u64>().ok();
        number(11).zip(number(12)).map_or(0, |(user, system)| user + system)
    }

    /// Requests to the bucket, of every kind.
    pub(crate) fn bucket_requests(&self, index: usize) -> u64 {
        let told = metrics(self.node(index));
        let lines =
            told.lines().filter(|line| line.starts_with("strandline_remote_requests_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Stops all, and has what is on the disks and in the bucket verified; what is wrong with it.
    pub(crate) fn verify(&mut self) -> Vec<String> {
        for node in &mut self.cluster.nodes {
            assert!(node.take().expect("running").terminate().success());
        }
        let mut wrong = Vec::new();
        for dir in self.cluster.places.iter().flat_map(dirs) {
            let done = run(&["log", "verify", &dir.display().to_string()]);
            if !done.status.success() {
                wrong.push(format!("log verify: {}", String::from_utf8_lossy(&done.stderr)));
            }
        }
        let mut words = vec!["tier".to_owned(), "verify".into(), "s3://lab/tier".into()];
        if let Some(keys) = &self.keys {
            words.extend(["--keys".to_owned(), keys.display().to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = self.s3.ours(&words).output().expect("runs");
        if !done.status.success() {
            wrong.push(format!("tier verify: {}", String::from_utf8_lossy(&done.stderr)));
        }
        wrong
    }
}

fn log_of(place: &Place) -> PathBuf {
    place.data.with_extension("log")
}

fn dirs(place: &Place) -> [PathBuf; 2] {
    [place.data.join("one"), place.data.join("two")]
}

/// Whether a copy of a replica is being made in a directory, or an original is about to go.
fn is_moving(dir: &Path, topic: &str) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let prefix = format!("{topic}-0.");
    names.into_iter().any(|name| name.starts_with(&prefix))
}

/// Milliseconds of the time that a line begins with: 2026-01-02T03:04:05.678901Z.
fn time_of(line: &str) -> Option<i64> {
    let stamp = line.split_whitespace().next()?;
    let number = |from: usize, to: usize| stamp.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Days since 1970 by the civil calendar.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = ((days - 719_468) * 24 + hour) * 3_600 + minute * 60 + second;
    Some(seconds * 1_000 + number(20, 23)?)
}

#[test]
fn the_time_of_a_line_is_read() {
    assert_eq!(time_of("1970-01-02T00:00:01.500000Z  WARN x"), Some(86_401_500));
    assert_eq!(time_of("2024-03-01T00:00:00.000000Z"), Some(1_709_251_200_000));
}
