//! The rules: what must be readable of a topic, what may be gone, and what must be gone by now.

use std::collections::{HashMap, HashSet};

use super::model::{Known, Model, Seen};
use super::plan::{Clock, Tier};
use super::read::Read;

/// Clocks of one machine agree to this.
const SKEW_MS: i64 = 20;

/// A topic's newest records by key, and all that may be stored of it.
struct Newest(HashMap<u64, i64>);

impl Newest {
    fn of(model: &Model) -> Self {
        let all = model.known.iter();
        Self(all.filter_map(|(offset, known)| Some((known.sent.key?, *offset))).collect())
    }

    /// Whether a later record has the same key.
    fn is_superseded(&self, offset: i64, known: &Known) -> bool {
        known.sent.key.and_then(|key| self.0.get(&key)).is_some_and(|newest| *newest > offset)
    }

    /// Whether one has, or may have: it was not acknowledged.
    fn may_be_superseded(&self, model: &Model, offset: i64, known: &Known) -> bool {
        let after = |(sent, _): &(super::model::Sent, u32)| {
            sent.key == known.sent.key && sent.sent_ms >= known.sent.sent_ms
        };
        known.sent.key.is_some()
            && (self.is_superseded(offset, known) || model.open.values().any(after))
    }
}

/// What is wrong with what was read; what nobody knew of, but may be there, is known from here on.
pub(crate) fn judge(model: &mut Model, read: &Read) -> Vec<String> {
    let mut wrong = Vec::new();
    if read.end < model.end {
        wrong.push(format!("ends at {}, before {}", read.end, model.end));
    }
    let order = read.records.windows(2).find(|pair| pair[0].offset >= pair[1].offset);
    if let Some(pair) = order {
        wrong.push(format!("{} comes before {}", pair[0].offset, pair[1].offset));
    }
    wrong.extend(read.records.iter().filter_map(|seen| differs(model, seen, read)));
    wrong.extend(start(model, read));
    wrong.extend(absent(model, read));
    model.end = model.end.max(read.end);
    let name = &model.point.name;
    // One fault is many records.
    let more = wrong.len().saturating_sub(5);
    wrong.truncate(5);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    wrong.into_iter().map(|why| format!("{name}: {why}")).collect()
}

/// How a record differs from what was sent.
fn differs(model: &mut Model, seen: &Seen, read: &Read) -> Option<String> {
    let Some(known) = model.known.get_mut(&seen.offset) else {
        return adopt(model, seen, read);
    };
    let sent = &known.sent;
    let is_same = (seen.number, seen.key, seen.size) == (sent.number, sent.key, sent.size);
    let timestamp = *known.timestamp.get_or_insert(seen.timestamp);
    (!is_same || timestamp != seen.timestamp).then(|| format!("{seen:?} is not {known:?}"))
}

/// A record that was not acknowledged, and may be stored all the same.
fn adopt(model: &mut Model, seen: &Seen, read: &Read) -> Option<String> {
    let Some((sent, left)) = model.open.get_mut(&seen.number) else {
        return Some(format!("{seen:?} was never sent, or is there twice"));
    };
    let is_same = (seen.key, seen.size) == (sent.key, sent.size);
    let is_brokers = model.point.clock == Clock::Broker;
    if *left == 0 || !is_same || (!is_brokers && seen.timestamp != sent.timestamp) {
        return Some(format!("{seen:?} is not {sent:?}, or is there too often"));
    }
    *left -= 1;
    let sent = sent.clone();
    let known = Known { sent, timestamp: Some(seen.timestamp), stored_ms: read.began_ms };
    model.known.insert(seen.offset, known);
    None
}

/// Whether the log may begin where it does.
fn start(model: &Model, read: &Read) -> Vec<String> {
    let mut wrong = Vec::new();
    if read.start < model.deleted_to {
        let to = model.deleted_to;
        wrong.push(format!("begins at {}, and is deleted up to {to}", read.start));
    }
    let point = &model.point;
    let newest = Newest::of(model);
    let by_size = point
        .retention_bytes
        .is_some_and(|limit| i64::try_from(read.bytes).expect("small") >= limit);
    let gone = model.known.range(model.deleted_to..read.start.max(model.deleted_to));
    for (offset, known) in gone {
        let by_time = point.is_deleted
            && point.retention_ms.is_some_and(|limit| known.is_older(limit, read.ended_ms));
        if !by_time && !by_size && !may_be_compacted(model, &newest, (*offset, known), read) {
            wrong.push(format!("begins at {}, and {offset} is to be kept: {known:?}", read.start));
        }
    }
    wrong
}

impl Known {
    fn is_older(&self, limit: i64, now_ms: i64) -> bool {
        now_ms - self.timestamp.unwrap_or(self.sent.sent_ms) > limit - SKEW_MS
    }
}

