//! Clients that judge: they note what was acknowledged, and say what became of it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::kit::{after, finish, java, python_script};

/// A client that produces for so many seconds while it reads along, and then reads everything back.
pub(crate) struct Judge(Child);

impl Judge {
    pub(crate) fn start(prefix: &[String], bootstrap: &str, seconds: u64) -> Self {
        Self::start_at_rate(prefix, bootstrap, seconds, 1_000)
    }

    /// The same for one broker, whose topics have one replica.
    pub(crate) fn start_alone(address: &str, seconds: u64) -> Self {
        Self::spawn(&[], &[address, &seconds.to_string()])
    }

    /// The same with further settings of the client, in JSON.
    pub(crate) fn start_as(bootstrap: &str, seconds: u64, settings: &str) -> Self {
        Self::spawn(&[], &[bootstrap, &seconds.to_string(), "3", "1000", settings])
    }

    /// The same on topics with settings, in JSON.
    pub(crate) fn start_on(bootstrap: &str, seconds: u64, topics: &str) -> Self {
        Self::spawn(&[], &[bootstrap, &seconds.to_string(), "3", "1000", "{}", topics])
    }

    pub(crate) fn start_at_rate(
        prefix: &[String],
        bootstrap: &str,
        seconds: u64,
        rate: u64,
    ) -> Self {
        Self::spawn(prefix, &[bootstrap, &seconds.to_string(), "3", &rate.to_string()])
    }

    fn spawn(prefix: &[String], arguments: &[&str]) -> Self {
        let mut command = after(prefix, &python_script("crash.py"));
        command.args(arguments);
        let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(client.expect("python runs"))
    }

    fn result(self) -> serde_json::Value {
        let output = self.0.wait_with_output().expect("python ends");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
        println!("{out}");
        serde_json::from_str(out.trim()).expect("JSON")
    }

    /// How many of those that were acknowledged by all are lost; or that the producer found out by itself, since the broker
    /// does not know what it acknowledged before (its sequence breaks, which is fatal).
    pub(crate) fn lost(self) -> u64 {
        let output = self.0.wait_with_output().expect("python ends");
        let err = String::from_utf8_lossy(&output.stderr);
        let broken = ["OUT_OF_ORDER_SEQUENCE_NUMBER", "_PURGE_QUEUE", "_FATAL"];
        if !output.status.success() && broken.iter().any(|text| err.contains(text)) {
            return 1;
        }
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{out}\n{err}");
        let result: serde_json::Value = serde_json::from_str(out.trim()).expect("JSON");
        result["all"]["lost"].as_u64().expect("a number")
    }

    /// Waits for the verdict: nothing lost, moved, doubled, out of order, or read differently before. Returns how many
    /// were acknowledged by all.
    pub(crate) fn verdict(self) -> u64 {
        self.verdict_on(&["all"])
    }

    /// The same for the topics that are named by their acks.
    pub(crate) fn verdict_on(self, topics: &[&str]) -> u64 {
        let result = self.result();
        for topic in topics {
            // Without idempotence a retry may double.
            let checks: &[&str] = if *topic == "all" {
                &["lost", "moved", "doubled", "reordered", "inconsistent", "resets"]
            } else {
                &["lost", "moved"]
            };
            for what in checks {
                assert_eq!(result[topic][what], 0, "{topic} {what}: {result}");
            }
        }
        result["all"]["acked"].as_u64().unwrap_or(0)
    }
}

/// Apache Kafka's own judges, VerifiableProducer and VerifiableConsumer, on a topic of theirs.
pub(crate) struct KafkasOwn {
    producer: Child,
    consumer: Child,
    produced: PathBuf,
    consumed: PathBuf,
    witness: Witness,
}

/// Reads the topic once more from outside, when the group's consumer missed something: is it lost, or was it not read?
struct Witness {
    prefix: Vec<String>,
    bootstrap: String,
    words: PathBuf,
}

