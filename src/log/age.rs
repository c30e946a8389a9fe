//! How old the segment is that is written, and when it is closed for its age.
//!
//! Invariants: what stands in the file tells the age, so that a restart, a move or a copy from another broker changes nothing of
//! it; records alone close a segment by Kafka's rule (`segment.ms` between the first batch's time and the next one's).
//! An idle log is closed too: Kafka leaves it to the next record, but then its last records are not compacted, copied or
//! deleted in their time. Left to others: sizes (`append.rs`), and who asks.

use super::local_log::{Active, Log};
use super::segment::Walk;
use crate::model::Timestamp;
use crate::record::BatchHeader;
use crate::system::planted::{Bug, is_planted};

/// An idle log is one to which nothing was appended for so long, or for its segment's age if that is shorter. Records of long ago
/// that come one by one are not to get a segment each.
const IDLE_MS: i64 = 60_000;

/// What is known of the active segment's age.
#[derive(Debug, Default)]
pub(super) struct Age {
    /// The largest timestamp of the first batch, once somebody has asked; -1: it has none.
    first: Option<Timestamp>,
    /// When the leader's first append came, in this process.
    produced_ms: Option<Timestamp>,
    /// When the last append came, whoever's, in this process.
    appended_ms: Option<Timestamp>,
    /// When its age was first asked for.
    seen_ms: Option<Timestamp>,
}

impl Age {
    /// Notes a batch of the leader's (`is_produced`) or one that was fetched.
    pub(super) fn note(&mut self, header: &BatchHeader, now_ms: Timestamp, is_produced: bool) {
        if self.appended_ms.replace(now_ms).is_none() && self.seen_ms.is_none() {
            self.seen_ms = Some(now_ms);
        }
        if is_produced {
            self.produced_ms.get_or_insert(now_ms);
        }
        self.first.get_or_insert(header.max_timestamp);
    }
}

/// Whether something happened longer ago than that.
fn is_past(since: Option<Timestamp>, now_ms: Timestamp, limit: i64) -> bool {
    since.is_some_and(|since| now_ms.saturating_sub(since) > limit)
}

impl Log {
    /// How old the active segment may become.
    fn age_max(&self) -> i64 {
        let config = &self.parts.config;
        let mut limit = config.segment_ms.saturating_sub(self.roll_jitter_ms).max(1);
        if config.is_copied && config.copy_lag_ms > 0 {
            limit = limit.min(config.copy_lag_ms);
        }
        if config.is_compacted {
            limit = limit.min(config.max_compaction_lag_ms.max(1));
        }
        limit
    }

    /// Whether a batch is too young for the active segment, or comes too late for it.
    pub(super) fn is_too_old_for(&self, placed: &BatchHeader, now_ms: Timestamp) -> bool {
        let (age, limit) = (&self.active.age, self.age_max());
        let by_records = match age.first {
            Some(first) if first >= 0 && placed.max_timestamp >= 0 => {
                placed.max_timestamp.saturating_sub(first) > limit
            }
            _ => is_past(age.seen_ms, now_ms, limit),
        };
        by_records || is_past(age.produced_ms, now_ms, limit)
    }

    /// Closes the active segment if it has passed its age.
    pub(crate) fn roll_if_old(&mut self, now_ms: Timestamp) -> std::io::Result<bool> {
        let has_age = self.active.age.appended_ms.is_some() || !is_planted(Bug::ForgetAge);
        if self.active.bytes == 0 || !has_age {
            return Ok(false);
        }
        self.load_age()?;
        let limit = self.age_max();
        let age = &mut self.active.age;
        let seen_ms = *age.seen_ms.get_or_insert(now_ms);
        // A time to come says nothing of the age.
        let first = age.first.filter(|first| (0..=now_ms).contains(first)).unwrap_or(seen_ms);
        let appended_ms = age.appended_ms.unwrap_or(Timestamp::MIN);
        let is_idle = now_ms.saturating_sub(appended_ms) >= limit.min(IDLE_MS);
        let is_old = (is_idle && is_past(Some(first), now_ms, limit))
            || is_past(age.produced_ms, now_ms, limit);
        if is_old {
            self.roll()?;
        }
        Ok(is_old)
    }

