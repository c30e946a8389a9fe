//! Reads a segment's object again, past every cache: what is checked is what the store has.
//!
//! Invariants: a segment counts as good when every byte of its object was read and compared.

use super::counts::TierCounts;
use super::encryption::{Keyring, Piece, SegmentKey, not_sealed, opened};
use super::error::RemoteError;
use super::manifest::RemoteSegment;
use super::trailer::Trailer;
use crate::objects::Store;
use crate::record::batch::Crc32c;

/// Chunks that are asked for at once: where the store is a folder they are in memory together.
const CHUNKS: usize = 8;

/// Where it is read, and with which keys.
pub(super) struct Source<'a> {
    pub store: &'a Store,
    pub counts: &'a TierCounts,
    pub keyring: &'a Keyring,
}

impl Source<'_> {
    /// See the file's header.
    pub(super) async fn verify(
        &self,
        object: &str,
        segment: &RemoteSegment,
    ) -> Result<(), RemoteError> {
        let key = self.keyring.key_of(segment)?;
        let range = segment.trailer_range();
        let bytes = range.end.saturating_sub(range.start);
        let read = self.store.get_range(object, range).await;
        self.counts.note_read(read.as_ref().map(|_| bytes).ok());
        let trailer = opened(key.as_ref(), (object, Piece::Trailer), read?)?;
        let trailer = Trailer::decode(object, &trailer, segment)?;
        for first in (0..segment.chunks()).step_by(CHUNKS) {
            let sums = self.sums((object, segment), key.as_ref(), first).await?;
            for (chunk, sum) in (first..).zip(sums) {
                trailer.compare(object, chunk, sum)?;
            }
        }
        Ok(())
    }

    /// Checksums of the next chunks from one on, none of which is kept.
    async fn sums(
        &self,
        (object, segment): (&str, &RemoteSegment),
        key: Option<&SegmentKey>,
        first: usize,
    ) -> Result<Vec<u32>, RemoteError> {
        let last = (first + CHUNKS).min(segment.chunks()) - 1;
        let range = segment.chunk_range(first).start..segment.chunk_range(last).end;
        let bytes = range.end - range.start;
        let full = segment.stored_chunk_bytes();
        let mut sums = Sums {
            key,
            next: first,
            sums: Vec::new(),
            sum: Crc32c::new(),
            bytes: 0,
            sealed: Vec::new(),
        };
        let mut wrong = None;
        let read = self.store.each_piece(object, range, |mut piece| {
            while !piece.is_empty() && wrong.is_none() {
                let (now, rest) = piece.split_at(piece.len().min(full - sums.bytes));
                sums.update(now);
                piece = rest;
                if sums.bytes == full {
                    wrong = sums.end_chunk().err();
                }
            }
        });
        let read = read.await;
        self.counts.note_read(read.as_ref().map(|()| bytes).ok());
        read?;
        if wrong.is_none() && sums.bytes > 0 {
            wrong = sums.end_chunk().err();
        }
        match wrong {
            Some(piece) => Err(not_sealed(object, piece)),
            None => Ok(sums.sums),
        }
    }
}

/// Checksums of the plain text of chunks that come in pieces.
struct Sums<'a> {
    key: Option<&'a SegmentKey>,
    next: usize,
    sums: Vec<u32>,
    /// Of what came of the chunk.
    sum: Crc32c,
    bytes: usize,
    /// The same, if it is encrypted: then it is opened as a whole.
    sealed: Vec<u8>,
}

impl Sums<'_> {
    fn update(&mut self, piece: &[u8]) {
        self.bytes += piece.len();
        match self.key {
            None => self.sum.update(piece),
            Some(_) => self.sealed.extend_from_slice(piece),
        }
    }

    /// The chunk is there; the error names it if it is not what was encrypted.
    fn end_chunk(&mut self) -> Result<(), Piece> {
        let piece = Piece::Chunk(self.next);
        if let Some(key) = self.key {
            self.sum.update(key.open_in_place(piece, &mut self.sealed).ok_or(piece)?);
            self.sealed.clear();
        }
        self.sums.push(self.sum.take());
        (self.next, self.bytes) = (self.next + 1, 0);
        Ok(())
    }
}
