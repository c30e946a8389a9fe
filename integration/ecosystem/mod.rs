//! What people run beside Kafka, run for real: each file is a tool, what is done to it, and what went in compared with what came out.
//!
//! The fast ones run every time. The slow ones run by `ECOSYSTEM=all cargo test --test integration ecosystem -- --nocapture`. Programs in
//! other languages lie in the folders here; `installs.rs` brings the tools.

mod debezium;
mod faust;
mod flink;
mod installs;
mod kcat;
mod mirror;
mod nest;
mod postgres;
mod prometheus;
mod rust_clients;
mod spring;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::broker::{BINARY, Broker, run};
use crate::cluster::free_ports;
use crate::kit::eventually_within;

/// Whether the slow stories are asked for; says that one is left out where not.
fn is_asked_for(story: &str) -> bool {
    let asked = std::env::var("ECOSYSTEM").is_ok_and(|value| value == "all");
    if !asked {
        println!("{story}: left out, it runs with ECOSYSTEM=all");
    }
    asked
}

/// Waits for what a tool brings about: with time for a busy machine, and without taking the tool's time by asking.
fn calmly(what: &str, is_true: impl FnMut() -> bool) {
    eventually_within(Duration::from_mins(3), Duration::from_millis(300), what, is_true);
}

/// `strandline` with arguments; what it said.
fn strandline(arguments: &[&str]) -> String {
    let output = run(arguments);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {why}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same as rows in JSON; none where it fails.
fn rows(arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = run(&[arguments, &["--format", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn create(address: &str, topic: &str, partitions: &str) {
    strandline(&["topic", "create", topic, "--partitions", partitions, "-b", address]);
}

/// Produces records that are written `key=value`.
fn produce(address: &str, topic: &str, records: impl Iterator<Item = String>) {
    let mut command = Command::new(BINARY);
    command.args(["produce", topic, "-b", address, "--key-separator", "="]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary runs");
    let text = records.fold(String::new(), |all, record| all + &record + "\n");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    assert!(child.wait().expect("it ends").success());
}

/// Everything in a topic by a template, a line each.
fn lines(address: &str, topic: &str, template: &str) -> Vec<String> {
    let arguments = ["-o", "start", "--exit", "--template", template, "-b", address];
    let text = strandline(&[&["consume", topic], &arguments[..]].concat());
    text.lines().map(ToOwned::to_owned).collect()
}

fn free_port() -> u16 {
    free_ports(1)[0]
}

/// A broker that is killed and started again where it was.
struct Phoenix {
    data: PathBuf,
    settings: Vec<String>,
    address: String,
    http: String,
    broker: Option<Broker>,
}

impl Phoenix {
    fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    fn start_with(data: &Path, settings: &[&str]) -> Self {
        // Groups of one member wait for no others.
        let settings = [&["group.initial.rebalance.delay.ms=0"], settings].concat();
        let broker = Broker::start_with(data, &settings);
        let (address, http) = (broker.address.clone(), broker.http.clone());
        let mut settings: Vec<String> = settings.into_iter().map(ToOwned::to_owned).collect();
        settings.push(format!("listeners=PLAINTEXT://{address}"));
        settings.push(format!("http.listen={http}"));
        Self { data: data.to_owned(), settings, address, http, broker: Some(broker) }
    }

    /// `kill -9`.
    fn kill(&mut self) {
        self.broker.take().expect("running").kill();
    }

    fn rise(&mut self) {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        self.broker = Some(Broker::start_with(&self.data, &settings));
    }

    fn kill_and_rise(&mut self) {
        self.kill();
        self.rise();
    }
}

/// A tool that runs along; killed when it is dropped.
struct Tool {
    child: Child,
    log: PathBuf,
}

impl Tool {
    /// Starts it; what it says goes to a file.
    fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log");
        command.stdout(file.try_clone().expect("a log")).stderr(file).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// What it said so far.
    fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let words = self.words();
            let words: Vec<&str> = words.lines().collect();
            println!("last words:\n{}", words[words.len().saturating_sub(60)..].join("\n"));
        }
    }
}
