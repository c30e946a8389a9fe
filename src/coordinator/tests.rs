use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot::{self, Receiver};

use super::group::{Group, GroupState, Joined, Rules, Synced, ToStore};
use super::groups::partition_of;
use super::member::{JoinRequest, SyncRequest};
use super::*;
use crate::model::Timestamp;

const RULES: Rules = Rules { initial_delay_ms: 0, size_max: 3 };

/// A group and its clock.
struct Story {
    group: Group,
    now_ms: Timestamp,
    ids: u32,
}

fn story() -> Story {
    Story { group: Group::new("g", 0), now_ms: 0, ids: 0 }
}

fn request(member_id: &str, metadata: &'static str) -> JoinRequest {
    JoinRequest {
        group: "g".into(),
        member_id: member_id.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(metadata.as_bytes()))],
        ..JoinRequest::default()
    }
}

impl Story {
    fn join_as(&mut self, request: &JoinRequest) -> Receiver<Joined> {
        self.ids += 1;
        let (sender, receiver) = oneshot::channel();
        let new_id = format!("m{}", self.ids);
        self.group.join(self.now_ms, RULES, request, new_id, sender);
        receiver
    }

    fn join(&mut self, member_id: &str) -> Receiver<Joined> {
        self.join_as(&request(member_id, "x"))
    }

