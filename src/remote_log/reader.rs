//! Reads records of copied segments: in chunks, through a cache, ahead of whoever reads on.
//!
//! Invariants: a chunk is compared with its checksum before anybody sees it; one request for a chunk serves all who ask for it
//! at the time; memory is bounded by the setting; nothing here runs on a thread that blocks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::counts::TierCounts;
use super::disk_cache::DiskCache;
use super::encryption::{Keyring, Piece, opened};
use super::error::RemoteError;
use super::manifest::{Manifest, RemoteSegment};
use super::trailer::{CHUNK_BYTES, Trailer};
use crate::log::{FoundRecord, Wanted};
use crate::model::number::{to_u32, to_u64};
use crate::model::{Offset, Timestamp};
use crate::objects::{Store, StoreError};
use crate::record::reader::{ends_before, may_end_before};
use crate::record::{BatchBuilder, BatchHeader, HEADER_BYTES, RecordError, next_batch};
use crate::system::Throttle;
use crate::system::clock::uptime_ms;
use crate::system::tasks::blocking;

/// Chunks that are fetched ahead of somebody who reads on.
const READ_AHEAD: usize = 16;
/// What one fetch gets of a partition at most, but for its first batch: many readers' answers are in memory at once.
pub(crate) const ANSWER_BYTES: usize = 1 << 20;
/// Offsets that one batch without records stands for at most.
const GAP_OFFSETS_MAX: i64 = 1 << 30;
/// Permits are for so many bytes on their way here.
const PERMIT_BYTES: usize = 1 << 20;
/// So many may be on their way whatever the setting is.
const PERMITS_MIN: usize = 16;

type Shared = Arc<RemoteError>;

/// What a read for records finds.
#[derive(Debug)]
pub(crate) struct RemoteBatches {
    pub bytes: Bytes,
    /// Whether the first batch has records. If not, there are none in the bucket from the offset asked for up to `next`, where
    /// what is to be told of them ends.
    pub has_records: bool,
    pub next: Offset,
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) store: Store,
    pub(super) counts: Arc<TierCounts>,
    keyring: Arc<Keyring>,
    room: Arc<Room>,
}

/// What all readers share, of whichever bucket.
#[derive(Debug)]
struct Room {
    chunks: Cache<(Uuid, usize), Bytes>,
    trailers: Cache<Uuid, Arc<Trailer>>,
    /// Bounds the memory of what is on its way here.
    coming: Semaphore,
    /// Reads under way.
    readers: AtomicUsize,
    /// What does not fit into memory, where there is a disk for it.
    disk: OnceLock<Arc<DiskCache>>,
    /// Holds reads to `remote.log.manager.fetch.max.bytes.per.second`.
    throttle: Throttle,
}

impl Room {
    fn new(cache_bytes: u64) -> Self {
        let weight = |bytes: usize| to_u32(i64::try_from(bytes).unwrap_or(i64::MAX)).max(1);
        // Indexes are a thousandth of what they are of; a tenth of the room keeps those of what is read. Half is for chunks that
        // are kept, a quarter for those that come, and the rest for what is on its way to readers.
        let trailers = Cache::builder()
            .max_capacity(cache_bytes / 10)
            .weigher(move |_, trailer: &Arc<Trailer>| weight(trailer.bytes))
            .build();
        let chunks = Cache::builder()
            .max_capacity(cache_bytes / 2)
            // Most is read once: what was asked for often before is no better than what was just fetched ahead.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(move |_, chunk: &Bytes| weight(chunk.len()))
            .build();
        let coming = usize::try_from(cache_bytes / 4).unwrap_or(usize::MAX) / PERMIT_BYTES;
        let coming = Semaphore::new(coming.clamp(PERMITS_MIN, Semaphore::MAX_PERMITS));
        let (readers, throttle) = (AtomicUsize::new(0), Throttle::default());
        Self { chunks, trailers, coming, readers, disk: OnceLock::new(), throttle }
    }
}

impl Reader {
    pub(super) fn new(
        store: Store,
        (counts, keyring): (Arc<TierCounts>, Arc<Keyring>),
        cache_bytes: u64,
    ) -> Arc<Self> {
        Arc::new(Self { store, counts, keyring, room: Arc::new(Room::new(cache_bytes)) })
    }

    /// One of another bucket, with the same memory, keys and limits.
    pub(super) fn beside(&self, store: Store) -> Arc<Self> {
        let (counts, keyring) = (Arc::clone(&self.counts), Arc::clone(&self.keyring));
        Arc::new(Self { store, counts, keyring, room: Arc::clone(&self.room) })
    }

