//! The binary: reads the command line, runs it, sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    strandline::cli::run()
}
