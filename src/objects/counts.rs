//! Requests to a store, counted as stores bill them, and how they failed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::store::StoreError;

/// What a request does.
#[derive(Debug, Clone, Copy)]
pub(super) enum RequestKind {
    Get,
    /// Also a part, and what begins and ends an upload in parts.
    Put,
    List,
    Delete,
}

const KINDS: [&str; 4] = ["get", "put", "list", "delete"];
const REASONS: [&str; 5] = ["not_found", "conflict", "denied", "unsupported", "unavailable"];

/// Since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts {
    requests: [AtomicU64; KINDS.len()],
    errors: [AtomicU64; REASONS.len()],
}

impl RequestCounts {
    /// Counts a request by what came of it.
    pub(super) fn note<T>(
        &self,
        kind: RequestKind,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let [gets, puts, lists, deletes] = &self.requests;
        let count = match kind {
            RequestKind::Get => gets,
            RequestKind::Put => puts,
            RequestKind::List => lists,
            RequestKind::Delete => deletes,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &result {
            let [not_found, conflict, denied, unsupported, unavailable] = &self.errors;
            let count = match error {
                StoreError::NotFound(_) => not_found,
                StoreError::AlreadyExists(_) | StoreError::Changed(_) => conflict,
                StoreError::Denied(_) => denied,
                StoreError::Unsupported(_) | StoreError::Location(_) => unsupported,
                StoreError::Unavailable(_) => unavailable,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Requests by kind.
    pub(crate) fn requests(&self) -> Vec<(&'static str, u64)> {
        pairs(&KINDS, &self.requests)
    }

    /// Requests that failed, by reason.
    pub(crate) fn errors(&self) -> Vec<(&'static str, u64)> {
        pairs(&REASONS, &self.errors)
    }
}

fn pairs(names: &[&'static str], counts: &[AtomicU64]) -> Vec<(&'static str, u64)> {
    names.iter().copied().zip(counts.iter().map(|count| count.load(Ordering::Relaxed))).collect()
}
