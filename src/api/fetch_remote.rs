//! What of a fetch takes the disk or object storage, and what becomes of its limits then.
//!
//! Invariants: what is asked for at once fits into the fetch's limit, and into memory with it, but for the first batch of the first
//! partition; what comes is taken in the order of the request, within what is left of the limit then. What takes too long, or
//! does not fit, is found by the next fetch, in memory.

use std::time::Duration;

use bytes::Bytes;

use super::fetch::{Fetching, Found};
use crate::error::ErrorCode;
use crate::record::next_batch;
use crate::replication::{PartitionError, PartitionHandle, RemoteRead};
use crate::system::clock::{Instant, monotonic, timeout_at};
use crate::system::tasks::{JoinHandle, blocking, spawn};

/// How long a fetch waits for object storage: well below what clients wait for an answer.
const REMOTE_WAIT: Duration = Duration::from_secs(5);

type Reading = JoinHandle<Result<Option<Bytes>, PartitionError>>;

/// How a read of object storage ended.
#[derive(Debug, Clone)]
pub(super) enum Brought {
    /// There was none.
    Nothing,
    Bytes(Bytes),
    /// The first batch is larger than what was allowed.
    TooLarge(RemoteRead),
    Late,
    Failed(ErrorCode),
}

fn begin(read: &RemoteRead, handle: PartitionHandle) -> Reading {
    let read = read.clone();
    spawn(async move { read.run(handle).await })
}

async fn end(read: RemoteRead, reading: Reading, until: Instant) -> Brought {
    match timeout_at(until, reading).await {
        Ok(Ok(Ok(Some(bytes)))) => Brought::Bytes(bytes),
        Ok(Ok(Ok(None))) => Brought::TooLarge(read),
        Ok(Ok(Err(error))) => Brought::Failed(ErrorCode::from(&error)),
        Ok(Err(_)) => Brought::Failed(ErrorCode::UnknownServerError),
        Err(_) => Brought::Late,
    }
}

impl Fetching {
    /// Reads what is in object storage, all of it at once, and puts it together with what is here.
    pub(super) async fn bring(self, mut found: Vec<Found>) -> Option<(Self, Vec<Found>)> {
        let until = monotonic() + REMOTE_WAIT;
        let begun: Vec<_> = found
            .iter_mut()
            .map(|f| Some((f.remote.take()?, f.handle.clone()?)))
            .map(|read| read.map(|(read, handle)| (begin(&read, handle), read)))
            .collect();
        let mut brought = Vec::with_capacity(begun.len());
        for reading in begun {
            brought.push(match reading {
                Some((reading, read)) => end(read, reading, until).await,
                None => Brought::Nothing,
            });
        }
        let mut fetching = self;
        loop {
            let settle = move || {
                let wanted = fetching.settle(&mut found, &mut brought);
                (fetching, found, brought, wanted)
            };
            let wanted;
            (fetching, found, brought, wanted) = blocking(settle).await?;
            let Some((at, mut read)) = wanted else { break };
            // Those before it had nothing after all: now it is the first.
            read.first_whole = true;
            let handle = found.get(at).and_then(|f| f.handle.clone());
            if let (Some(brought), Some(handle)) = (brought.get_mut(at), handle) {
                let reading = begin(&read, handle);
                *brought = end(read, reading, until).await;
            }
        }
        found.iter_mut().for_each(|f| f.remote = None);
        Some((fetching, found))
    }

    /// Goes through what was found in order, and gives to each what is left of the limit: what it was given at first rested on what
    /// those before it might have. Stops at a read that brought nothing, since its first batch is too large, where it is the first
    /// that has something. May wait for the disk.
    pub(super) fn settle(
        &self,
        found: &mut [Found],
        brought: &mut [Brought],
    ) -> Option<(usize, RemoteRead)> {
        let (mut left, mut has_data) = (self.limits.bytes_max, false);
        for (index, f) in found.iter_mut().enumerate() {
            let share = self.plan.followed.get(f.at).map_or(0, |followed| followed.bytes_max);
            let share = share.min(left);
            match brought.get(index) {
                Some(Brought::Bytes(bytes)) if has_data => f.bytes = within(bytes, share),
                Some(Brought::Bytes(bytes)) => f.bytes = Some(bytes.clone()),
                Some(Brought::TooLarge(read)) if !has_data => return Some((index, read.clone())),
                Some(Brought::Failed(error)) => f.error = *error,
                Some(Brought::Nothing) | None if f.is_readable() => {
                    if let Some(again) = self.look_again(f.at, (left, !has_data)) {
                        *f = again;
                    }
                }
                _ => {}
            }
            let slice = f.slice.as_ref().map(|slice| slice.bytes);
            let remote = f.remote.as_ref().filter(|_| brought.is_empty());
            let bytes = f.bytes.as_ref().map(Bytes::len).or(slice);
            let bytes = bytes.or(remote.map(|remote| remote.bytes_max));
            has_data |= bytes.is_some();
            left = left.saturating_sub(bytes.unwrap_or(0));
        }
        None
    }
}

/// As many whole batches as fit; `None` if none does.
fn within(bytes: &Bytes, bytes_max: usize) -> Option<Bytes> {
    let (mut rest, mut length) = (&**bytes, 0);
    while let Some((_, _, after)) = next_batch(rest) {
        if bytes.len() - after.len() > bytes_max {
            break;
        }
        length = bytes.len() - after.len();
        rest = after;
    }
    (length > 0).then(|| bytes.slice(..length))
}