    fn sync(
        &mut self,
        member_id: &str,
        assignments: &[(&str, &'static str)],
    ) -> Receiver<Result<Synced, GroupError>> {
        let (sender, receiver) = oneshot::channel();
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let request = SyncRequest {
            group: "g".into(),
            generation: self.group.generation,
            member_id: member_id.into(),
            assignments: assignments
                .iter()
                .map(|(id, text)| ((*id).to_owned(), bytes(text)))
                .collect(),
            ..SyncRequest::default()
        };
        self.group.sync(self.now_ms, &request, sender);
        receiver
    }

    /// What the driver does once the generation is durable.
    fn store(&mut self, is_stored: bool) {
        if let Some(ToStore::Generation(generation)) = self.group.to_store.take() {
            self.group.generation_stored(self.now_ms, generation, is_stored);
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.group.tick(self.now_ms);
    }

    fn heartbeat(&mut self, id: &str) -> Result<(), GroupError> {
        let generation = self.group.generation;
        self.group.heartbeat(self.now_ms, id, None, generation)
    }

    /// A stable group of `m1` (leader) and `m2`.
    fn two() -> Self {
        let mut story = story();
        let mut first = story.join("");
        story.pass(0);
        assert_eq!(first.try_recv().expect("joined").generation, 1);
        let mut second = story.join("");
        let mut again = story.join("m1");
        assert_eq!(second.try_recv().expect("joined").member_id, "m2");
        assert_eq!(again.try_recv().expect("joined").members.len(), 2);
        let mut synced = story.sync("m2", &[]);
        let _leader = story.sync("m1", &[("m1", "a"), ("m2", "b")]);
        assert!(synced.try_recv().is_err(), "nothing is told before it is stored");
        story.store(true);
        assert_eq!(synced.try_recv().expect("told").expect("synced").assignment, "b");
        story
    }
}

#[test]
fn the_leader_sees_the_members_and_the_others_do_not() {
    let mut story = Story::two();
    assert_eq!((story.group.state, story.group.generation), (GroupState::Stable, 2));
    let mut follower = story.join("m2");
    let joined = follower.try_recv().expect("told at once");
    assert_eq!((joined.members.len(), joined.leader.as_str(), joined.generation), (0, "m1", 2));
    // The leader's return means that it wants a rebalance.
    let mut leader = story.join("m1");
    assert!(leader.try_recv().is_err());
    assert_eq!(story.heartbeat("m2"), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_member_that_is_not_heard_of_is_dropped_and_one_that_is_stays() {
    let mut story = Story::two();
    story.pass(6_000);
    assert_eq!(story.heartbeat("m1"), Ok(()));
    story.pass(6_000);
    assert!(!story.group.members.contains_key("m2") && story.group.members.contains_key("m1"));
    assert_eq!(story.heartbeat("m1"), Err(GroupError::RebalanceInProgress));
    assert_eq!(story.heartbeat("m2"), Err(GroupError::UnknownMember));
}

#[test]
fn a_member_that_does_not_join_again_is_dropped_when_the_phase_ends() {
    let mut story = Story::two();
    let mut waiting = story.join("m1");
    for _ in 0..4 {
        story.pass(8_000);
        let _ = story.heartbeat("m2");
    }
    let joined = waiting.try_recv().expect("the phase is over");
    assert_eq!((joined.generation, joined.members.len()), (3, 1));
    assert!(!story.group.members.contains_key("m2"));
}

#[test]
fn a_generation_that_could_not_be_stored_is_not_told_and_is_tried_again() {
    let mut story = story();
    let mut first = story.join("");
    story.pass(0);
    first.try_recv().expect("joined");
    let mut synced = story.sync("m1", &[("m1", "a")]);
    story.store(false);
    assert_eq!(synced.try_recv().expect("told"), Err(GroupError::Unavailable));
    assert_eq!(story.group.state, GroupState::PreparingRebalance);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_old_id_is_fenced() {
    let mut story = story();
    let fixed =
        |member_id: &str| JoinRequest { instance_id: Some("i".into()), ..request(member_id, "x") };
    let mut first = story.join_as(&fixed(""));
    story.pass(0);
    assert_eq!(first.try_recv().expect("joined").member_id, "m1");
    let _synced = story.sync("m1", &[("m1", "a")]);
    story.store(true);
    let mut back = story.join_as(&JoinRequest { can_skip_assignment: true, ..fixed("") });
    let joined = back.try_recv().expect("told at once");
    assert_eq!(
        (joined.member_id.as_str(), joined.generation, joined.skip_assignment),
        ("m2", 1, true)
    );
    assert_eq!(story.group.heartbeat(0, "m1", Some("i"), 1), Err(GroupError::FencedInstance));
    assert_eq!(story.group.heartbeat(0, "m2", Some("i"), 1), Ok(()));
    assert_eq!(story.group.to_store, Some(ToStore::Note), "the new id is stored");
}

#[test]
fn a_new_member_gets_its_id_first_and_the_group_waits_for_it() {
    let mut story = story();
    let mut first = story.join_as(&JoinRequest { id_required: true, ..request("", "x") });
    let told = first.try_recv().expect("told");
    assert_eq!((told.error, told.member_id.as_str()), (Some(GroupError::MemberIdRequired), "m1"));
    let mut joined = story.join("m1");
    story.pass(0);
    assert_eq!(joined.try_recv().expect("joined").generation, 1);
    assert!(story.group.pending.is_empty());
}

#[test]
fn strangers_other_protocols_and_too_many_members_are_refused() {
    let mut story = Story::two();
    let mut refused =
        |request: &JoinRequest| story.join_as(request).try_recv().expect("told").error;
    assert_eq!(refused(&request("nobody", "x")), Some(GroupError::UnknownMember));
    let other = JoinRequest { protocol_type: "connect".into(), ..request("", "x") };
    assert_eq!(refused(&other), Some(GroupError::InconsistentProtocol));
    let none = JoinRequest { protocols: Vec::new(), ..request("", "x") };
    assert_eq!(refused(&none), Some(GroupError::InconsistentProtocol));
    let _third = story.join("");
    let mut fourth = story.join("");
    assert_eq!(fourth.try_recv().expect("told").error, Some(GroupError::GroupFull));
}

#[test]
fn a_stored_generation_comes_back_as_it_was() {
    let story = Story::two();
    let stored = story.group.stored();
    let mut again = Group::new("g", 0);
    again.restore(stored.clone(), 0);
    assert_eq!(again.stored(), stored);
    assert_eq!(again.state, GroupState::Stable);
}

#[test]
fn ten_thousand_members_join_one_group_without_a_quadratic_wait() {
    let mut group = Group::new("g", 0);
    let rules = Rules { initial_delay_ms: 1, size_max: 20_000 };
    let receivers: Vec<_> = (0..10_000)
        .map(|n| {
            let (sender, receiver) = oneshot::channel();
            group.join(0, rules, &request("", "x"), format!("m{n}"), sender);
            receiver
        })
        .collect();
    // Whoever came during the delay prolongs it once.
    group.tick(2);
    group.tick(10);
    let leader =
        receivers.into_iter().find_map(|mut r| r.try_recv().ok().filter(|j| !j.members.is_empty()));
    assert_eq!(leader.expect("a leader").members.len(), 10_000);
}

#[test]
fn a_group_lies_where_kafka_puts_it() {
    // Utils.abs("g1".hashCode()) % 50 and its like, from the Java client.
    assert_eq!(partition_of("g1", 50), 3242 % 50);
    assert_eq!(
        partition_of("consumer-group", 50),
        usize::try_from(java_hash("consumer-group")).expect("positive") % 50
    );
}

fn java_hash(text: &str) -> i32 {
    let hash = text.chars().fold(0_i32, |h, c| {
        h.wrapping_mul(31).wrapping_add(i32::try_from(u32::from(c)).expect("ascii"))
    });
    hash & i32::MAX
}

mod with_a_log {
    use super::*;
    use crate::config::{Config, Origin};

    use crate::replication::Replicas;
    use crate::system::sim_disk::SimDisk;
    use crate::system::{Clock, Random, SharedDisk};

    /// Groups over one partition of the topic.
    async fn open(disk: &SimDisk) -> (Arc<Groups>, Arc<Replicas>) {
        let mut config = Config::default();
        config.set("log.cleanup.policy", "compact", Origin::File).expect("valid");
        config.set("log.cleaner.min.cleanable.ratio", "0", Origin::File).expect("valid");
        let settings = GroupSettings {
            initial_delay_ms: 0,
            session_timeout_ms: (1, 100_000),
            size_max: 10,
            metadata_bytes_max: 100,
            retention_ms: 1_000,
            retention_check_ms: 1_000,
            topic_partitions: 1,
            topic_segment_bytes: 1 << 20,
        };
        let shared: SharedDisk = Arc::new(disk.clone());
        let folder = std::path::Path::new("/d");
        crate::internals::micro::coordinator(&shared, folder, config, settings).await
    }

    #[tokio::test]
    async fn who_joins_without_a_name_of_a_group_is_told_so_whatever_else_is_wrong() {
        let (groups, _replicas) = open(&SimDisk::default()).await;
        let refused = |group: &str| {
            let asked =
                JoinRequest { group: group.into(), session_timeout_ms: 0, ..request("", "x") };
            groups.join(&asked).err()
        };
        assert_eq!(refused(""), Some(GroupError::InvalidGroupId));
        assert_eq!(refused("g"), Some(GroupError::InvalidSessionTimeout));
    }

    type Offsets = Vec<((String, i32), i64)>;

    fn state(groups: &Groups) -> Vec<(ListedGroup, Vec<DescribedMember>, Offsets)> {
        let offsets = |group: &ListedGroup| {
            let offsets = groups.offsets(&group.id).expect("loaded");
            offsets.into_iter().map(|(key, committed)| (key, committed.offset)).collect()
        };
        let members = |group: &ListedGroup| {
            let described = groups.describe(&group.id).expect("loaded");
            described.map(|group| group.members).unwrap_or_default()
        };
        let whole = |group: ListedGroup| (group.clone(), members(&group), offsets(&group));
        groups.list().expect("loaded").into_iter().map(whole).collect()
    }

    /// Waits until everything that was appended is durable: nobody waits for a leave.
    async fn settled(replicas: &Replicas) {
        let name = crate::model::TopicPartition::new("__consumer_offsets", 0);
        let partition = replicas.partition(&name).expect("made");
        let end = || partition.with_log(crate::log::Log::log_end).expect("online");
        while partition.high_watermark() < end() {
            crate::system::clock::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Somebody joins a group of members, gets its part, and may leave.
    async fn take_part(groups: &Arc<Groups>, random: &Random) {
        let group = format!("m{}", random.below(2));
        let members = groups.describe(&group).expect("loaded").map_or(0, |g| g.members.len());
        if members > 0 {
            return;
        }
        let joining = JoinRequest {
            group: group.clone(),
            client_id: "client".into(),
            session_timeout_ms: 90_000,
            rebalance_timeout_ms: 90_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"subscription"))],
            ..JoinRequest::default()
        };
        let joined = groups.join(&joining).expect("joins").await.expect("an answer");
        let sync = SyncRequest {
            group: group.clone(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"part"))],
            ..SyncRequest::default()
        };
        groups.sync(&sync).expect("syncs").await.expect("an answer").expect("synced");
        if random.below(2) == 0 {
            groups.leave(&group, &joined.member_id, None).expect("leaves");
        }
    }

    async fn change(groups: &Arc<Groups>, random: &Random) {
        if random.below(4) == 0 {
            return take_part(groups, random).await;
        }
        let group = format!("g{}", random.below(4));
        match random.below(10) {
            0 => {
                if let Ok(done) = groups.delete(&group) {
                    done.await.expect("durable");
                }
            }
            1 => {
                let key = (format!("t{}", random.below(2)), 0);
                if let Ok((_, done)) = groups.delete_offsets(&group, &[key]) {
                    assert!(done.await);
                }
            }
            _ => {
                let offset = i64::try_from(random.below(1000)).expect("small");
                let topic = format!("t{}", random.below(2));
                let request = CommitRequest {
                    group,
                    generation: -1,
                    offsets: vec![(topic, 0, offset, -1, "note".into())],
                    ..CommitRequest::default()
                };
                groups.commit(request).expect("written").await.expect("durable");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_groups_after_a_crash_or_a_compaction_are_those_before() {
        for seed in 0..12 {
            let (disk, random) = (SimDisk::default(), Random::seeded(seed));
            for round in 0..4 {
                let (groups, replicas) = open(&disk).await;
                for _ in 0..random.below(30) {
                    change(&groups, &random).await;
                }
                settled(&replicas).await;
                let before = state(&groups);
                if round % 2 == 1 {
                    replicas.clean_once(&mut |_| {});
                }
                drop((groups, replicas));
                disk.crash(&random);
                let (again, _replicas) = open(&disk).await;
                assert_eq!(state(&again), before, "seed {seed} round {round}");
                disk.die();
            }
        }
    }

    /// The batches of the groups' log, each with the offset after it.
    fn batches(replicas: &Replicas) -> Vec<(i64, Vec<u8>)> {
        let name = crate::model::TopicPartition::new("__consumer_offsets", 0);
        let partition = replicas.partition(&name).expect("made");
        let mut found = Vec::new();
        let (mut at, end, _) = partition.bounds(-1).expect("online");
        while at < end {
            let read = partition
                .read(at, 1, true, crate::replication::ReadRules::leader(-1))
                .expect("read")
                .slice
                .expect("bytes");
            let bytes = read.read().expect("read");
            at = crate::record::BatchHeader::parse(&bytes).expect("a batch").last_offset() + 1;
            // As a client would send it.
            found.push((at, [&[0; 8], &bytes[8..]].concat()));
        }
        found
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_prefix_of_the_log_replays_to_what_was_then_and_so_does_its_compaction() {
        for seed in 0..6 {
            let random = Random::seeded(100 + seed);
            let (groups, replicas) = open(&SimDisk::default()).await;
            // What was to be seen when the log ended there.
            let mut states = vec![(0, state(&groups))];
            for _ in 0..25 {
                change(&groups, &random).await;
                settled(&replicas).await;
                let end = batches(&replicas).last().map_or(0, |(end, _)| *end);
                states.push((end, state(&groups)));
            }
            let all = batches(&replicas);
            for (end, expected) in states {
                let disk = SimDisk::default();
                {
                    let (_, copy) = open(&disk).await;
                    let name = crate::model::TopicPartition::new("__consumer_offsets", 0);
                    let partition = copy.partition(&name).expect("made");
                    for (_, batch) in all.iter().filter(|(after, _)| *after <= end) {
                        let request = crate::replication::AppendRequest {
                            batch,
                            now_ms: Clock::system().now_ms(),
                            waiter: None,
                            internal_epoch: Some(0),
                        };
                        partition.append(&request).expect("appended");
                    }
                    copy.stop(1);
                }
                disk.crash(&random);
                let (replayed, copy) = open(&disk).await;
                assert_eq!(state(&replayed), expected, "seed {seed}, prefix up to {end}");
                copy.clean_once(&mut |_| {});
                copy.stop(1);
                drop((replayed, copy));
                disk.crash(&random);
                let (compacted, _copy) = open(&disk).await;
                assert_eq!(state(&compacted), expected, "seed {seed}, compacted up to {end}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_offset_is_not_visible_before_it_is_durable() {
        let disk = SimDisk::default();
        let (groups, _replicas) = open(&disk).await;
        disk.set_faults(crate::system::sim_disk::Faults { fail_syncs: true, ..Default::default() });
        let request = CommitRequest {
            group: "g".into(),
            generation: -1,
            offsets: vec![("t".into(), 0, 7, -1, String::new())],
            ..CommitRequest::default()
        };
        let done = groups.commit(request).expect("written");
        assert_eq!(done.await, Err(GroupError::Unavailable));
        assert!(groups.offsets("g").map_or(true, |offsets| offsets.is_empty()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn offsets_that_were_committed_for_a_time_expire_after_it_also_after_a_restart() {
        let disk = SimDisk::default();
        let (groups, replicas) = open(&disk).await;
        let commit = |partition, retention_ms| CommitRequest {
            group: "g".into(),
            generation: -1,
            retention_ms,
            offsets: vec![("t".into(), partition, 7, -1, String::new())],
            ..CommitRequest::default()
        };
        for (partition, retention_ms) in [(0, Some(300)), (1, None), (2, Some(90_000))] {
            let request = commit(partition, retention_ms);
            groups.commit(request).expect("written").await.expect("durable");
        }
        let now_ms = Clock::system().now_ms();
        let left = |groups: &Groups| {
            let mut offsets: Vec<i32> =
                groups.offsets("g").expect("loaded").iter().map(|((_, p), _)| *p).collect();
            offsets.sort_unstable();
            offsets
        };
        assert_eq!(left(&groups), [0, 1, 2]);
        groups.expire(now_ms + 500).await;
        assert_eq!(left(&groups), [1, 2]);
        replicas.stop(1);
        drop((groups, replicas));
        disk.crash(&Random::seeded(1));
        let (groups, _replicas) = open(&disk).await;
        groups.expire(now_ms + 2_000).await;
        assert_eq!(left(&groups), [2]);
        groups.expire(now_ms + 100_000).await;
        assert_eq!(groups.list(), Ok(Vec::new()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn offsets_of_a_group_without_members_expire_and_the_group_with_them() {
        let (groups, _replicas) = open(&SimDisk::default()).await;
        let request = CommitRequest {
            group: "g".into(),
            generation: -1,
            offsets: vec![("t".into(), 0, 7, -1, String::new())],
            ..CommitRequest::default()
        };
        groups.commit(request).expect("written").await.expect("durable");
        let now_ms = Clock::system().now_ms();
        groups.expire(now_ms + 500).await;
        assert_eq!(groups.offsets("g").expect("loaded").len(), 1);
        groups.expire(now_ms + 2_000).await;
        assert_eq!(groups.list(), Ok(Vec::new()));
    }
}