impl KafkasOwn {
    pub(crate) fn start(prefix: &[String], bootstrap: &str, folder: &Path) -> Self {
        let (produced, consumed) = (folder.join("produced"), folder.join("consumed"));
        let words = folder.join("consumers-words");
        let spawn = |class: &str, file: &Path, arguments: &[&str]| {
            let class = format!("org.apache.kafka.tools.{class}");
            let mut command = after(prefix, &java(&class, &[]));
            command
                .args(["--bootstrap-server", bootstrap, "--topic", "verifiable"])
                .args(arguments);
            let word = File::options().append(true).create(true).open(&words).expect("a file");
            let file = File::create(file).expect("a file");
            command.env("JAVA_TOOL_OPTIONS", "-Dlevel=INFO");
            command.stdout(file).stderr(word).spawn().expect("java runs")
        };
        let sends =
            spawn("VerifiableProducer", &produced, &["--throughput", "100", "--acks", "-1"]);
        let reads = spawn("VerifiableConsumer", &consumed, &["--group-id", "judges", "--verbose"]);
        let witness = Witness { prefix: prefix.to_vec(), bootstrap: bootstrap.to_owned(), words };
        Self { producer: sends, consumer: reads, produced, consumed, witness }
    }

    /// Stops them: whatever was acknowledged was consumed, once. Returns how many.
    pub(crate) fn verdict(mut self) -> usize {
        end(&mut self.producer);
        let acked = acknowledged(&self.produced);
        let begun = Instant::now();
        let mut places = HashMap::new();
        while begun.elapsed() < Duration::from_mins(1) {
            places = read(&self.consumed);
            if acked.iter().all(|value| places.contains_key(value)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        end(&mut self.consumer);
        let missed: Vec<_> = acked.iter().filter(|value| !places.contains_key(*value)).collect();
        assert!(missed.is_empty(), "{}", self.witness.say(&missed, &self.consumed));
        let doubled: Vec<_> = places.iter().filter(|(_, at)| at.len() > 1).take(10).collect();
        assert!(doubled.is_empty(), "doubled: {doubled:?}");
        acked.len()
    }
}

impl Witness {
    /// What is known of records that were acknowledged to Kafka's VerifiableProducer, and that its consumer did not read.
    fn say(&self, missed: &[&String], consumed: &Path) -> String {
        let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
        let mut command = after(&self.prefix, &java(class, &[]));
        command.args(["--bootstrap-server", &self.bootstrap, "--topic", "verifiable"]);
        let again = finish(command.args(["--from-beginning", "--timeout-ms", "15000"]));
        let there = String::from_utf8_lossy(&again.stdout).into_owned();
        let there: HashSet<&str> = there.lines().collect();
        let lost: Vec<_> = missed.iter().filter(|value| !there.contains(value.as_str())).collect();
        let others = events(consumed).filter(|event| event["name"] != "record_data");
        let others: Vec<_> = others.map(|event| event.to_string()).collect();
        let numbers: Vec<_> = missed.iter().filter_map(|value| value.parse::<u64>().ok()).collect();
        let words = std::fs::read_to_string(&self.words).unwrap_or_default();
        let words: Vec<_> = words.lines().collect();
        format!(
            "Kafka's VerifiableConsumer did not read {} records, first and last of {:?}; of these another consumer did \
             not find {}: {:?}. Its last events:\n{}\nLast words:\n{}",
            missed.len(),
            numbers.iter().min().zip(numbers.iter().max()),
            lost.len(),
            &lost[..lost.len().min(10)],
            others[others.len().saturating_sub(20)..].join("\n"),
            words[words.len().saturating_sub(150)..].join("\n"),
        )
    }
}

impl Drop for KafkasOwn {
    fn drop(&mut self) {
        for child in [&mut self.producer, &mut self.consumer] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// SIGTERM, and its end.
fn end(child: &mut Child) {
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    let _ = child.wait();
}

fn events(file: &Path) -> impl Iterator<Item = serde_json::Value> {
    let lines = BufReader::new(File::open(file).expect("a file")).lines();
    lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

/// The values that were acknowledged.
fn acknowledged(file: &Path) -> HashSet<String> {
    let sent = events(file).filter(|event| event["name"] == "producer_send_success");
    sent.filter_map(|event| event["value"].as_str().map(ToOwned::to_owned)).collect()
}

/// Where each value was read.
fn read(file: &Path) -> HashMap<String, HashSet<(i64, i64)>> {
    let mut places: HashMap<String, HashSet<(i64, i64)>> = HashMap::new();
    for event in events(file).filter(|event| event["name"] == "record_data") {
        let at =
            (event["partition"].as_i64().unwrap_or(-1), event["offset"].as_i64().unwrap_or(-1));
        places
            .entry(event["value"].as_str().unwrap_or_default().to_owned())
            .or_default()
            .insert(at);
    }
    places
}