    /// Gives what all readers share a disk.
    pub(super) fn set_disk_cache(&self, cache: Arc<DiskCache>) {
        let _ = self.room.disk.set(cache);
    }

    pub(super) fn disk_cache(&self) -> Option<&Arc<DiskCache>> {
        self.room.disk.get()
    }

    /// Holds reads to so many bytes a second.
    pub(super) fn set_rate(&self, rate: i64) {
        self.room.throttle.set_rate(rate);
    }

    /// What stands after a segment's records.
    pub(crate) async fn trailer(
        self: &Arc<Self>,
        object: &str,
        segment: &RemoteSegment,
    ) -> Result<Arc<Trailer>, Shared> {
        let fetch = async {
            let (reader, name, segment) = (Arc::clone(self), object.to_owned(), segment.clone());
            let work = async move {
                let (key, of) = (reader.keyring.key_of(&segment)?, (&*name, &segment));
                let stored = reader.stored(of, Piece::Trailer).await?;
                let check = |bytes| {
                    let bytes = opened(key.as_ref(), (&name, Piece::Trailer), bytes)?;
                    Trailer::decode(&name, &bytes, &segment).map(Arc::new)
                };
                reader.settle(of, (Piece::Trailer, stored), check).await
            };
            self.store.background().run(work).await.unwrap_or_else(|| Err(broken(object)))
        };
        Box::pin(self.room.trailers.try_get_with(segment.id, fetch)).await
    }

