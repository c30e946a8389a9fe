//! A response on its way out: bytes, and ranges of files between them.

use bytes::Bytes;

use crate::system::SharedFile;

/// A piece of a response.
#[derive(Debug, Clone)]
pub enum Part {
    Bytes(Bytes),
    File { file: SharedFile, offset: u64, bytes: usize },
}

/// A response: bytes first, then whatever follows.
#[derive(Debug, Clone, Default)]
pub struct Output {
    pub head: Bytes,
    pub rest: Vec<Part>,
}

impl Output {
    pub fn bytes(head: impl Into<Bytes>) -> Self {
        Self { head: head.into(), rest: Vec::new() }
    }

    /// Bytes that will leave.
    pub fn len(&self) -> usize {
        let part = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::File { bytes, .. } => *bytes,
        };
        self.head.len() + self.rest.iter().map(part).sum::<usize>()
    }
}