/// Whether compaction may have taken a record.
fn may_be_compacted(
    model: &Model,
    newest: &Newest,
    (offset, known): (i64, &Known),
    read: &Read,
) -> bool {
    let point = &model.point;
    if !point.is_compacted || !known.is_older(point.lag_min_ms, read.ended_ms) {
        return false;
    }
    let is_old_tombstone = known.sent.size.is_none()
        && read.ended_ms - known.sent.sent_ms >= point.delete_retention_ms;
    is_old_tombstone || newest.may_be_superseded(model, offset, known)
}

/// Records that are not there, and have to be.
fn absent(model: &Model, read: &Read) -> Vec<String> {
    let there: HashSet<i64> = read.records.iter().map(|seen| seen.offset).collect();
    let newest = Newest::of(model);
    let should = model.known.range(read.start..read.end.max(read.start));
    let missing = should.filter(|(offset, known)| {
        !there.contains(offset) && !may_be_compacted(model, &newest, (**offset, known), read)
    });
    let mut wrong: Vec<String> =
        missing.map(|(offset, known)| format!("{offset} is missing: {known:?}")).collect();
    if !model.point.is_compacted {
        let holes = (read.start..read.end).filter(|offset| !there.contains(offset));
        wrong.extend(holes.take(3).map(|offset| format!("nothing at {offset}")));
    }
    wrong
}

/// What is there and has to go, with the time when it has to at the latest: by retention and by compaction.
pub(crate) fn dues(model: &Model, read: &Read) -> Vec<(String, i64)> {
    let mut dues = Vec::new();
    let newest = Newest::of(model);
    for seen in &read.records {
        let Some(known) = model.known.get(&seen.offset) else { continue };
        dues.extend(
            expires_at(model, known).map(|at| (format!("retention.ms leaves {seen:?}"), at)),
        );
        if newest.is_superseded(seen.offset, known)
            && let Some(at) = compacted_at(model)
        {
            dues.push((format!("compaction leaves {seen:?}"), at));
        }
    }
    let point = &model.point;
    if let Some(limit) = point.retention_bytes.filter(|_| point.is_deleted) {
        let segment = point.segment_bytes.unwrap_or(1 << 30);
        let most = limit + segment + 2 * i64::try_from(read.largest).expect("small");
        if i64::try_from(read.bytes).expect("small") > most {
            dues.push((
                format!("retention.bytes leaves {} bytes", read.bytes),
                model.last_stored_ms(),
            ));
        }
    }
    dues
}

/// When the segment of a record is closed, if nothing comes any more.
fn closed_at(model: &Model, known: &Known) -> i64 {
    let last = model.last_stored_ms();
    model.point.closes_after_ms().map_or(last, |after| last.min(known.stored_ms + after))
}

fn expires_at(model: &Model, known: &Known) -> Option<i64> {
    let point = &model.point;
    let limit = point.retention_ms.filter(|_| point.is_deleted)?;
    // Others of its segment may be stamped as late as its end.
    let stamped = if point.clock == Clock::Late { i64::MIN } else { closed_at(model, known) };
    let stamped = stamped.max(known.timestamp.unwrap_or(known.stored_ms));
    Some(stamped.saturating_add(limit).max(known.stored_ms))
}

/// When the last of what is superseded has to be gone; what is in a bucket is compacted when it is worth it.
fn compacted_at(model: &Model) -> Option<i64> {
    let point = &model.point;
    let is_due = point.is_compacted_in_time() && point.tier == Tier::No;
    let lags = point.lag_min_ms + point.lag_max_ms.unwrap_or(0);
    is_due.then(|| model.last_stored_ms() + point.closes_after_ms().unwrap_or(0) + lags)
}

#[cfg(test)]
mod tests {
    use super::super::model::Sent;
    use super::super::plan::Plan;
    use super::*;

    const NOW: i64 = 1_000_000;

    /// Ten records of three keys, a second apart, the last of now; and what is read of them.
    fn stored(change: impl FnOnce(&mut super::super::plan::Point)) -> (Model, Read) {
        let mut point = Plan::of(0, 1, 1).points.remove(0);
        (point.is_compacted, point.is_deleted) = (false, true);
        (point.retention_ms, point.retention_bytes) = (None, None);
        (point.clock, point.tier, point.lag_min_ms) = (Clock::Client, Tier::No, 0);
        (point.segment_ms, point.dirty_ratio, point.lag_max_ms) = (Some(500), 0.0, None);
        change(&mut point);
        let mut model = Model::new(point, 0);
        for number in 0..10 {
            let at = NOW - 9_000 + 1_000 * i64::try_from(number).expect("small");
            let (key, size) = (Some(number % 3), Some(10));
            let sent = Sent { number, key, size, timestamp: at, sent_ms: at };
            model.stored(number.try_into().expect("small"), &[sent], -1, at);
        }
        let seen = |(offset, known): (&i64, &Known)| Seen {
            offset: *offset,
            timestamp: known.sent.timestamp,
            key: known.sent.key,
            size: known.sent.size,
            number: known.sent.number,
        };
        let records = model.known.iter().map(seen).collect();
        let (began_ms, ended_ms) = (NOW, NOW);
        (model, Read { end: 10, records, began_ms, ended_ms, bytes: 100, ..Read::default() })
    }

