//! What earlier releases left behind when they compacted, and readers are not to see: batches with a codec and no records, on which
//! client libraries fail or abort.
//!
//! Invariants: no slice holds such a batch; where one is due, its place is taken by the same batch without a codec. Only logs that
//! are compacted are looked through, and of those each part once, as it is read: what the cleaner or a leader wrote since is known
//! to be sound.

use super::error::ReadError;
use super::lookup::{LogSlice, View};
use super::segment::Walk;
use crate::model::number::{to_u64, to_usize};
use crate::record::BatchBuilder;

/// Shortens a slice so that it ends before the first batch that has to be healed; one that begins with such a batch becomes that
/// batch, healed. Whether it was sound.
pub(super) fn heal(view: &View, slice: &mut LogSlice) -> Result<bool, ReadError> {
    let end = slice.byte + to_u64(slice.bytes);
    let mut walk = Walk::new(&*view.file, &view.path, slice.byte, view.bytes);
    while let Some((header, position)) = walk.next_header()? {
        if position >= end {
            break;
        }
        if !header.has_codec_without_records() {
            continue;
        }
        if position > slice.byte {
            slice.bytes = to_usize(position - slice.byte);
        } else {
            let mut healed = BatchBuilder::emptied(&header);
            healed.truncate(slice.bytes.max(1));
            slice.bytes = healed.len();
            slice.healed = Some(healed.into());
        }
        return Ok(false);
    }
    Ok(true)
}
