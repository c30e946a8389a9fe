//! What readers are not to see as it lies in a compacted log. Batches with a codec and no records, which earlier releases left behind
//! when they compacted, and on which client libraries fail or abort; and two batches without records one after the other, at which
//! kafka-go ends its process.
//!
//! Invariants: no slice holds a batch of the first kind; where one is due, its place is taken by the same batch without a codec. No slice
//! for a client holds two of the second kind side by side, unless it begins with them: then it ends after the first. Only logs that are
//! compacted are looked through, and of those each part once, as it is read: what a leader wrote since is known to be sound.

use super::error::ReadError;
use super::lookup::{LogSlice, View};
use super::segment::Walk;
use crate::model::number::{to_u64, to_usize};
use crate::record::BatchBuilder;

/// Shortens a slice so that it ends before the first batch that has to be healed, and for a client before the first of several without
/// records; one that begins with a batch that has to be healed becomes that batch, healed. Returns the byte up to which there is
/// nothing of that in the segment, from where the slice begins.
pub(super) fn heal(
    view: &View,
    slice: &mut LogSlice,
    is_for_client: bool,
) -> Result<u64, ReadError> {
    let end = slice.byte + to_u64(slice.bytes);
    let mut walk = Walk::new(&*view.file, &view.path, slice.byte, view.bytes);
    let mut bare_from = None;
    let mut sound_to = None;
    while let Some((header, position)) = walk.next_header()? {
        if position >= end {
            break;
        }
        if header.has_codec_without_records() {
            if position > slice.byte {
                slice.bytes = to_usize(position - slice.byte);
            } else {
                let mut healed = BatchBuilder::emptied(&header);
                healed.truncate(slice.bytes.max(1));
                slice.bytes = healed.len();
                slice.healed = Some(healed.into());
            }
            return Ok(sound_to.or(bare_from).unwrap_or(position));
        }
        if header.count > 0 {
            bare_from = None;
            continue;
        }
        let Some(first) = bare_from else {
            bare_from = Some(position);
            continue;
        };
        sound_to.get_or_insert(first);
        if is_for_client {
            let cut = if first > slice.byte { first } else { position };
            slice.bytes = to_usize(cut - slice.byte);
            return Ok(first);
        }
    }
    // The next one may have no records either.
    Ok(sound_to.or(bare_from).unwrap_or(end))
}
