//! `strandline tier`: object storage, looked at from here.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::output::{Format, Rows};
use crate::objects::{Finding, Location, check, open};
use crate::system::{Clock, OsDisk, Random, SharedDisk};

/// Where a store is.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreArguments {
    /// s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or file:FOLDER
    location: String,
    /// An option of the store as KEY=VALUE, e.g. aws_endpoint=http://localhost:9000; what is not given comes from the
    /// environment (AWS_ACCESS_KEY_ID and its like), a web identity, or the machine. Repeatable
    #[arg(long = "option", short = 'o', value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// PEM file of certificates to trust beside the operating system's
    #[arg(long, value_name = "FILE")]
    certificates: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TierCommand {
    /// Prove that a bucket can be trusted: rights, conditional puts, ranges, uploads in parts, clock
    Check {
        #[command(flatten)]
        store: StoreArguments,
    },
}

impl StoreArguments {
    fn location(&self) -> anyhow::Result<Location> {
        let mut options = Vec::new();
        for option in &self.options {
            let Some((key, value)) = option.split_once('=') else {
                bail!("--option {option} is not of the form KEY=VALUE")
            };
            options.push((key.trim().to_ascii_lowercase(), value.to_owned()));
        }
        let certificates = self.certificates.clone();
        Ok(Location { url: self.location.clone(), options, certificates })
    }
}

pub(super) async fn run(command: TierCommand, format: Format) -> anyhow::Result<()> {
    let TierCommand::Check { store } = command;
    let disk: SharedDisk = Arc::new(OsDisk);
    let location = store.location()?;
    let opened = open(&location, &disk)?;
    let findings = check(&opened, &Clock::system(), &Random::from_system()).await;
    show(&findings, format);
    let wrong = findings.iter().filter(|finding| finding.wrong.is_some()).count();
    if wrong > 0 {
        bail!(
            "{} can't be trusted with data: {wrong} of {} checks failed",
            location.url,
            findings.len()
        );
    }
    Ok(())
}

fn show(findings: &[Finding], format: Format) {
    let mut rows = Rows::new(&["check", "ms", "result"]);
    for finding in findings {
        let result = finding.wrong.as_deref().unwrap_or("ok");
        let took_ms = u64::try_from(finding.took.as_millis()).unwrap_or(u64::MAX);
        rows.add(vec![finding.what.into(), took_ms.into(), result.into()]);
    }
    rows.print(format);
}
