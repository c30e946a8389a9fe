//! `strandline serve` and `strandline config`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::broker::{Broker, check};
use crate::config::{
    BROKER_ROWS, Config, Endpoint, Origin, TOPIC_ROWS, read_environment, read_file_text,
};
use crate::system::life::{Life, log_panics};
use crate::system::{Clock, OsDisk, Random, SharedDisk};

/// Settings from the command line.
#[derive(Debug, Default, Args)]
pub(super) struct ServeArguments {
    /// File of key=value lines, with Kafka's names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting; beats file and environment. Repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Object storage for topics with remote.storage.enable, e.g. file:./tier or s3://BUCKET/PREFIX (remote.storage.url)
    #[arg(long, value_name = "LOCATION")]
    tier: Option<String>,
    /// Read and check the configuration, then stop
    #[arg(long)]
    check_config: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say what a setting is for
    Explain {
        /// Its name, e.g. log.retention.ms
        key: String,
    },
}

/// Runs a broker until SIGTERM or Ctrl-C.
pub(super) fn serve(arguments: &ServeArguments) -> anyhow::Result<()> {
    let config = read_config(arguments)?;
    if arguments.check_config {
        let disk: SharedDisk = Arc::new(OsDisk);
        check(&config, &disk)?;
        say!("The configuration is good.");
        return Ok(());
    }
    init_logs();
    log_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("node")
        .enable_all()
        .build()
        .context("runtime not started")?;
    let ended = runtime.block_on(run(config));
    // Whatever is still at work there was not to be waited for.
    runtime.shutdown_background();
    ended
}

async fn run(config: Config) -> anyhow::Result<()> {
    let directories = config.text("log.dirs").to_owned();
    // From here on a signal is ours: the first process of a container has no other end.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let handles = (Clock::system(), Random::from_system());
    let life = Life::new();
    let starting = Broker::start(config, Arc::new(OsDisk), handles, &life);
    let started = tokio::select! {
        started = starting => started?,
        why = life.failed() => return Err(Failed(why).into()),
        // A start has told nobody anything: it is left as a crash would leave it.
        () = either(&mut terminate, &mut interrupt) => {
            eprintln!("Stopped before it was ready.");
            return Ok(());
        }
    };
    print_banner(&started.listeners, started.http, &directories);
    loop {
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => break,
            why = started.broker.failed() => return Err(Failed(why).into()),
            _ = hang_up.recv() => started.broker.reload().await,
        }
    }
    eprintln!("Stopping: answering what was asked and closing the logs.");
    tokio::select! {
        stopped = started.broker.stop() => {
            stopped.map_err(|why| anyhow!("{why}: stopped all the same; the next start recovers the logs"))
        }
        why = life.failed() => Err(Failed(why).into()),
        _ = interrupt.recv() => bail!("stopped at once on a second Ctrl-C; the next start recovers the logs"),
    }
}

/// Waits for one of two signals.
async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Why a broker that served could not go on.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}: stopping at once, so that others take over; look at the log above and at the disk, then start again"
)]
pub(super) struct Failed(String);

fn print_banner(listeners: &[Endpoint], http: Option<SocketAddr>, directories: &str) {
    let bootstrap = listeners.first().map(|l| {
        let host = match l.host.as_str() {
            "" | "0.0.0.0" | "::" => "localhost".to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        format!("{host}:{}", l.port)
    });
    let bootstrap = bootstrap.unwrap_or_default();
    say!("Strandline {} is ready.", env!("CARGO_PKG_VERSION"));
    say!("  Kafka    {bootstrap}");
    say!("  HTTP     {}", http.map_or_else(|| "-".to_owned(), |address| address.to_string()));
    say!("  data     {directories}");
    // As it was called, so that the line can be pasted into another terminal.
    let program = std::env::args().next().unwrap_or_else(|| "strandline".to_owned());
    say!("Try it:");
    say!("  echo hello | {program} produce -b {bootstrap} greetings");
    say!("  {program} consume -b {bootstrap} --offset start --exit greetings");
}

fn read_config(arguments: &ServeArguments) -> anyhow::Result<Config> {
    let mut config = Config::default();
    if let Some(path) = &arguments.config {
        let text = super::read_text(path)?;
        read_file_text(&mut config, &text).with_context(|| path.display().to_string())?;
    }
    read_environment(&mut config, std::env::vars())?;
    if let Some(location) = &arguments.tier {
        config.set("remote.storage.url", location, Origin::CommandLine)?;
    }
    for item in &arguments.set {
        let Some((key, value)) = item.split_once('=') else {
            bail!("--set {item} is not of the form key=value")
        };
        config.set(key.trim(), value, Origin::CommandLine)?;
    }
    Ok(config)
}

/// Log lines go to stderr; `STRANDLINE_LOG` filters them (`debug`, `strandline::log=trace`).
fn init_logs() {
    let filter = std::env::var("STRANDLINE_LOG").unwrap_or_else(|_| "warn".to_owned());
    // The consensus library tells at length what is no news to an operator; name it in the variable to hear it.
    let filter = tracing_subscriber::EnvFilter::new(format!("openraft=off,{filter}"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second initialisation in one process (tests) keeps the first.
    let _ = lines.with_ansi(rustix::termios::isatty(std::io::stderr())).try_init();
}

/// Explains a setting.
pub(super) fn config(command: &ConfigCommand) -> anyhow::Result<()> {
    let ConfigCommand::Explain { key } = command;
    let mut found = false;
    if let Some(row) = BROKER_ROWS.iter().find(|row| row.name == key) {
        found = true;
        let when = if row.dynamic { "changes while the broker runs" } else { "needs a restart" };
        say!("{} (broker setting, {when})\n  {}\n  default: {}", row.name, row.text, row.default);
    }
    if let Some(row) = TOPIC_ROWS.iter().find(|row| row.name == key) {
        found = true;
        let from = row.broker.map(|name| format!(", taken from {name}")).unwrap_or_default();
        say!("{} (topic setting)\n  {}\n  default: {}{from}", row.name, row.text, row.default);
    }
    if !found {
        // The error of setting it carries the suggestion.
        Config::default().set(key, "", Origin::CommandLine)?;
    }
    Ok(())
}
