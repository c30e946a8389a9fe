//! The cleaner's table: hash of a key → offset of its newest record.
//!
//! Invariants: bounded by its bytes; 128-bit hashes, so that two keys never meet in practice (2^-64 at a billion).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::model::Offset;
use crate::model::number::to_usize;

/// What one entry costs, with the table's slack.
const ENTRY_BYTES: usize = 48;

/// Keys are hashes already, so hashing them again is folding.
#[derive(Debug, Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct OffsetMap {
    newest: HashMap<u128, Offset, BuildHasherDefault<Fold>>,
    entries_max: usize,
}

impl OffsetMap {
    pub(super) fn new(bytes_max: i64) -> Self {
        Self {
            newest: HashMap::default(),
            entries_max: (to_usize(bytes_max) / ENTRY_BYTES).max(16),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.newest.len() >= self.entries_max
    }

    pub(super) fn put(&mut self, key: &[u8], offset: Offset) {
        self.newest.insert(hash(key), offset);
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        self.newest.get(&hash(key)).copied()
    }
}

/// A 128-bit hash: two passes of a 64-bit multiply-mix with different constants.
fn hash(key: &[u8]) -> u128 {
    let one = mix(key, 0x9E37_79B9_7F4A_7C15, 0xA076_1D64_78BD_642F);
    let two = mix(key, 0xE703_7ED1_A0B4_28DB, 0x8EBC_6AF0_9C88_C6E3);
    (u128::from(one) << 64) | u128::from(two)
}

fn mix(key: &[u8], seed: u64, prime: u64) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        u64::try_from(product & u128::from(u64::MAX)).unwrap_or(0)
            ^ u64::try_from(product >> 64).unwrap_or(0)
    };
    let mut state = seed ^ u64::try_from(key.len()).unwrap_or(0);
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        state = fold(state ^ u64::from_le_bytes(word), prime | 1).rotate_left(23) ^ seed;
    }
    fold(state ^ prime, seed | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_similar_keys_do_not_meet() {
        let mut map = OffsetMap::new(i64::MAX);
        for i in 0..300_000_i64 {
            map.put(format!("key-{i}").as_bytes(), i);
            map.put(&i.to_be_bytes(), i);
        }
        assert_eq!(map.newest.len(), 600_000);
        assert_eq!(map.get(b"key-77"), Some(77));
        assert_eq!(map.get(b""), None);
    }
}
