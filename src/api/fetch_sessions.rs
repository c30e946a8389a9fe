//! Incremental fetch sessions (KIP-227): what each client follows, so that it need not say it again.
//!
//! Invariants: a session's epoch moves by one with each request; a partition that was answered with an error is
//! answered again; the least recently used session makes room, but not one that was used lately.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::ErrorCode;
use crate::model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId};
use crate::system::{Account, Grant, Random};

/// A session that was used within this time is not given up for a new one (KIP-227's default).
const EVICTABLE_AFTER_MS: i64 = 120_000;

/// Which topic, in the words of the request's version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TopicKey {
    Name(Arc<str>),
    Id(TopicId),
}

/// A partition that is followed.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub topic: TopicKey,
    pub partition: PartitionId,
    pub offset: Offset,
    pub bytes_max: usize,
    pub leader_epoch: LeaderEpoch,
    /// Of a follower: the epoch of the last batch that it has; -1: none.
    pub last_epoch: LeaderEpoch,
    /// What the client was told; news is what differs.
    pub told_high_watermark: Offset,
    pub told_log_start: Offset,
    pub told_error: bool,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    used_ms: Timestamp,
    followed: Vec<Followed>,
    /// Of what it takes.
    kept: Grant,
}

impl Followed {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        let name = match &self.topic {
            TopicKey::Name(name) => name.len(),
            TopicKey::Id(_) => 0,
        };
        size_of::<Self>() + name
    }
}

/// Each partition once, as it was named last: a fetch means one of each, as in Apache Kafka.
pub(super) fn each_once(named: Vec<Followed>) -> Vec<Followed> {
    if named.len() < 2 {
        return named;
    }
    let mut places = HashMap::with_capacity(named.len());
    let mut once: Vec<Followed> = Vec::with_capacity(named.len());
    for followed in named {
        let place =
            *places.entry((followed.topic.clone(), followed.partition)).or_insert(once.len());
        match once.get_mut(place) {
            Some(before) => *before = followed,
            None => once.push(followed),
        }
    }
    once
}

/// What a request asks of its session.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub kept: &'a Arc<Account>,
    pub session_id: i32,
    pub epoch: i32,
    pub by_id: bool,
    pub wanted: Vec<Followed>,
    pub forgotten: Vec<(TopicKey, PartitionId)>,
}

/// What is to be fetched, and how it is answered.
#[derive(Debug)]
pub(super) struct Plan {
    pub session_id: i32,
    /// Only news is answered.
    pub is_incremental: bool,
    pub followed: Vec<Followed>,
}

/// All sessions of this broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    slots: usize,
    random: Random,
    sessions: Mutex<HashMap<i32, Session>>,
}

impl FetchSessions {
    pub(crate) fn new(slots: usize, random: Random) -> Self {
        Self { slots, random, sessions: Mutex::default() }
    }

