//! Reads a segment's object again, past every cache: what is checked is what the store has.
//!
//! Invariants: a segment counts as good when every byte of its object was read and compared.

use super::counts::TierCounts;
use super::error::RemoteError;
use super::manifest::RemoteSegment;
use super::reader::{chunk_range, chunks_of};
use super::trailer::{CHUNK_BYTES, Trailer};
use crate::objects::Store;
use crate::record::batch::Crc32c;

/// Chunks that are asked for at once: where the store is a folder they are in memory together.
const CHUNKS: usize = 8;

/// See the file's header.
pub(super) async fn verify(
    store: &Store,
    counts: &TierCounts,
    object: &str,
    segment: &RemoteSegment,
) -> Result<(), RemoteError> {
    let range = segment.log_bytes..segment.object_bytes;
    let bytes = range.end.saturating_sub(range.start);
    let read = store.get_range(object, range).await;
    counts.note_read(read.as_ref().map(|_| bytes).ok());
    let trailer = Trailer::decode(object, &read?, segment)?;
    for first in (0..chunks_of(segment)).step_by(CHUNKS) {
        let sums = sums(store, counts, (object, segment), first).await?;
        for (chunk, sum) in (first..).zip(sums) {
            trailer.compare(object, chunk, sum)?;
        }
    }
    Ok(())
}

/// Checksums of the next chunks from one on, none of which is kept.
async fn sums(
    store: &Store,
    counts: &TierCounts,
    (object, segment): (&str, &RemoteSegment),
    first: usize,
) -> Result<Vec<u32>, RemoteError> {
    let last = (first + CHUNKS).min(chunks_of(segment)) - 1;
    let range = chunk_range(segment, first).start..chunk_range(segment, last).end;
    let bytes = range.end - range.start;
    let (mut sums, mut sum, mut summed) = (Vec::new(), Crc32c::new(), 0);
    let read = store.each_piece(object, range, |mut piece| {
        while !piece.is_empty() {
            let (now, rest) = piece.split_at(piece.len().min(CHUNK_BYTES - summed));
            sum.update(now);
            (summed, piece) = (summed + now.len(), rest);
            if summed == CHUNK_BYTES {
                sums.push(sum.take());
                summed = 0;
            }
        }
    });
    let read = read.await;
    counts.note_read(read.as_ref().map(|()| bytes).ok());
    read?;
    if summed > 0 {
        sums.push(sum.take());
    }
    Ok(sums)
}
