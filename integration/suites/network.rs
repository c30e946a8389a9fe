//! A network of its own, for suites whose addresses are fixed: nothing else listens there, and nobody else can reach it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::broker::Broker;
use crate::kit::after;

/// A network with nothing but the loopback interface; gone when it is dropped.
pub(crate) struct Network {
    /// A process that does nothing but be in it.
    holder: Child,
    prefix: Vec<String>,
}

impl Network {
    /// `None`, and a line that says so, where this machine makes no networks.
    pub(crate) fn new(suite: &str) -> Option<Self> {
        // Root makes it as it is; others as root of a user namespace.
        let found = Self::make(&["--net"], &[]).or_else(|| {
            Self::make(
                &["--net", "--user", "--map-root-user"],
                &["--user", "--preserve-credentials"],
            )
        });
        if found.is_none() {
            println!("{suite}: left out, this machine makes no networks (unshare --net)");
        }
        found
    }

    fn make(unshare: &[&str], enter: &[&str]) -> Option<Self> {
        let mut holder = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", "ip link set lo up && echo ready && exec sleep 100000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let mut lines = BufReader::new(holder.stdout.take()?);
        if lines.read_line(&mut line).is_err() || line.trim() != "ready" {
            let _ = holder.kill();
            let _ = holder.wait();
            return None;
        }
        let own = ["nsenter".to_owned(), "--net".to_owned(), format!("--target={}", holder.id())];
        let prefix = own.into_iter().chain(enter.iter().map(|word| (*word).to_owned())).collect();
        Some(Self { holder, prefix })
    }

    /// What a command begins with that is to run in it.
    pub(crate) fn prefix(&self) -> &[String] {
        &self.prefix
    }

    /// A program that runs in it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.prefix[0]);
        command.args(&self.prefix[1..]).arg(program);
        command
    }

    /// A broker in it, on the port that suites expect.
    pub(crate) fn broker(&self, data: &Path, settings: &[&str]) -> Broker {
        let own = [
            "listeners=PLAINTEXT://127.0.0.1:9092",
            "advertised.listeners=PLAINTEXT://localhost:9092",
            "group.initial.rebalance.delay.ms=0",
        ];
        let settings: Vec<&str> = own.iter().chain(settings).copied().collect();
        Broker::start_command(after(&self.prefix, &Broker::command(data, &settings)))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