    fn wrong((mut model, read): (Model, Read)) -> usize {
        judge(&mut model, &read).len()
    }

    fn without(offset: usize, (model, mut read): (Model, Read)) -> (Model, Read) {
        read.records.remove(offset);
        (model, read)
    }

    fn from(start: i64, (model, mut read): (Model, Read)) -> (Model, Read) {
        read.records.retain(|seen| seen.offset >= start);
        read.start = start;
        (model, read)
    }

    #[test]
    fn what_is_lost_changed_doubled_or_cut_off_is_found() {
        assert_eq!(wrong(stored(|_| ())), 0);
        assert!(wrong(without(4, stored(|_| ()))) > 0);
        assert!(wrong(from(1, stored(|_| ()))) > 0);
        let (model, mut read) = stored(|_| ());
        read.records[3].timestamp += 1;
        assert_eq!(wrong((model, read)), 1);
        let (model, mut read) = stored(|_| ());
        read.records.push(Seen { offset: 10, ..read.records[9].clone() });
        assert_eq!(wrong((model, Read { end: 11, ..read })), 1);
        let (model, mut read) = stored(|_| ());
        read.records.pop();
        assert_eq!(wrong((model, Read { end: 9, ..read })), 1);
    }

    #[test]
    fn what_may_have_been_stored_twice_may_be_there_twice_and_no_more() {
        for times in 0..2 {
            let (mut model, mut read) = stored(|_| ());
            let sent = model.known[&9].sent.clone();
            (0..times).for_each(|_| model.may_be_stored(std::slice::from_ref(&sent)));
            read.records.push(Seen { offset: 10, ..read.records[9].clone() });
            assert_eq!(wrong((model, Read { end: 11, ..read })), 1 - times);
        }
    }

    #[test]
    fn compaction_takes_what_is_superseded_and_old_enough_and_nothing_else() {
        let compacted = |lag| {
            move |point: &mut super::super::plan::Point| {
                (point.is_compacted, point.lag_min_ms) = (true, lag);
            }
        };
        assert_eq!(wrong(without(6, stored(compacted(0)))), 0);
        assert_eq!(wrong(without(7, stored(compacted(0)))), 1);
        assert_eq!(wrong(without(6, stored(compacted(5_000)))), 1);
        let (model, read) = stored(compacted(0));
        assert_eq!(dues(&model, &read).len(), 7);
        let (model, read) = without(0, (model, read));
        assert_eq!(dues(&model, &read).len(), 6);
    }

    #[test]
    fn what_may_never_have_been_stored_explains_that_something_is_gone_and_demands_nothing() {
        let keyed = |point: &mut super::super::plan::Point| {
            (point.is_compacted, point.keys) = (true, 1);
        };
        let (mut model, read) = stored(keyed);
        let sent = Sent { number: 99, sent_ms: NOW + 1, ..model.known[&9].sent.clone() };
        assert_eq!((dues(&model, &read).len(), wrong(without(9, stored(keyed)))), (7, 1));
        model.may_be_stored(&[sent]);
        assert_eq!(dues(&model, &read).len(), 7);
        assert_eq!(wrong(without(9, (model, read))), 0);
    }

    #[test]
    fn retention_takes_what_is_old_or_too_much_and_nothing_else() {
        assert_eq!(wrong(from(3, stored(|point| point.retention_ms = Some(6_500)))), 0);
        assert_eq!(wrong(from(4, stored(|point| point.retention_ms = Some(6_500)))), 1);
        assert_eq!(wrong(from(3, stored(|point| point.retention_bytes = Some(100)))), 0);
        assert!(wrong(from(3, stored(|point| point.retention_bytes = Some(101)))) > 0);
        let (model, read) = stored(|point| point.retention_ms = Some(6_500));
        let late = dues(&model, &read).iter().filter(|(_, at)| *at < NOW).count();
        assert_eq!(late, 2, "a record goes with its segment, half a second later");
        let (mut model, read) = stored(|_| ());
        model.deleted_to = 2;
        assert_eq!(wrong((model, read)), 1);
    }
}
