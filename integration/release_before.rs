//! A build that knows one feature level less: the release before, in tests of upgrades.

use std::process::ExitCode;

fn main() -> ExitCode {
    strandline::cli::run_as_the_release_before()
}
