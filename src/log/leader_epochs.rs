//! Where each leader epoch began (KIP-101, KIP-279).
//!
//! Invariants: epochs and start offsets grow; the last entry's epoch is the newest that wrote here.

use crate::model::{LeaderEpoch, Offset};

/// The epoch history of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    /// Notes that `epoch` begins at `offset`; returns whether that is news.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        if !self.is_news(epoch) {
            return false;
        }
        // An epoch that wrote nothing gives its place to the next one.
        self.entries.retain(|(_, start)| *start < offset);
        self.entries.push((epoch, offset));
        true
    }

    /// Whether an epoch is newer than all that are known.
    pub(crate) fn is_news(&self, epoch: LeaderEpoch) -> bool {
        epoch >= 0 && self.latest().is_none_or(|latest| latest < epoch)
    }

    /// Where each one begins.
    pub(crate) fn starts(&self) -> impl Iterator<Item = Offset> {
        self.entries.iter().map(|(_, start)| *start)
    }

    pub(crate) fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch that wrote `offset`.
    pub(crate) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let at = self.entries.partition_point(|(_, start)| *start <= offset);
        at.checked_sub(1).and_then(|i| self.entries.get(i)).map(|(epoch, _)| *epoch)
    }

    /// The largest epoch up to `asked` and where it ends; `None` if it is not known (OffsetForLeaderEpoch).
    pub(crate) fn end_of(
        &self,
        asked: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if asked < 0 || self.latest().is_none_or(|latest| asked > latest) {
            return None;
        }
        let at = self.entries.partition_point(|(epoch, _)| *epoch <= asked);
        let (epoch, _) = at.checked_sub(1).and_then(|i| self.entries.get(i))?;
        let end = self.entries.get(at).map_or(log_end, |(_, start)| *start);
        Some((*epoch, end))
    }

    /// The same for a leader of `current`, whose epoch is noted with its first record: what it has not noted yet
    /// begins at the log's end. An epoch from before the first one that is known ended where that one begins.
    pub(crate) fn end_for_leader(
        &self,
        asked: LeaderEpoch,
        current: LeaderEpoch,
        log_end: Offset,
    ) -> (LeaderEpoch, Offset) {
        if asked >= current {
            return (current, log_end);
        }
        match self.entries.first() {
            Some((first, start)) if asked < *first => (asked, *start),
            Some(_) => match self.latest() {
                Some(latest) if asked > latest => (latest, log_end),
                _ => self.end_of(asked, log_end).unwrap_or((asked, log_end)),
            },
            None => (asked, log_end),
        }
    }

    /// The epochs that wrote `from..end`, each with the offset where it begins, but the first, which may begin before. It begins no later than
    /// `from`: a log that began anew knows it from its first batch, and compaction may have taken what stood before that.
    pub(crate) fn between(&self, from: Offset, end: Offset) -> Vec<(LeaderEpoch, Offset)> {
        let first = self.entries.partition_point(|(_, start)| *start <= from).saturating_sub(1);
        let all = self.entries.iter().skip(first).filter(|(_, start)| *start < end);
        let mut all: Vec<_> = all.copied().collect();
        if let Some((_, start)) = all.first_mut() {
            *start = from.min(*start);
        }
        all
    }

    /// These, of what lies before an offset, and of another history what begins there or later.
    pub(super) fn followed_by(mut self, other: &Self, offset: Offset) -> Self {
        self.truncate_end(offset);
        for (epoch, start) in other.entries.iter().filter(|(_, start)| *start >= offset) {
            self.assign(*epoch, *start);
        }
        self
    }

    /// Forgets what lies at or past a new log end.
    pub(crate) fn truncate_end(&mut self, end: Offset) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// The file's lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.entries.iter().map(|(epoch, start)| format!("{epoch} {start}")).collect()
    }

    /// Reads the file's lines; `None` if one is malformed or out of order.
    pub(crate) fn parse(lines: &[String]) -> Option<Self> {
        let mut epochs = Self::default();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let entry = (epoch.parse().ok()?, start.parse().ok()?);
            epochs.entries.push(entry);
        }
        epochs.entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let mut epochs = LeaderEpochs::default();
        assert!(epochs.assign(0, 0) && epochs.assign(3, 10) && !epochs.assign(2, 20));
        assert_eq!(epochs.end_of(0, 50), Some((0, 10)));
        assert_eq!(epochs.end_of(1, 50), Some((0, 10)));
        assert_eq!(epochs.end_of(3, 50), Some((3, 50)));
        assert_eq!(epochs.end_of(4, 50), None);
        assert_eq!((epochs.epoch_at(9), epochs.epoch_at(10)), (Some(0), Some(3)));
        assert_eq!(LeaderEpochs::parse(&epochs.lines()), Some(epochs));
    }

    #[test]
    fn what_wrote_a_range_begins_with_it_at_the_latest() {
        let mut epochs = LeaderEpochs::default();
        assert!(epochs.assign(3, 509) && epochs.assign(4, 571) && epochs.assign(6, 700));
        assert_eq!(epochs.between(508, 600), [(3, 508), (4, 571)]);
        assert_eq!(epochs.between(509, 571), [(3, 509)]);
        assert_eq!(epochs.between(600, 800), [(4, 571), (6, 700)]);
        assert_eq!(epochs.between(10, 509), []);
    }

    #[test]
    fn a_leader_without_records_of_its_own_ends_the_epochs_before_at_its_log_end() {
        let mut epochs = LeaderEpochs::default();
        assert_eq!(epochs.end_for_leader(2, 9, 0), (2, 0));
        assert!(epochs.assign(3, 5) && epochs.assign(6, 20));
        let end = |asked| epochs.end_for_leader(asked, 9, 50);
        // Found by the simulation: an epoch between the last that wrote here and the leader's own.
        assert_eq!((end(7), end(8), end(9)), ((6, 50), (6, 50), (9, 50)));
        assert_eq!((end(1), end(3), end(5), end(6)), ((1, 5), (3, 20), (3, 20), (6, 50)));
    }
}