    /// Reads when the active segment began, of a log that was opened with something in it.
    pub(super) fn load_age(&mut self) -> std::io::Result<()> {
        let Active { file, path, bytes, age, .. } = &mut self.active;
        if *bytes > 0 && age.first.is_none() {
            let found = Walk::new(&**file, path, 0, *bytes).next_header();
            let found = found.map_err(|error| std::io::Error::other(error.to_string()))?;
            age.first = Some(found.map_or(-1, |(header, _)| header.max_timestamp));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::config::{Config, TopicConfig};
    use crate::log::{FileCache, Log, LogParts, NewBatch, RecoveryPoint, Stamp};
    use crate::model::{Timestamp, TopicPartition};
    use crate::record::{BatchBuilder, BatchHeader};
    use crate::system::sim_disk::SimDisk;

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 1_700_000_000_000;

    fn open(disk: &SimDisk, point: i64, changes: impl FnOnce(&mut TopicConfig)) -> Log {
        let mut config =
            TopicConfig::resolve(&Config::default(), &std::collections::BTreeMap::new());
        config.segment_ms = HOUR;
        changes(&mut config);
        let cache = Arc::new(FileCache::new(Arc::new(disk.clone()), 8, 8));
        let parts = LogParts { cache, config: Arc::new(config) };
        let point = RecoveryPoint { offset: point, log_start: 0, has_producers: false };
        Log::open(TopicPartition::new("t", 0), "/data/t-0".into(), parts, point, 0)
            .expect("opens")
            .0
    }

    /// A record of a time, appended by a leader.
    fn append(log: &mut Log, timestamp: Timestamp, now_ms: Timestamp) {
        let batch = BatchBuilder::new().record(timestamp, None, Some(b"v")).build();
        let header = BatchHeader::parse(&batch).expect("header");
        log.append(&header, &batch, Stamp { leader_epoch: 0, now_ms }).expect("appended");
    }

    /// The same, as a follower or a move does it.
    fn copy(log: &mut Log, timestamp: Timestamp, now_ms: Timestamp) {
        let mut batch = BatchBuilder::new().record(timestamp, None, Some(b"v")).build();
        crate::record::batch::patch_position(&mut batch, log.log_end(), 0);
        let header = BatchHeader::parse(&batch).expect("header");
        log.append_fetched(&[NewBatch { header, bytes: &batch }], now_ms).expect("appended");
    }

    #[test]
    fn an_idle_log_is_closed_in_its_time_also_after_a_restart() {
        for restarts in [false, true] {
            let disk = SimDisk::default();
            let mut log = open(&disk, 0, |_| ());
            append(&mut log, NOW, NOW);
            append(&mut log, NOW + HOUR / 2, NOW + HOUR / 2);
            if restarts {
                log.close().expect("closed");
                drop(log);
                log = open(&disk, 2, |_| ());
            }
            assert!(!log.roll_if_old(NOW + HOUR).expect("looked"), "it has its age only");
            assert!(log.roll_if_old(NOW + HOUR + 1).expect("rolled"), "{restarts}");
            assert!(!log.roll_if_old(NOW + 9 * HOUR).expect("looked"), "an empty one has no age");
        }
    }

    #[test]
    fn a_copy_has_the_age_of_its_records() {
        let mut log = open(&SimDisk::default(), 0, |_| ());
        for n in 0..5 {
            copy(&mut log, NOW - 5 * HOUR + n, NOW);
        }
        assert_eq!(log.segments(), 1);
        assert!(!log.roll_if_old(NOW + 1).expect("looked"), "more may come");
        assert!(log.roll_if_old(NOW + super::IDLE_MS).expect("rolled"));
        // What lies an hour apart does not share a segment, however fast it came.
        for n in 1..=3 {
            copy(&mut log, NOW + n * (HOUR + 1), NOW + super::IDLE_MS);
        }
        assert_eq!(log.segments(), 4);
    }

    #[test]
    fn records_without_a_time_or_of_a_time_to_come_are_closed_by_the_clock() {
        for timestamp in [-1, NOW + 100 * HOUR] {
            let disk = SimDisk::default();
            let mut log = open(&disk, 0, |_| ());
            append(&mut log, timestamp, NOW);
            append(&mut log, timestamp, NOW + HOUR + 1);
            assert_eq!(log.segments(), 2, "{timestamp}");
            log.close().expect("closed");
            drop(log);
            let mut log = open(&disk, 2, |_| ());
            assert!(!log.roll_if_old(NOW).expect("looked"));
            assert!(log.roll_if_old(NOW + HOUR + 1).expect("rolled"), "{timestamp}");
        }
    }

    #[test]
    fn what_was_cut_away_leaves_no_age() {
        let mut log = open(&SimDisk::default(), 0, |_| ());
        append(&mut log, NOW - 9 * HOUR, NOW);
        log.truncate(0).expect("cut");
        copy(&mut log, NOW, NOW);
        copy(&mut log, NOW + HOUR, NOW);
        assert_eq!(log.segments(), 1, "they lie within an hour");
        assert!(!log.roll_if_old(NOW + HOUR).expect("looked"));
    }

    #[test]
    fn old_records_that_come_now_share_a_segment() {
        let mut log = open(&SimDisk::default(), 0, |_| ());
        for n in 0..50 {
            append(&mut log, NOW - 1_000 * HOUR + n, NOW + n * 1_000);
            assert!(!log.roll_if_old(NOW + n * 1_000).expect("looked"));
        }
        assert_eq!(log.segments(), 1);
    }

    #[test]
    fn the_longest_lag_of_compaction_closes_the_segment() {
        let lag = |is_compacted: bool| {
            move |config: &mut TopicConfig| {
                (config.is_compacted, config.max_compaction_lag_ms) = (is_compacted, 5_000);
            }
        };
        let mut log = open(&SimDisk::default(), 0, lag(true));
        append(&mut log, NOW, NOW);
        assert!(log.roll_if_old(NOW + 5_001).expect("rolled"));
        append(&mut log, NOW, NOW + 6_000);
        append(&mut log, NOW + 5_001, NOW + 6_001);
        assert_eq!(log.segments(), 3);
        let mut log = open(&SimDisk::default(), 0, lag(false));
        append(&mut log, NOW, NOW);
        assert!(!log.roll_if_old(NOW + 5_001).expect("looked"), "nothing is compacted");
    }
}
