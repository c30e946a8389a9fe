//! `strandline log`: segments on the disk of a broker that is stopped.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;

use super::output::{Format, Rows, spinner};
use crate::log::dump::{Verified, each_batch, verify};
use crate::record::{Codec, Records, reader};
use crate::system::OsDisk;

const PLAIN_BYTES_MAX: usize = 1 << 30;

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Show the batches of a segment file
    Dump {
        file: PathBuf,
        /// Show the records too
        #[arg(long)]
        records: bool,
    },
    /// Check every batch and index below a folder; exit code 1 if something is damaged
    Verify { folder: PathBuf },
}

pub(super) fn run(command: LogCommand, format: Format) -> anyhow::Result<()> {
    match command {
        LogCommand::Dump { file, records } => dump(&file, records, format),
        LogCommand::Verify { folder } => check(&folder, format),
    }
}

fn dump(file: &Path, with_records: bool, format: Format) -> anyhow::Result<()> {
    let columns = [
        "position",
        "base offset",
        "last offset",
        "records",
        "bytes",
        "codec",
        "epoch",
        "producer",
        "max time",
        "crc",
    ];
    let mut rows = Rows::new(&columns);
    let mut all = Vec::new();
    let visited = each_batch(&OsDisk, file, |header, position, batch, is_true| {
        rows.add(vec![
            json!(position),
            json!(header.base_offset),
            json!(header.last_offset()),
            json!(header.count),
            json!(batch.len()),
            json!(Codec::from_bits(header.codec_bits()).map_or("?", Codec::name)),
            json!(header.leader_epoch),
            json!(header.producer_id),
            json!(header.max_timestamp),
            json!(if is_true { "ok" } else { "WRONG" }),
        ]);
        if with_records && let Ok(records) = Records::open(*header, batch, PLAIN_BYTES_MAX) {
            for record in records.iter().flatten() {
                let text = |bytes: Option<&[u8]>| {
                    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                };
                let names: Vec<String> =
                    reader::headers(&record).into_iter().map(|(name, _)| name).collect();
                all.push(vec![
                    json!(record.offset),
                    json!(record.timestamp),
                    json!(text(record.key)),
                    json!(text(record.value)),
                    json!(names),
                ]);
            }
        }
    });
    rows.print(format);
    if with_records {
        let mut rows = Rows::new(&["offset", "timestamp", "key", "value", "headers"]);
        all.into_iter().for_each(|row| rows.add(row));
        rows.print(format);
    }
    visited.with_context(|| file.display().to_string())
}

fn check(folder: &Path, format: Format) -> anyhow::Result<()> {
    let mut report = Verified::default();
    let progress = spinner("{spinner} {bytes} read, {bytes_per_sec}");
    let checked = verify(&OsDisk, folder, &mut report, &mut |bytes| progress.inc(bytes));
    progress.finish_and_clear();
    checked.with_context(|| format!("can't read {}", folder.display()))?;
    let damages = report.damages.len();
    let mut rows = Rows::new(&["file", "position", "damage"]);
    for damage in report.damages {
        rows.add(vec![
            json!(damage.path.display().to_string()),
            json!(damage.position),
            json!(damage.what),
        ]);
    }
    if damages > 0 || format == Format::Json {
        rows.print(format);
    }
    if damages > 0 {
        bail!("{damages} damages in {} segments", report.files);
    }
    if format == Format::Table {
        say!(
            "{} segments, {} batches, {} bytes: all good.",
            report.files,
            report.batches,
            report.bytes
        );
    }
    Ok(())
}
