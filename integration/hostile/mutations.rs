//! Bytes that are almost right: what came well-formed, changed by chance from a seed.
//!
//! Invariants: the same seed and number make the same bytes; none are longer than `LONGEST`.

use bytes::Bytes;

use super::poison::{CODECS, NOW, compress, resealed, sealed};
use crate::life::plan::Chance;

/// Where a broker does something else with what is larger, and a byte on both sides of it.
const BORDERS: [usize; 4] = [2 << 10, 32 << 10, 64 << 10, 1 << 20];
const LONGEST: usize = (1 << 20) + (64 << 10);
/// Key, version and correlation id of a request.
const HEAD: usize = 8;
/// What lengths and counts are set to.
const EXTREMES: [i64; 12] =
    [0, 1, -1, -2, 0x7f, 0x80, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, i64::MAX, i64::MIN];

pub(super) fn index(chance: &mut Chance, end: usize) -> usize {
    usize::try_from(chance.below(u64::try_from(end).expect("small"))).expect("small")
}

fn byte(chance: &mut Chance) -> u8 {
    chance.next().to_be_bytes()[0]
}

/// A size beside a border: mostly one of the small ones.
fn border(chance: &mut Chance) -> usize {
    let border = if chance.one_in(8) { BORDERS[3] } else { BORDERS[index(chance, 3)] };
    border + index(chance, 3) - 1
}

/// Makes bytes as long as a border says by one part of them, over and over, at some place from `from` on.
fn grow(chance: &mut Chance, bytes: &mut Vec<u8>, from: usize) {
    let size = border(chance);
    let Some(missing) = size.checked_sub(bytes.len()).filter(|missing| *missing > 0) else {
        return bytes.truncate(size);
    };
    let at = from + index(chance, bytes.len() - from + 1);
    let part = index(chance, bytes.len() - at + 1).min(200);
    let part = if part == 0 { vec![byte(chance)] } else { bytes[at..at + part].to_vec() };
    bytes.splice(at..at, part.into_iter().cycle().take(missing));
}

/// Sets a number of some width, as it stands on the wire, to an extreme, or to about what it was.
fn set(chance: &mut Chance, bytes: &mut [u8], from: usize) {
    let value = if chance.one_in(4) { i64::from(byte(chance)) } else { chance.pick(&EXTREMES) };
    let all = value.to_be_bytes();
    let written = match chance.below(5) {
        0 => all[7..].to_vec(),
        1 => all[6..].to_vec(),
        2 => all[4..].to_vec(),
        3 => all.to_vec(),
        // A varint that says that there is more, for ever.
        _ => vec![0xff; 1 + index(chance, 10)],
    };
    if bytes.len() >= from + written.len() {
        let at = from + index(chance, bytes.len() - from - written.len() + 1);
        bytes[at..at + written.len()].copy_from_slice(&written);
    }
}

fn change_once(chance: &mut Chance, bytes: &mut Vec<u8>, other: &[u8], from: usize) {
    let rest = bytes.len() - from;
    let at = from + index(chance, rest + 1);
    match chance.below(14) {
        0..=4 => {
            let more = if chance.one_in(2) { 0 } else { chance.below(8) };
            for _ in 0..=more {
                if rest > 0 {
                    bytes[from + index(chance, rest)] ^= 1 << chance.below(8);
                }
            }
        }
        5..=7 => set(chance, bytes, from),
        8 => bytes.truncate(at),
        9 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[index(chance, other.len() + 1)..]);
        }
        10 => {
            let end = at + index(chance, bytes.len() - at + 1);
            let part = bytes[at..end].to_vec();
            let times = 1 + index(chance, 5);
            bytes.splice(at..at, part.repeat(times));
        }
        11 => {
            let count = 1 + index(chance, 16);
            let more: Vec<u8> = (0..count).map(|_| byte(chance)).collect();
            bytes.splice(at..at, more);
        }
        12 => {
            let end = at + index(chance, bytes.len() - at + 1).min(16);
            bytes.drain(at..end);
        }
        _ => grow(chance, bytes, from),
    }
    bytes.truncate(LONGEST);
}

/// Bytes that were changed once or a few times; what comes before `from` stays, but now and then.
pub(super) fn changed(chance: &mut Chance, bytes: &[u8], other: &[u8], from: usize) -> Vec<u8> {
    let from = if chance.one_in(8) { 0 } else { from };
    let mut bytes = bytes.to_vec();
    // One change goes further into a reader than several.
    let more = if chance.one_in(2) { 0 } else { chance.below(3) };
    for _ in 0..=more {
        let from = from.min(bytes.len());
        change_once(chance, &mut bytes, other, from);
    }
    bytes
}

/// A request that was changed, with its length before it, which lies now and then.
pub(super) fn request(chance: &mut Chance, valid: &[u8], other: &[u8]) -> Vec<u8> {
    let body = changed(chance, valid, other, HEAD);
    framed(chance, &body)
}

/// Bytes with their length before them, which lies now and then.
pub(super) fn framed(chance: &mut Chance, bytes: &[u8]) -> Vec<u8> {
    let true_length = i64::try_from(bytes.len()).expect("small");
    let length = match chance.below(24) {
        0 => chance.pick(&EXTREMES),
        1 => true_length + 1,
        2 => true_length - 1,
        _ => true_length,
    };
    [&length.to_be_bytes()[4..], bytes].concat()
}

/// A batch that was changed behind its header, or in it, with its length and checksum made right.
pub(super) fn batch(chance: &mut Chance, valid: &[u8], other: &[u8]) -> Bytes {
    const HEADER: usize = 61;
    // In the header a change has less to meet, and is made less often.
    let from = if chance.one_in(4) { 21 } else { HEADER.min(valid.len()) };
    resealed(changed(chance, valid, other, from))
}

/// Records that were changed before they were packed: what is wrong lies behind a codec that is right.
pub(super) fn packed(chance: &mut Chance, plain: &[u8], count: i32) -> Bytes {
    let body = changed(chance, plain, plain, 0);
    let codec = chance.pick(&CODECS);
    sealed(codec, 0, count, NOW + i64::from(count) - 1, &compress(codec, &body))
}
