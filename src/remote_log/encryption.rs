//! Envelope encryption of what goes into a bucket: each object has a key of its own, wrapped by a key that only brokers have.
//!
//! Invariants: AES-256-GCM (NIST SP 800-38D) throughout; a segment's key is random, seals one object and nothing else, so that the
//! number of a chunk can be its nonce and no two are the same; a chunk is sealed by itself, so ranges can be read; nothing of a
//! piece is used before its tag was compared. The manifest holds the wrapped key: to change the wrapping key no object is touched.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::RemoteError;
use super::manifest::RemoteSegment;
use super::partition::RemotePartition;
use super::trailer::CHUNK_BYTES;
use crate::model::LeaderEpoch;
use crate::model::number::to_u64;

/// What each sealed piece is longer than its plain text.
pub(super) const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// The first line of a file of keys by which nothing new is encrypted.
const NONE: &str = "none";

/// How a segment's key stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrappedKey {
    /// The key that it is wrapped with.
    pub key_id: String,
    /// Base64 of a nonce, the sealed key and its tag; the segment's id is its associated data.
    pub wrapped: String,
}

/// Keys that wrap segments' keys, by their ids.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    /// What new objects' keys are wrapped with.
    active: Option<String>,
    keys: BTreeMap<String, LessSafeKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?} of {:?})", self.active, self.keys.keys())
    }
}

impl Keys {
    /// Reads lines of `ID=BASE64`, 32 bytes each, with the one first that wraps what is new; `none` as the first line: nothing
    /// new is encrypted. Empty lines and those that begin with `#` say nothing. The error does not show keys.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let mut lines =
            lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).peekable();
        let mut keys = Self::default();
        let encrypts = match lines.peek() {
            None => return Err("it holds no key: strandline tier key makes one".to_owned()),
            Some((_, line)) => *line != NONE,
        };
        for (number, line) in lines.skip(usize::from(!encrypts)) {
            let (id, key) = line
                .split_once('=')
                .map(|(id, key)| (id.trim().to_owned(), key.trim()))
                .filter(|(id, _)| !id.is_empty() && id != NONE)
                .ok_or_else(|| format!("line {number} is not of the form ID=BASE64"))?;
            let key = STANDARD.decode(key).ok().filter(|key| key.len() == KEY_BYTES);
            let key = key.and_then(|key| cipher(&key)).ok_or_else(|| {
                format!("line {number}: the key {id} is not {KEY_BYTES} bytes in base64")
            })?;
            if encrypts && keys.active.is_none() {
                keys.active = Some(id.clone());
            }
            if keys.keys.insert(id.clone(), key).is_some() {
                return Err(format!("line {number}: there are two keys {id}"));
            }
        }
        Ok(keys)
    }

    /// A line for a file of keys, with a new key.
    pub(crate) fn new_line() -> Option<String> {
        let (mut id, mut key) = ([0; 4], [0; KEY_BYTES]);
        let random = SystemRandom::new();
        random.fill(&mut id).and_then(|()| random.fill(&mut key)).ok()?;
        Some(format!("key-{:08x}={}", u32::from_be_bytes(id), STANDARD.encode(key)))
    }
}

fn cipher(key: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

/// The keys as they were last read.
#[derive(Default)]
pub(crate) struct Keyring(Mutex<Arc<Keys>>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys().fmt(f)
    }
}

impl Keyring {
    pub(crate) fn set(&self, keys: Keys) {
        *self.0.lock() = Arc::new(keys);
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.lock())
    }

    /// Makes a key for a new object; `None` where nothing new is encrypted.
    pub(super) fn new_key(&self, segment: Uuid) -> Result<Option<WrappedKey>, RemoteError> {
        let keys = self.keys();
        let Some(id) = &keys.active else { return Ok(None) };
        let mut key = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut key).map_err(|_| no_random())?;
        wrap(&keys, id, segment, &key).map(Some)
    }

    /// What opens and seals the pieces of an object; `None` where it is not encrypted.
    pub(super) fn key_of(
        &self,
        segment: &RemoteSegment,
    ) -> Result<Option<SegmentKey>, RemoteError> {
        let Some(wrapped) = &segment.encryption else { return Ok(None) };
        let key = unwrap(&self.keys(), wrapped, segment.id)?;
        Ok(cipher(&key).map(|cipher| SegmentKey { cipher, segment: segment.id }))
    }
}