    /// Bytes of an object, past all caches.
    pub(super) async fn get(
        &self,
        object: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, RemoteError> {
        let bytes = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let permits = bytes.div_ceil(PERMIT_BYTES).min(PERMITS_MIN);
        let _permit = self.room.coming.acquire_many(u32::try_from(permits).unwrap_or(1)).await;
        self.room.throttle.wait().await;
        self.room.throttle.note(uptime_ms(), bytes);
        let got = self.store.get_range(object, range).await;
        self.counts.note_read(got.as_ref().map(|bytes| to_u64(bytes.len())).ok());
        Ok(got?)
    }

    async fn chunk(
        self: &Arc<Self>,
        object: &str,
        segment: &RemoteSegment,
        chunk: usize,
    ) -> Result<Bytes, Shared> {
        let fetch = async {
            let (reader, name, segment) = (Arc::clone(self), object.to_owned(), segment.clone());
            let work = async move { reader.fetch(&name, &segment, chunk).await };
            self.store.background().run(work).await.unwrap_or_else(|| Err(broken(object)))
        };
        let key = (segment.id, chunk);
        if let Some(found) = self.room.chunks.get(&key).await {
            self.counts.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(found);
        }
        let got = Box::pin(self.room.chunks.try_get_with(key, fetch)).await;
        // At once: what the cache drops some time later is memory that nobody meant to give it.
        self.room.chunks.run_pending_tasks().await;
        got
    }

    async fn fetch(
        self: &Arc<Self>,
        object: &str,
        segment: &RemoteSegment,
        chunk: usize,
    ) -> Result<Bytes, RemoteError> {
        let key = self.keyring.key_of(segment)?;
        let (piece, of) = (Piece::Chunk(chunk), (object, segment));
        let both = join(self.stored(of, piece), self.trailer(object, segment)).await;
        let (stored, trailer) = (both.0?, both.1.map_err(|error| told(object, &error))?);
        let check = |bytes| {
            let bytes = opened(key.as_ref(), (object, piece), bytes)?;
            trailer.verify(object, chunk, &bytes).map(|()| bytes)
        };
        self.settle(of, (piece, stored), check).await
    }

    /// Exactly `bytes` of the records from `start` on, or up to their end.
    async fn bytes(
        self: &Arc<Self>,
        (object, segment): (&str, &RemoteSegment),
        start: u64,
        bytes: usize,
    ) -> Result<Bytes, Shared> {
        let end = (start + to_u64(bytes)).min(segment.log_bytes);
        let chunk_of = |byte: u64| usize::try_from(byte).unwrap_or(usize::MAX) / CHUNK_BYTES;
        let (first, last) = (chunk_of(start), chunk_of(end.max(start + 1) - 1));
        let within = |chunk: usize, data: &Bytes| {
            let base = to_u64(chunk * CHUNK_BYTES);
            let from = usize::try_from(start.saturating_sub(base)).unwrap_or(0).min(data.len());
            let to = usize::try_from(end.saturating_sub(base)).unwrap_or(0).min(data.len());
            data.slice(from..to.max(from))
        };
        self.read_ahead(object, segment, first, last);
        // Copied: a slow reader is not to hold whole chunks that the cache has dropped.
        let mut all = BytesMut::with_capacity(usize::try_from(end - start).unwrap_or(0));
        for chunk in first..=last {
            all.extend_from_slice(&within(chunk, &self.chunk(object, segment, chunk).await?));
        }
        Ok(all.freeze())
    }

    /// Fetches what comes next, if what comes before is here: then somebody reads on.
    fn read_ahead(
        self: &Arc<Self>,
        object: &str,
        segment: &RemoteSegment,
        first: usize,
        last: usize,
    ) {
        let is_here = |chunk: usize| self.room.chunks.contains_key(&(segment.id, chunk));
        let reads_on = first > 0 && is_here(first - 1);
        let ahead = if reads_on { self.ahead() } else { 1 };
        for chunk in (last + 1..segment.chunks()).take(ahead).filter(|chunk| !is_here(*chunk)) {
            let (reader, object, segment) = (Arc::clone(self), object.to_owned(), segment.clone());
            self.store.background().spawn(async move {
                // Whoever needs it asks again, and is told what is wrong.
                let _ = reader.chunk(&object, &segment, chunk).await;
            });
        }
    }

    /// How many chunks there is room for ahead of each reader.
    fn ahead(&self) -> usize {
        let readers = to_u64(self.room.readers.load(Ordering::Relaxed).max(1));
        let room = self.room.chunks.policy().max_capacity().unwrap_or(0) / 2 / to_u64(CHUNK_BYTES);
        usize::try_from(room / readers).unwrap_or(READ_AHEAD).clamp(1, READ_AHEAD)
    }

    /// Fetches the chunk that an offset is in if its segment's records are of one size, together with the index that knows it: who
    /// reads from the middle of a segment that nobody has read waits for one request, not for two.
    fn fetch_guess(self: &Arc<Self>, object: &str, segment: &RemoteSegment, offset: Offset) {
        if self.room.trailers.contains_key(&segment.id) {
            return;
        }
        let offsets = to_u64(segment.end_offset - segment.object_offset).max(1);
        let at = u128::from(to_u64(offset - segment.object_offset)) * u128::from(segment.log_bytes);
        let byte = usize::try_from(at / u128::from(offsets)).unwrap_or(0);
        let (reader, object, segment) = (Arc::clone(self), object.to_owned(), segment.clone());
        self.store.background().spawn(async move {
            let _ = reader.chunk(&object, &segment, byte / CHUNK_BYTES).await;
        });
    }

    /// Fetches how the next segment begins before anybody comes to it.
    fn read_next_segment(self: &Arc<Self>, manifest: &Manifest, segment: &RemoteSegment) {
        let Some(next) = manifest.find(segment.end_offset) else { return };
        if !self.room.chunks.contains_key(&(next.id, 0)) {
            let (reader, object, next) = (Arc::clone(self), manifest.object(next), next.clone());
            self.store.background().spawn(async move {
                let _ = reader.chunk(&object, &next, 0).await;
            });
        }
    }

    /// Whole batches from the one that holds `offset` on, at most `bytes_max`, but the first one whole; nothing at or past
    /// `end`, and nothing of the next segment.
    pub(crate) async fn read(
        self: &Arc<Self>,
        manifest: &Manifest,
        offset: Offset,
        bytes_max: usize,
        end: Offset,
    ) -> Result<Bytes, Shared> {
        let segment = manifest.find(offset).ok_or(Arc::new(RemoteError::OutOfRange(offset)))?;
        let found = self
            .read_segment((manifest, segment), (offset, Wanted::Any), (bytes_max, true), end)
            .await?;
        match found {
            Held::Batches(batches) => Ok(batches),
            _ => gap(manifest, segment, offset..end.min(segment.end_offset)),
        }
    }

    /// The same from the first batch on that has records, in whichever segment it is; `None` if that is larger than what is allowed, and
    /// not wanted whole.
    pub(crate) async fn read_records(
        self: &Arc<Self>,
        manifest: &Manifest,
        offset: Offset,
        limit: (usize, bool),
        end: Offset,
    ) -> Result<Option<RemoteBatches>, Shared> {
        let out_of_range = || Arc::new(RemoteError::OutOfRange(offset));
        let mut segment = manifest.find(offset).ok_or_else(out_of_range)?;
        let mut at = offset;
        loop {
            let wanted = (at, Wanted::Records);
            let found = self.read_segment((manifest, segment), wanted, limit, end).await?;
            match found {
                Held::Batches(bytes) => {
                    return Ok(Some(RemoteBatches { bytes, has_records: true, next: at }));
                }
                Held::TooLarge => return Ok(None),
                Held::Nothing => {}
            }
            if !segment.is_compacted {
                let bytes = self.read(manifest, at, limit.0, end).await?;
                return Ok(Some(RemoteBatches { bytes, has_records: true, next: at }));
            }
            at = end.min(segment.end_offset);
            let goes_on = at < end && at - offset < GAP_OFFSETS_MAX;
            let Some(after) = manifest.find(at).filter(|_| goes_on) else {
                let next = at.min(offset + GAP_OFFSETS_MAX);
                let bytes = gap(manifest, segment, offset..next)?;
                return Ok(Some(RemoteBatches { bytes, has_records: false, next }));
            };
            segment = after;
        }
    }

    /// What a segment has of what is wanted.
    async fn read_segment(
        self: &Arc<Self>,
        (manifest, segment): (&Manifest, &RemoteSegment),
        (offset, wanted): (Offset, Wanted),
        (bytes_max, first_whole): (usize, bool),
        end: Offset,
    ) -> Result<Held, Shared> {
        self.room.readers.fetch_add(1, Ordering::Relaxed);
        let _reading = Reading(&self.room.readers);
        let object = manifest.object(segment);
        let end = end.min(segment.end_offset);
        let found = self.find((&object, segment), offset, wanted).await?;
        let Some((from, header)) = found else { return Ok(Held::Nothing) };
        if !first_whole && header.total_bytes() > bytes_max.min(ANSWER_BYTES) {
            return Ok(Held::TooLarge);
        }
        let bytes_wanted = bytes_max.min(ANSWER_BYTES).max(header.total_bytes());
        if from + to_u64(bytes_wanted + CHUNK_BYTES) >= segment.log_bytes {
            self.read_next_segment(manifest, segment);
        }
        let bytes = self.bytes((&object, segment), from, bytes_wanted).await?;
        let batches = whole_batches(&bytes, end);
        Ok(if batches.is_empty() { Held::Nothing } else { Held::Batches(batches) })
    }

    /// The first wanted batch of a segment's object that ends past an offset, and where it begins.
    async fn find(
        self: &Arc<Self>,
        (object, segment): (&str, &RemoteSegment),
        offset: Offset,
        wanted: Wanted,
    ) -> Result<Option<(u64, BatchHeader)>, Shared> {
        let mut from = if offset == segment.object_offset {
            // Nobody has to look up where a segment begins: whoever reads through waits for one request, not for two.
            0
        } else {
            self.fetch_guess(object, segment, offset);
            self.trailer(object, segment).await?.index.floor(offset)
        };
        // The index names a batch near the offset: what stands between is skipped.
        while let Some(header) = self.header(object, segment, from).await? {
            let is_wanted = header.count > 0 || wanted != Wanted::Records;
            if header.last_offset() >= offset && is_wanted {
                let is_read = wanted == Wanted::Records && may_end_before(&header, offset);
                if !is_read || !self.ends_before((object, segment), from, header, offset).await? {
                    return Ok(Some((from, header)));
                }
            }
            from += to_u64(header.total_bytes());
        }
        Ok(None)
    }

    /// Whether all records of a batch come before an offset.
    async fn ends_before(
        self: &Arc<Self>,
        place: (&str, &RemoteSegment),
        from: u64,
        header: BatchHeader,
        offset: Offset,
    ) -> Result<bool, Shared> {
        let batch = self.bytes(place, from, header.total_bytes()).await?;
        Ok(blocking(move || ends_before(&header, &batch, offset)).await.unwrap_or(false))
    }

    /// How many bytes of a segment's records are of offsets that count.
    pub(super) async fn counted_bytes(
        self: &Arc<Self>,
        object: &str,
        segment: &RemoteSegment,
    ) -> Result<u64, Shared> {
        let from = self.find((object, segment), segment.base_offset, Wanted::Any).await?;
        let to = self.find((object, segment), segment.end_offset, Wanted::Any).await?;
        let place =
            |found: Option<(u64, BatchHeader)>| found.map_or(segment.log_bytes, |(at, _)| at);
        Ok(place(to).saturating_sub(place(from)))
    }

    async fn header(
        self: &Arc<Self>,
        object: &str,
        segment: &RemoteSegment,
        at: u64,
    ) -> Result<Option<BatchHeader>, Shared> {
        if at >= segment.log_bytes {
            return Ok(None);
        }
        let bytes = self.bytes((object, segment), at, HEADER_BYTES).await?;
        BatchHeader::parse(&bytes)
            .filter(|header| header.total_bytes() >= HEADER_BYTES)
            .map(Some)
            .ok_or_else(|| {
                let reason = format!("no batch begins at byte {at}");
                Arc::new(RemoteError::Damaged { object: object.to_owned(), reason })
            })
    }

    /// The first record at or after a time, below `end`.
    pub(crate) async fn find_time(
        self: &Arc<Self>,
        manifest: &Manifest,
        timestamp: Timestamp,
        end: Offset,
        plain_bytes_max: usize,
    ) -> Result<Option<FoundRecord>, Shared> {
        for segment in manifest.since(timestamp).filter(|segment| segment.base_offset < end) {
            let object = manifest.object(segment);
            let trailer = self.trailer(&object, segment).await?;
            let start = manifest.log_start.max(segment.base_offset);
            let mut from = trailer.index.floor_of_time(timestamp);
            while let Some(header) = self.header(&object, segment, from).await? {
                if header.base_offset >= end {
                    return Ok(None);
                }
                if header.max_timestamp >= timestamp && header.last_offset() >= start {
                    let whole = self.bytes((&object, segment), from, header.total_bytes()).await?;
                    let found = FoundRecord::first_since(
                        &header,
                        &whole,
                        timestamp,
                        &(start..end),
                        plain_bytes_max,
                    );
                    let damaged = |error: RecordError| {
                        let reason = error.to_string();
                        Arc::new(RemoteError::Damaged { object: object.clone(), reason })
                    };
                    let found = found.map_err(damaged)?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                from += to_u64(header.total_bytes());
            }
        }
        Ok(None)
    }
}

/// What a segment has of what is wanted.
enum Held {
    Nothing,
    /// The first batch is larger than what is allowed.
    TooLarge,
    Batches(Bytes),
}

/// A read under way, also one that is given up.
struct Reading<'a>(&'a AtomicUsize);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What whoever reads is told where the work for it came to no end.
fn broken(object: &str) -> RemoteError {
    RemoteError::Damaged { object: object.to_owned(), reason: "reading it panicked".to_owned() }
}

/// What stands for offsets of which nothing is left: whoever reads on has to get somewhere. Only compaction may leave none.
fn gap(
    manifest: &Manifest,
    segment: &RemoteSegment,
    offsets: std::ops::Range<Offset>,
) -> Result<Bytes, Shared> {
    if !segment.is_compacted || offsets.is_empty() {
        let reason = format!("no batch holds offset {}", offsets.start);
        return Err(Arc::new(RemoteError::Damaged { object: manifest.object(segment), reason }));
    }
    let epoch = segment.epochs.last().map_or(-1, |(epoch, _)| *epoch);
    Ok(BatchBuilder::gap(&offsets, epoch).into())
}

/// An error that several were told of.
pub(super) fn told(object: &str, error: &Shared) -> RemoteError {
    if let RemoteError::Store(StoreError::NotFound(object)) = &**error {
        return RemoteError::Store(StoreError::NotFound(object.clone()));
    }
    RemoteError::Damaged { object: object.to_owned(), reason: error.to_string() }
}

/// As much as is whole batches below `end`.
fn whole_batches(bytes: &Bytes, end: Offset) -> Bytes {
    let (mut rest, mut length) = (&**bytes, 0);
    let mut bare_from = None;
    while let Some((header, _, after)) = next_batch(rest) {
        if header.last_offset() >= end {
            break;
        }
        if header.count > 0 {
            bare_from = None;
        } else if let Some(first) = bare_from {
            // kafka-go does not survive several of them.
            return bytes.slice(..if first > 0 { first } else { length });
        } else {
            bare_from = Some(length);
        }
        if header.has_codec_without_records() {
            // Left behind by an earlier release: many clients fail on it, so it is not sent as it is.
            if length == 0 {
                return BatchBuilder::emptied(&header).into();
            }
            break;
        }
        length = bytes.len() - after.len();
        rest = after;
    }
    bytes.slice(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_is_sent_two_batches_without_records_side_by_side() {
        let one = |base: Offset| {
            let mut bytes = BatchBuilder::new().record(1, Some(b"k"), Some(b"v")).build();
            crate::record::batch::patch_position(&mut bytes, base, 0);
            bytes
        };
        let gap = |offsets: std::ops::Range<Offset>| BatchBuilder::gap(&offsets, 0);
        let whole =
            |batches: &[Vec<u8>], end| whole_batches(&batches.concat().into(), end).to_vec();
        let single = [one(0), gap(1..2), one(2), gap(3..5)];
        assert_eq!(whole(&single, 5), single.concat());
        let several = [one(0), gap(1..2), gap(2..3), gap(3..4), one(4)];
        assert_eq!(whole(&several, 5), several[0]);
        assert_eq!(whole(&several[1..], 5), several[1], "they come one by one");
    }
}
