//! The command line: the server and the tools, in one binary.
//!
//! Invariants: an error names the thing and the way out, on stderr, with exit code 1; output that is meant for
//! programs goes to stdout alone.
#![expect(clippy::print_stderr, reason = "this is where words to people belong")]

/// `println!` for an output that may be closed: whoever reads it may have seen enough.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::cli::output::say(&format!($($words)*))
    };
}

mod balance;
mod bench;
mod broker;
mod cluster;
mod cluster_client;
mod consume;
mod consumer_group;
mod demo;
mod found;
mod group;
mod log;
mod mount;
mod moves;
mod output;
mod produce;
mod restore;
mod secure;
mod serve;
mod tier;
mod tier_status;
mod topic;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use cluster_client::Cluster;
use output::Format;

use crate::system::OsDisk;
use crate::system::disk::read_file;

/// A log service that speaks the Kafka protocol and loses no acknowledged message.
#[derive(Debug, Parser)]
#[command(name = "strandline", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What commands that talk to a cluster share.
#[derive(Debug, Clone, Args)]
struct Remote {
    /// Address of a broker, or several separated by commas
    #[arg(
        long,
        short,
        global = true,
        default_value = "localhost:9092",
        env = "STRANDLINE_BOOTSTRAP"
    )]
    bootstrap: String,
    /// File of Kafka's client settings: security.protocol, ssl.truststore.location, ssl.keystore.location
    #[arg(long, global = true, value_name = "FILE", env = "STRANDLINE_COMMAND_CONFIG")]
    command_config: Option<PathBuf>,
    /// How results are shown
    #[arg(long, global = true, default_value = "table")]
    format: Format,
}

impl Remote {
    async fn connect(&self) -> anyhow::Result<Cluster> {
        secure::configure(self.command_config.as_deref())?;
        Cluster::connect(&self.bootstrap).await
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker (this is what `strandline` alone does)
    Serve(serve::ServeArguments),
    /// Topics: create, ls, describe, alter, add-partitions, trim, rm
    Topic {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: topic::TopicCommand,
    },
    /// Send lines or files
    Produce {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        arguments: produce::ProduceArguments,
    },
    /// Show records
    Consume {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        arguments: consume::ConsumeArguments,
    },
    /// Consumer groups: ls, describe, lag, seek, rm
    Group {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: group::GroupCommand,
    },
    /// One broker: drain, undrain, decommission, unregister
    Broker {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: broker::BrokerCommand,
    },
    /// The cluster: info, health, config, balance, voters
    Cluster {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Segments on disk, while their broker is stopped: dump, verify
    Log {
        /// How results are shown
        #[arg(long, global = true, default_value = "table")]
        format: Format,
        #[command(subcommand)]
        command: log::LogCommand,
    },
    /// Object storage: check, ls, verify, restore
    Tier {
        /// How results are shown
        #[arg(long, global = true, default_value = "table")]
        format: Format,
        #[command(subcommand)]
        command: tier::TierCommand,
    },
    /// Measure a cluster: produce, consume, e2e
    Bench {
        #[command(flatten)]
        remote: Remote,
        #[command(subcommand)]
        command: bench::BenchCommand,
    },
    /// Show on this machine what is promised
    #[command(subcommand)]
    Demo(demo::DemoCommand),
    /// Look at settings
    #[command(subcommand)]
    Config(serve::ConfigCommand),
    /// Print a completion script
    Completions { shell: Shell },
}

/// Runs as a build of the release before would, as far as what it says to other nodes goes (for tests of upgrades).
#[doc(hidden)]
pub fn run_as_the_release_before() -> ExitCode {
    crate::metadata::know_one_less();
    run()
}

/// The code by which a broker ends that could not go on (EX_SOFTWARE).
const BROKER_FAILED: u8 = 70;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let command =
        arguments.command.unwrap_or_else(|| Command::Serve(serve::ServeArguments::default()));
    match carry_out(command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let told = format!("strandline: {error:#}");
            told.lines().for_each(|line| eprintln!("{}", output::plain(line)));
            let has_failed = error.is::<serve::Failed>();
            if has_failed { ExitCode::from(BROKER_FAILED) } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Config(command) => serve::config(&command),
        Command::Demo(command) => block_on(demo::run(command)),
        Command::Tier { command, format } => block_on(tier::run(command, format)),
        Command::Log { command, format } => log::run(command, format),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "strandline",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Command::Topic { remote, command } => block_on(async {
            topic::run(command, &mut remote.connect().await?, remote.format).await
        }),
        Command::Produce { remote, arguments } => {
            block_on(async { produce::run(arguments, &mut remote.connect().await?).await })
        }
        Command::Consume { remote, arguments } => {
            block_on(async { consume::run(arguments, &mut remote.connect().await?).await })
        }
        Command::Group { remote, command } => block_on(async {
            group::run(command, &mut remote.connect().await?, remote.format).await
        }),
        Command::Cluster { remote, command } => block_on(async {
            cluster::run(command, &mut remote.connect().await?, remote.format).await
        }),
        Command::Broker { remote, command } => block_on(async {
            broker::run(command, &mut remote.connect().await?, remote.format).await
        }),
        Command::Bench { remote, command } => block_on(async {
            secure::configure(remote.command_config.as_deref())?;
            bench::run(command, &remote.bootstrap).await
        }),
    }
}

/// A file's text.
fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes =
        read_file(&OsDisk, path).with_context(|| format!("can't read {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("runtime not started")?.block_on(work)
}

/// `docs/reference/cli.md`.
#[cfg(test)]
pub(crate) fn reference_page() -> String {
    use std::fmt::Write;

    fn describe(page: &mut String, command: &mut clap::Command, name: &str) {
        let help = command.clone().term_width(100).render_help().to_string();
        let text: Vec<&str> = help.lines().map(str::trim_end).collect();
        let text = text.join("\n");
        let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", text.trim());
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let name = format!("{name} {}", sub.get_name());
            describe(page, sub, &name);
        }
    }
    let mut page = String::from(
        "# Command line\n\nGenerated from `src/cli`; `UPDATE=1 cargo test tidy` rewrites it.\n",
    );
    let mut command = Arguments::command();
    command.build();
    describe(&mut page, &mut command, "strandline");
    page
}