    /// How many sessions there are.
    pub(crate) fn count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Resolves a request to what it means.
    pub(super) fn plan(&self, ask: Ask<'_>, now_ms: Timestamp) -> Result<Plan, ErrorCode> {
        let mut sessions = self.sessions.lock();
        if ask.epoch <= 0 {
            sessions.remove(&ask.session_id);
            let session_id = if ask.epoch == 0 && !ask.wanted.is_empty() {
                self.start(&mut sessions, &ask, now_ms)
            } else {
                0
            };
            return Ok(Plan { session_id, is_incremental: false, followed: ask.wanted });
        }
        let session = sessions.get_mut(&ask.session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != ask.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != ask.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch = next_epoch(ask.epoch);
        session.used_ms = now_ms;
        if !session.change(ask.wanted, &ask.forgotten) {
            sessions.remove(&ask.session_id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        Ok(Plan {
            session_id: ask.session_id,
            is_incremental: true,
            followed: session.followed.clone(),
        })
    }

    /// Notes what the client was told; partitions that had data go to the end, so that all get their turn.
    pub(super) fn told(&self, session_id: i32, told: Vec<(Followed, bool)>) {
        let mut sessions = self.sessions.lock();
        let Some(session) = sessions.get_mut(&session_id) else { return };
        let mut served: HashMap<(TopicKey, PartitionId), (Followed, bool)> = told
            .into_iter()
            .map(|(f, had_data)| ((f.topic.clone(), f.partition), (f, had_data)))
            .collect();
        let mut last = Vec::new();
        session.followed.retain_mut(|followed| {
            let Some((told, had_data)) =
                served.remove(&(followed.topic.clone(), followed.partition))
            else {
                return true;
            };
            followed.told_high_watermark = told.told_high_watermark;
            followed.told_log_start = told.told_log_start;
            followed.told_error = told.told_error;
            if had_data {
                last.push(followed.clone());
            }
            !had_data
        });
        session.followed.append(&mut last);
    }

    fn start(&self, sessions: &mut HashMap<i32, Session>, ask: &Ask<'_>, now_ms: Timestamp) -> i32 {
        if sessions.len() >= self.slots {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used_ms);
            match oldest
                .filter(|(_, session)| now_ms - session.used_ms > EVICTABLE_AFTER_MS)
                .map(|(id, _)| *id)
            {
                Some(id) => sessions.remove(&id),
                None => return 0,
            };
        }
        let Some(kept) = ask.kept.keep(ask.wanted.iter().map(Followed::bytes).sum()) else {
            return 0;
        };
        let id = loop {
            let id = i32::try_from(self.random.below(0x7fff_fffe)).unwrap_or(0) + 1;
            if !sessions.contains_key(&id) {
                break id;
            }
        };
        let followed = ask.wanted.clone();
        let session = Session { epoch: 1, by_id: ask.by_id, used_ms: now_ms, followed, kept };
        sessions.insert(id, session);
        id
    }
}

impl Session {
    /// `false`: there is no memory for what is new.
    fn change(&mut self, wanted: Vec<Followed>, forgotten: &[(TopicKey, PartitionId)]) -> bool {
        if !forgotten.is_empty() {
            let forgotten: HashSet<(&TopicKey, PartitionId)> =
                forgotten.iter().map(|(topic, partition)| (topic, *partition)).collect();
            self.followed.retain(|f| !forgotten.contains(&(&f.topic, f.partition)));
        }
        if wanted.is_empty() {
            return true;
        }
        let places: HashMap<(TopicKey, PartitionId), usize> = self
            .followed
            .iter()
            .enumerate()
            .map(|(at, f)| ((f.topic.clone(), f.partition), at))
            .collect();
        for new in wanted {
            let place = places.get(&(new.topic.clone(), new.partition));
            match place.and_then(|at| self.followed.get_mut(*at)) {
                Some(old) => {
                    old.offset = new.offset;
                    old.bytes_max = new.bytes_max;
                    old.leader_epoch = new.leader_epoch;
                    old.last_epoch = new.last_epoch;
                }
                None if self.kept.grow(new.bytes()) => self.followed.push(new),
                None => return false,
            }
        }
        true
    }
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::system::Budgets;

    fn followed(partition: PartitionId) -> Followed {
        Followed {
            topic: TopicKey::Name("t".into()),
            partition,
            offset: 0,
            bytes_max: 1,
            leader_epoch: -1,
            last_epoch: -1,
            told_high_watermark: -1,
            told_log_start: -1,
            told_error: false,
        }
    }

    fn account(bytes: usize) -> Arc<Account> {
        Budgets::new(0, bytes).kept.account(([127, 0, 0, 1], 1).into(), Arc::default())
    }

    static MUCH: LazyLock<Arc<Account>> = LazyLock::new(|| account(1 << 20));

    fn ask(session_id: i32, epoch: i32, wanted: Vec<Followed>) -> Ask<'static> {
        Ask { kept: &MUCH, session_id, epoch, by_id: false, wanted, forgotten: Vec::new() }
    }

    #[test]
    fn a_partition_that_is_named_twice_is_fetched_once_as_it_was_named_last() {
        let further = Followed { offset: 7, ..followed(0) };
        let once = each_once(vec![followed(0), followed(1), further]);
        let places: Vec<_> = once.iter().map(|f| (f.partition, f.offset)).collect();
        assert_eq!(places, [(0, 7), (1, 0)]);
    }

    #[test]
    fn a_client_for_which_much_is_kept_gets_no_session_and_one_that_grows_too_much_loses_it() {
        let sessions = FetchSessions::new(10, Random::seeded(1));
        let (one, bytes) = (account(4000), followed(0).bytes());
        let some = (4000 / 2 - bytes / 2) / bytes;
        let many = |count: usize| (0..).map(followed).take(count).collect::<Vec<_>>();
        let start = |count| Ask { kept: &one, ..ask(0, 0, many(count)) };
        let id = sessions.plan(start(some), 0).expect("new").session_id;
        assert!(id > 0);
        assert_eq!(sessions.plan(start(some), 0).expect("whole").session_id, 0);
        let unchanged = Ask { kept: &one, ..ask(id, 1, many(some)) };
        assert_eq!(sessions.plan(unchanged, 0).expect("nothing new").followed.len(), some);
        let more = Ask { kept: &one, ..ask(id, 2, many(some + 2)) };
        assert_eq!(sessions.plan(more, 0).expect_err("lost"), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(sessions.count(), 0);
        assert!(sessions.plan(start(some), 0).expect("it was given back").session_id > 0);
    }

    #[test]
    fn a_session_is_followed_by_epochs_and_refused_by_name_otherwise() {
        let sessions = FetchSessions::new(10, Random::seeded(1));
        let id =
            sessions.plan(ask(0, 0, vec![followed(0), followed(1)]), 0).expect("new").session_id;
        assert!(id > 0);
        let next = sessions.plan(ask(id, 1, vec![followed(2)]), 0).expect("epoch 1");
        assert_eq!((next.is_incremental, next.followed.len()), (true, 3));
        assert_eq!(
            sessions.plan(ask(id, 9, vec![]), 0).expect_err("epoch"),
            ErrorCode::InvalidFetchSessionEpoch
        );
        assert_eq!(
            sessions.plan(ask(id + 1, 1, vec![]), 0).expect_err("id"),
            ErrorCode::FetchSessionIdNotFound
        );
        let by_id = Ask { by_id: true, ..ask(id, 2, vec![]) };
        assert_eq!(
            sessions.plan(by_id, 0).expect_err("by id"),
            ErrorCode::FetchSessionTopicIdError
        );
        let mut forget = ask(id, 2, vec![]);
        forget.forgotten = vec![(TopicKey::Name("t".into()), 0)];
        assert_eq!(sessions.plan(forget, 0).expect("forget").followed.len(), 2);
        sessions.plan(ask(id, -1, vec![]), 0).expect("close");
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn the_epoch_wraps_to_one() {
        assert_eq!(next_epoch(i32::MAX), 1);
    }

    #[test]
    fn a_partition_that_was_served_waits_for_the_others() {
        let sessions = FetchSessions::new(10, Random::seeded(1));
        let id =
            sessions.plan(ask(0, 0, vec![followed(0), followed(1)]), 0).expect("new").session_id;
        sessions.told(id, vec![(followed(0), true)]);
        let order: Vec<i32> = sessions
            .plan(ask(id, 1, vec![]), 0)
            .expect("plan")
            .followed
            .iter()
            .map(|f| f.partition)
            .collect();
        assert_eq!(order, [1, 0]);
    }

    #[test]
    fn when_all_slots_are_in_use_a_client_gets_no_session_rather_than_taking_one() {
        let sessions = FetchSessions::new(1, Random::seeded(1));
        let first = sessions.plan(ask(0, 0, vec![followed(0)]), 0).expect("new").session_id;
        assert_eq!(sessions.plan(ask(0, 0, vec![followed(0)]), 1000).expect("none").session_id, 0);
        let late = sessions
            .plan(ask(0, 0, vec![followed(0)]), EVICTABLE_AFTER_MS + 1)
            .expect("evicts")
            .session_id;
        assert!(late > 0 && late != first);
    }
}