fn wrap(keys: &Keys, id: &str, segment: Uuid, key: &[u8]) -> Result<WrappedKey, RemoteError> {
    let no_key = || RemoteError::NoKey { key_id: id.to_owned() };
    let cipher = keys.keys.get(id).ok_or_else(no_key)?;
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| no_random())?;
    let mut sealed = key.to_vec();
    cipher
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(segment.as_bytes()),
            &mut sealed,
        )
        .map_err(|_| no_random())?;
    let wrapped = STANDARD.encode([&nonce[..], &sealed].concat());
    Ok(WrappedKey { key_id: id.to_owned(), wrapped })
}

fn unwrap(keys: &Keys, wrapped: &WrappedKey, segment: Uuid) -> Result<Vec<u8>, RemoteError> {
    let WrappedKey { key_id, wrapped } = wrapped;
    let no_key = || RemoteError::NoKey { key_id: key_id.clone() };
    let cipher = keys.keys.get(key_id).ok_or_else(no_key)?;
    let wrong = || RemoteError::WrongKey { key_id: key_id.clone() };
    let bytes = STANDARD.decode(wrapped).map_err(|_| wrong())?;
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let mut sealed = sealed.to_vec();
    let key = cipher.open_in_place(nonce, Aad::from(segment.as_bytes()), &mut sealed);
    key.map(|key| key.to_vec()).map_err(|_| wrong())
}

fn no_random() -> RemoteError {
    std::io::Error::other("the operating system gives no random numbers").into()
}

/// A piece of an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    Chunk(usize),
    Trailer,
}

/// The key of one object.
pub(super) struct SegmentKey {
    cipher: LessSafeKey,
    segment: Uuid,
}

