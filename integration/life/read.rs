//! Reading by raw fetches: all of a topic, and from single offsets and times.

use super::batches::{Batch, decode};
use super::model::{Fill, Seen};
use super::plan::Chance;
use super::talk::{Ask, BY_RACK, Client, Fetched, now_ms};

const OUT_OF_RANGE: i16 = 1;
/// Tries before a fetch that brings nothing is taken for one that never will.
const TRIES: u32 = 40;
/// Limits that answers are read with: a byte, less than any record, about a segment, all there is.
pub(crate) const LIMITS: [i32; 5] = [1, 200, 70_000, 1 << 20, 40 << 20];

/// All that is readable of a topic.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub start: i64,
    pub end: i64,
    pub records: Vec<Seen>,
    /// Where each batch ends.
    pub lasts: Vec<i64>,
    pub bytes: usize,
    pub largest: usize,
    pub began_ms: i64,
    pub ended_ms: i64,
    pub fetches: u64,
}

/// A version of Fetch; a follower is asked with one that knows of racks.
fn version(chance: &mut Chance, follower: Option<i32>) -> i16 {
    let lowest = if follower.is_some() { BY_RACK } else { 4 };
    lowest + i16::try_from(chance.below(u64::try_from(17 - lowest).expect("few"))).expect("few")
}

/// Fetches until something comes, or an error that says something.
fn fetch(client: &mut Client, ask: Ask) -> Result<Fetched, String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match client.fetch(ask) {
            Ok(found)
                if found.error == OUT_OF_RANGE || found.error == 0 && !found.records.is_empty() =>
            {
                return Ok(found);
            }
            Ok(found) => {
                last = format!("error {}, {} bytes", found.error, found.records.len());
                if found.error != 0 {
                    client.forget(ask.topic);
                }
            }
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(format!("{}: nothing comes at {}: {last}", ask.topic, ask.offset))
}

/// Whole batches of an answer that begins where it was asked to.
fn whole(topic: &str, offset: i64, found: &Fetched) -> Result<Vec<Batch>, String> {
    let batches = decode(&found.records).map_err(|why| format!("{topic} at {offset}: {why}"))?;
    match batches.first() {
        None => {
            Err(format!("{topic} at {offset}: no whole batch in {} bytes", found.records.len()))
        }
        Some(first) if first.last < offset => {
            Err(format!("{topic} at {offset}: what is sent ends at {}", first.last))
        }
        Some(_) => Ok(batches),
    }
}

/// Reads all of a topic up to its end, with answers of at most so many bytes, from the leader or a follower.
pub(crate) fn all(
    client: &mut Client,
    (topic, fill): (&str, &Fill),
    bytes_max: i32,
    follower: Option<i32>,
    chance: &mut Chance,
) -> Result<Read, String> {
    let end = client.offset_at_last(topic, -1)?;
    let began_ms = now_ms();
    let mut start_here = 0;
    let mut refused = 0;
    'again: loop {
        let start = client.offset_at_last(topic, -2)?.max(start_here);
        let mut read = Read { start, end, began_ms, ..Read::default() };
        let (mut at, mut epoch) = (start, 0);
        while at < end {
            let ask =
                Ask { topic, version: version(chance, follower), offset: at, bytes_max, follower };
            let found = fetch(client, ask)?;
            read.fetches += 1;
            if found.error == OUT_OF_RANGE {
                // Retention was faster. On a follower, whose segments are its own, it may have come further than on the leader.
                if follower.is_some() && found.log_start > at {
                    start_here = found.log_start;
                    continue 'again;
                }
                // Retention is each replica's own: the next leader may have what the one before had deleted.
                if client.offset_at_last(topic, -2)? <= at {
                    refused += 1;
                    client.forget(topic);
                    std::thread::sleep(std::time::Duration::from_millis(300));
                }
                if refused > 5 {
                    return Err(format!("{topic}: {at} is out of range, and nothing was deleted"));
                }
                continue 'again;
            }
            for batch in whole(topic, at, &found)? {
                if batch.epoch < epoch {
                    return Err(format!(
                        "{topic} at {}: epoch {} after {epoch}",
                        batch.base, batch.epoch
                    ));
                }
                epoch = batch.epoch;
                read.bytes += batch.bytes;
                read.largest = read.largest.max(batch.bytes);
                read.lasts.push(batch.last);
                for record in batch.records.iter().filter(|record| record.offset >= start) {
                    read.records
                        .push(fill.look(record).map_err(|why| format!("{topic} at {why}"))?);
                }
                at = batch.last + 1;
            }
        }
        read.records.retain(|record| record.offset < end);
        read.ended_ms = now_ms();
        return Ok(read);
    }
}

/// Reads from an offset with a limit: what comes first is the first record there is, at or after it.
pub(crate) fn at(
    client: &mut Client,
    (topic, fill): (&str, &Fill),
    (offset, bytes_max): (i64, i32),
    follower: Option<i32>,
    chance: &mut Chance,
) -> Result<Option<Seen>, String> {
    let version = version(chance, follower);
    let mut at = offset;
    let mut batches = 0;
    loop {
        let found = fetch(client, Ask { topic, version, offset: at, bytes_max, follower })?;
        if found.error == OUT_OF_RANGE {
            return Ok(None);
        }
        let answered = whole(topic, at, &found)?;
        if bytes_max == 1 && answered.len() > 1 {
            return Err(format!(
                "{topic} at {at}: {} batches where a byte was asked",
                answered.len()
            ));
        }
        let mut records = answered.iter().flat_map(|batch| &batch.records);
        if let Some(record) = records.find(|record| record.offset >= offset) {
            return fill.look(record).map(Some).map_err(|why| format!("{topic} at {why}"));
        }
        at = answered.last().map_or(at, |batch| batch.last + 1);
        batches += answered.len();
        if at >= found.high_watermark || batches > 10_000 {
            return Ok(None);
        }
    }
}
