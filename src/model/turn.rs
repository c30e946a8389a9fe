//! When a request may begin while earlier ones of its connection are not answered yet.
//!
//! Invariants: whatever a request does, those that wait for it find it done.
//! Left to others: which API takes which turn (`protocol/table.rs`), and the waiting (`network/connection.rs`).

/// See the file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It begins when all before it are done, and those after it wait until it is done.
    Alone,
    /// As alone, but others of the same kind (by its number) may be on their way meanwhile.
    WithItsKind(i16),
    /// It begins when all before it are done, but those after it do not wait for it.
    HoldsUpNobody,
    /// It waits for nobody, and nobody for it.
    Free,
}