impl SegmentKey {
    fn nonce(piece: Piece) -> Nonce {
        let (kind, number) = match piece {
            Piece::Chunk(chunk) => (0_u32, to_u64(chunk)),
            Piece::Trailer => (1, 0),
        };
        let mut nonce = [0; NONCE_LEN];
        let (first, rest) = nonce.split_at_mut(size_of::<u32>());
        first.copy_from_slice(&kind.to_be_bytes());
        rest.copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Appends a piece to `sealed`.
    fn seal(&self, piece: Piece, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), RemoteError> {
        let start = sealed.len();
        sealed.extend_from_slice(plain);
        let text = sealed.get_mut(start..).unwrap_or_default();
        let aad = Aad::from(self.segment.as_bytes());
        let tag = self.cipher.seal_in_place_separate_tag(Self::nonce(piece), aad, text);
        let tag = tag.map_err(|_| std::io::Error::other("a piece is too large to be encrypted"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Chunks of records one after the other, the first of them with this number.
    pub(super) fn seal_chunks(&self, first: usize, plain: &[u8]) -> Result<Vec<u8>, RemoteError> {
        let chunks = plain.len().div_ceil(CHUNK_BYTES);
        let mut sealed = Vec::with_capacity(plain.len() + chunks * TAG_BYTES);
        for (chunk, plain) in (first..).zip(plain.chunks(CHUNK_BYTES)) {
            self.seal(Piece::Chunk(chunk), plain, &mut sealed)?;
        }
        Ok(sealed)
    }

    pub(super) fn seal_trailer(&self, plain: &[u8]) -> Result<Vec<u8>, RemoteError> {
        let mut sealed = Vec::new();
        self.seal(Piece::Trailer, plain, &mut sealed)?;
        Ok(sealed)
    }

    /// The plain text of a piece, in its place; `None` if it is not what was sealed.
    pub(super) fn open_in_place<'a>(
        &self,
        piece: Piece,
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let aad = Aad::from(self.segment.as_bytes());
        self.cipher.open_in_place(Self::nonce(piece), aad, sealed).ok()
    }
}

/// The plain text of a piece that came from the store.
pub(super) fn opened(
    key: Option<&SegmentKey>,
    (object, piece): (&str, Piece),
    bytes: Bytes,
) -> Result<Bytes, RemoteError> {
    let Some(key) = key else { return Ok(bytes) };
    let mut bytes = BytesMut::from(bytes);
    let Some(plain) = key.open_in_place(piece, &mut bytes).map(|plain| plain.len()) else {
        return Err(not_sealed(object, piece));
    };
    bytes.truncate(plain);
    Ok(bytes.freeze())
}

/// What is said of a piece that its key does not open.
pub(super) fn not_sealed(object: &str, piece: Piece) -> RemoteError {
    let reason = match piece {
        Piece::Chunk(chunk) => format!("chunk {chunk} is not what was encrypted"),
        Piece::Trailer => "the trailer is not what was encrypted".to_owned(),
    };
    RemoteError::Damaged { object: object.to_owned(), reason }
}

impl RemoteSegment {
    /// How many chunks its records are.
    pub(super) fn chunks(&self) -> usize {
        usize::try_from(self.log_bytes).unwrap_or(usize::MAX).div_ceil(CHUNK_BYTES)
    }

    /// A full chunk in the object.
    pub(super) fn stored_chunk_bytes(&self) -> usize {
        if self.encryption.is_some() { CHUNK_BYTES + TAG_BYTES } else { CHUNK_BYTES }
    }

    /// What the records take in the object.
    pub(super) fn stored_log_bytes(&self) -> u64 {
        let tags = to_u64(self.chunks()) * to_u64(self.stored_chunk_bytes() - CHUNK_BYTES);
        self.log_bytes.saturating_add(tags)
    }

    /// The bytes of a chunk of its records in the object.
    pub(super) fn chunk_range(&self, chunk: usize) -> std::ops::Range<u64> {
        let bytes = to_u64(self.stored_chunk_bytes());
        let start = to_u64(chunk) * bytes;
        start..(start + bytes).min(self.stored_log_bytes())
    }

    /// The bytes of a piece of the object.
    pub(super) fn range_of(&self, piece: Piece) -> std::ops::Range<u64> {
        match piece {
            Piece::Chunk(chunk) => self.chunk_range(chunk),
            Piece::Trailer => self.trailer_range(),
        }
    }

    /// The bytes of what stands after its records.
    pub(super) fn trailer_range(&self) -> std::ops::Range<u64> {
        self.stored_log_bytes()..self.object_bytes
    }
}

impl RemotePartition {
    /// Wraps the keys of segments anew that are wrapped with one that is not the newest; how many. No object is touched.
    pub(crate) async fn rewrap(&self, leader_epoch: LeaderEpoch) -> Result<usize, RemoteError> {
        let Some(manifest) = self.claimed(leader_epoch) else { return Ok(0) };
        let keys = self.tier.keyring.keys();
        let Some(active) = &keys.active else { return Ok(0) };
        let mut rewrapped = BTreeMap::new();
        for segment in &manifest.segments {
            if let Some(wrapped) = segment.encryption.as_ref().filter(|w| w.key_id != *active) {
                let key = unwrap(&keys, wrapped, segment.id)?;
                rewrapped.insert(segment.id, wrap(&keys, active, segment.id, &key)?);
            }
        }
        let count = rewrapped.len();
        if count == 0 {
            return Ok(0);
        }
        let changed = self.change(leader_epoch, |manifest| {
            for segment in &mut manifest.segments {
                if let Some(wrapped) = rewrapped.remove(&segment.id) {
                    segment.encryption = Some(wrapped);
                }
            }
            Ok(())
        });
        changed.await.map(|_| count)
    }
}
