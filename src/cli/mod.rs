//! The command line: the server and the tools, in one binary.
//!
//! Invariants: an error names the thing and the way out, on stderr, with exit code 1; output that is meant for
//! programs goes to stdout alone.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A log service that speaks the Kafka protocol and loses no acknowledged message.
#[derive(Debug, Parser)]
#[command(name = "strandline", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker (this is what `strandline` alone does)
    Serve(serve::ServeArguments),
    /// Look at settings
    #[command(subcommand)]
    Config(serve::ConfigCommand),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result =
        match arguments.command.unwrap_or_else(|| Command::Serve(serve::ServeArguments::default()))
        {
            Command::Serve(arguments) => serve::serve(&arguments),
            Command::Config(command) => serve::config(&command),
        };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strandline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
