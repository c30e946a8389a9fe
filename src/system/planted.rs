//! Deliberate bugs, to test the tests: each is one that another system had, and the simulation must find it.
//!
//! Invariants: outside tests no bug can be planted, and asking costs nothing.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The high watermark counts what the leader has written, not what it has flushed.
    AckBeforeFlush,
    /// A failed flush is taken for a good one.
    IgnoreFlushError,
    /// A new follower cuts its log at its high watermark (KIP-101).
    TruncateToHighWatermark,
    /// Epochs are not compared before a follower fetches (KIP-279, KIP-320).
    SkipDivergenceCheck,
    /// The high watermark counts the current ISR only, not the proposed one (KIP-966).
    IgnoreProposedIsr,
    /// The high watermark moves below `min.insync.replicas`.
    IgnoreMinInsync,
    /// A follower joins the ISR before it has what is committed.
    JoinIsrEarly,
    /// Any live replica may lead.
    ElectAnyReplica,
    /// What producers sent is not forgotten when the log is cut.
    KeepProducersAfterCut,
    /// A follower says that it has what it has only written.
    FollowerAcksBeforeFlush,
    /// A vote is given before it is on the disk.
    VoteBeforeFlush,
    /// An entry of the metadata's log counts before it is on the disk.
    QuorumAcksBeforeFlush,
    /// What producers sent is not known any more after a start.
    ForgetProducersAtStart,
    /// Consumers read what is not committed.
    ServeUncommitted,
    /// A controller goes on in its old term after a restart, though its disk may have lost what it sent.
    ResumeLeadership,
    /// A leader that slept answers as if it had not.
    IgnoreLease,
    /// What is promised of a deleted replica's log is forgotten only some time after its folder is gone.
    KeepPointOfDeleted,
    /// Open files and indexes are known by their path, whoever's they were before.
    CacheByPath,
    /// The byte where the high watermark lies is kept while its file becomes another one.
    StalePlaceOfHighWatermark,
    /// A follower's segment begins where the leader's next batch does, and compaction goes on past what is promised of the log.
    GapBetweenSegments,
    /// What could not be written of a promise is taken for written.
    PromiseUnwritten,
    /// A log to which nothing was appended since it was opened has no age.
    ForgetAge,
    /// Consumers are answered with batches that compaction emptied while records come after them.
    AnswerWithoutRecords,
    /// What the bucket has of a segment that is copied in part counts once more as what is on the disk.
    CountCopiedTwice,
}

impl Bug {
    /// Every bug that two thousand seeds find.
    #[cfg(test)]
    pub(crate) const ALL: &[Bug] = &[
        Bug::AckBeforeFlush,
        Bug::IgnoreFlushError,
        Bug::TruncateToHighWatermark,
        Bug::SkipDivergenceCheck,
        Bug::IgnoreProposedIsr,
        Bug::IgnoreMinInsync,
        Bug::JoinIsrEarly,
        Bug::ElectAnyReplica,
        Bug::KeepProducersAfterCut,
        Bug::FollowerAcksBeforeFlush,
        Bug::VoteBeforeFlush,
        Bug::QuorumAcksBeforeFlush,
        Bug::ForgetProducersAtStart,
        Bug::ServeUncommitted,
        Bug::IgnoreLease,
        Bug::KeepPointOfDeleted,
        Bug::CacheByPath,
        Bug::StalePlaceOfHighWatermark,
        Bug::GapBetweenSegments,
        Bug::PromiseUnwritten,
        Bug::ForgetAge,
        Bug::AnswerWithoutRecords,
        Bug::CountCopiedTwice,
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or takes it out.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether a bug is planted.
#[inline]
pub(crate) fn is_planted(bug: Bug) -> bool {
    #[cfg(test)]
    return PLANTED.get() == Some(bug);
    #[cfg(not(test))]
    {
        let _ = bug;
        false
    }
}
