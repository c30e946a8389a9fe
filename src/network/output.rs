//! A response on its way out: bytes, and ranges of files between them.

use bytes::Bytes;

use crate::system::SharedFile;

/// A piece of a response.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Bytes(Bytes),
    File { file: SharedFile, offset: u64, bytes: usize },
}

/// A response: bytes first, then whatever follows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    pub head: Bytes,
    pub rest: Vec<Part>,
}

impl Output {
    pub(crate) fn bytes(head: impl Into<Bytes>) -> Self {
        Self { head: head.into(), rest: Vec::new() }
    }

    /// Bytes of it that lie in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let part = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::File { .. } => 0,
        };
        self.head.len() + self.rest.iter().map(part).sum::<usize>()
    }

    /// Bytes that will leave.
    pub(crate) fn len(&self) -> usize {
        let part = |part: &Part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::File { bytes, .. } => *bytes,
        };
        self.head.len() + self.rest.iter().map(part).sum::<usize>()
    }
}
