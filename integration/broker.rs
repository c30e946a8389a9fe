//! A broker process.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::watch::{describe, watch};

/// The built binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_strandline");

/// Whatever it does, and however busy the machine is, it stops by then.
const STOP_MAX: Duration = Duration::from_secs(90);

/// So many of the last lines on a broker's standard error are kept.
const LINES_KEPT: usize = 200;

/// A running broker; killed when it is dropped.
pub(crate) struct Broker {
    child: Child,
    said: Said,
    pub address: String,
    pub http: String,
    pub started_in: Duration,
}

/// What a broker says on its standard error: passed on, and the last of it kept.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    fn listen(&self, errors: impl Read) {
        for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            eprintln!("{line}");
            let mut lines = self.0.lock().expect("nobody panics here");
            lines.push_back(line);
            if lines.len() > LINES_KEPT {
                lines.pop_front();
            }
        }
    }
}

/// `strandline` with arguments, run to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("the binary runs")
}

impl Broker {
    /// Starts a broker on a folder, on free ports.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// Starts a broker with further settings.
    pub(crate) fn start_with(data: &Path, settings: &[&str]) -> Self {
        Self::start_command(Self::command(data, settings))
    }

    /// What starts a broker with further settings.
    pub(crate) fn command(data: &Path, settings: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--set", &format!("log.dirs={}", data.display())]);
        if !settings.iter().any(|setting| setting.starts_with("listeners=")) {
            command.args(["--set", "listeners=PLAINTEXT://127.0.0.1:0"]);
        }
        command.args(["--set", "http.listen=127.0.0.1:0"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command
    }

    /// Starts a broker by a command of the caller's.
    pub(crate) fn start_command(mut command: Command) -> Self {
        watch();
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let (mut address, mut http, mut line) = (None, None, String::new());
        while address.is_none() || http.is_none() {
            line.clear();
            if lines.read_line(&mut line).expect("text") == 0 {
                let mut why = String::new();
                child.stderr.take().expect("piped").read_to_string(&mut why).expect("text");
                let _ = child.wait();
                panic!("the broker did not start: {why}");
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("Kafka"), Some(found)) => address = Some(found.to_owned()),
                (Some("HTTP"), Some(found)) => http = Some(found.to_owned()),
                _ => {}
            }
        }
        let started_in = begun.elapsed();
        // Whatever it still says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let (errors, said) = (child.stderr.take().expect("piped"), Said::default());
        let listening = said.clone();
        std::thread::spawn(move || listening.listen(errors));
        let (address, http) = (address.unwrap_or_default(), http.unwrap_or_default());
        Self { child, said, address, http, started_in }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// The code by which the process has ended.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten()?.code()
    }

    /// The last lines on its standard error.
    pub(crate) fn said(&self) -> String {
        let lines = self.said.0.lock().expect("nobody panics there");
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops the process, or lets it go on.
    pub(crate) fn pause(&self, is_paused: bool) {
        let signal = if is_paused { "-STOP" } else { "-CONT" };
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(killed.expect("kill runs").success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the broker ends") {
                return status;
            }
            let does = || describe(self.child.id());
            assert!(begun.elapsed() < STOP_MAX, "the broker does not stop:\n{}", does());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary folder; the path is `data` in it.
pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    watch();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("data");
    (folder, path)
}
