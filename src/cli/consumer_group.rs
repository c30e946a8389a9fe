//! A member of a consumer group, for `strandline consume --group`.
//!
//! Invariants: records are only committed for partitions that the member has in the generation it has them in; a
//! member that ends leaves.
//! Absent: static membership, cooperative rebalances.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use bytes::{Buf, BufMut, Bytes};

use super::cluster_client::{COORDINATOR_PAUSE, Cluster, check, is_between_coordinators};
use super::group::commit_request;
use crate::error::ErrorCode;
use crate::protocol::messages::join_group_request::JoinGroupRequestProtocol;
use crate::protocol::messages::join_group_response::JoinGroupResponseMember;
use crate::protocol::messages::leave_group_request::MemberIdentity;
use crate::protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use crate::protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use crate::protocol::text;
use crate::system::clock::{Instant, monotonic, sleep};

const PROTOCOL: &str = "range";
const SESSION_TIMEOUT_MS: i32 = 10_000;
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const HEARTBEAT: Duration = Duration::from_secs(1);

/// See the file's header.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    topic: String,
    id: String,
    generation: i32,
    /// The topic's partitions that are this member's.
    pub partitions: Vec<i32>,
    heartbeat_due: Instant,
}

impl Member {
    /// Joins and gets its part of the topic's partitions.
    pub(super) async fn join(
        cluster: &mut Cluster,
        group: &str,
        topic: &str,
    ) -> anyhow::Result<Self> {
        let mut member = Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            id: String::new(),
            generation: -1,
            partitions: Vec::new(),
            heartbeat_due: monotonic(),
        };
        member.rejoin(cluster).await?;
        Ok(member)
    }

    async fn rejoin(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        while !self.take_part(cluster).await? {}
        self.heartbeat_due = monotonic() + HEARTBEAT;
        Ok(())
    }

    /// One round of joining and syncing; `false` where the group moved on meanwhile.
    async fn take_part(&mut self, cluster: &mut Cluster) -> anyhow::Result<bool> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(PROTOCOL))
            .with_metadata(subscription(&self.topic));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(self.group.as_str())))
            .with_session_timeout_ms(SESSION_TIMEOUT_MS)
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_member_id(text(self.id.as_str()))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = cluster.coordinator(&self.group).await?.call(5, &request).await?;
        if ErrorCode::of(joined.error_code) == Some(ErrorCode::MemberIdRequired) {
            self.id = joined.member_id.to_string();
            return Ok(false);
        }
        if self.must_rejoin(joined.error_code) || pauses(joined.error_code).await {
            return Ok(false);
        }
        check(joined.error_code, &format!("group {}", self.group))?;
        self.id = joined.member_id.to_string();
        self.generation = joined.generation_id;
        let mut assignments = Vec::new();
        if joined.leader == joined.member_id {
            assignments = self.assign(cluster, &joined.members).await?;
        }
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(self.group.as_str())))
            .with_generation_id(self.generation)
            .with_member_id(text(self.id.as_str()))
            .with_assignments(assignments);
        let synced = cluster.coordinator(&self.group).await?.call(3, &request).await?;
        if self.must_rejoin(synced.error_code) || pauses(synced.error_code).await {
            return Ok(false);
        }
        check(synced.error_code, &format!("group {}", self.group))?;
        self.partitions = assigned(synced.assignment, &self.topic)?;
        Ok(true)
    }

    /// Tells the group that the member lives, when it is time to; `true` if its partitions changed.
    pub(super) async fn keep_alive(&mut self, cluster: &mut Cluster) -> anyhow::Result<bool> {
        if monotonic() < self.heartbeat_due {
            return Ok(false);
        }
        self.heartbeat_due = monotonic() + HEARTBEAT;
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(self.group.as_str())))
            .with_generation_id(self.generation)
            .with_member_id(text(self.id.as_str()));
        let answered = cluster.coordinator(&self.group).await?.call(3, &request).await?;
        if self.must_rejoin(answered.error_code) {
            self.rejoin(cluster).await?;
            return Ok(true);
        }
        if pauses(answered.error_code).await {
            return Ok(false);
        }
        check(answered.error_code, &format!("group {}", self.group))?;
        Ok(false)
    }

    /// Commits. Where the group moved on, nothing is, and whoever has the partitions now reads the records again.
    pub(super) async fn commit(
        &mut self,
        cluster: &mut Cluster,
        positions: &BTreeMap<i32, i64>,
    ) -> anyhow::Result<()> {
        let request = commit_request(&self.group, &self.topic, positions)
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(self.id.as_str()));
        let answered = cluster.coordinator(&self.group).await?.call(8, &request).await?;
        for partition in answered.topics.into_iter().flat_map(|topic| topic.partitions) {
            if self.must_rejoin(partition.error_code) {
                self.heartbeat_due = monotonic();
                return Ok(());
            }
            if pauses(partition.error_code).await {
                return Ok(());
            }
            check(partition.error_code, &format!("group {}", self.group))?;
        }
        Ok(())
    }

    pub(super) async fn leave(self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let coordinator = cluster.coordinator(&self.group).await?;
        let mut request =
            LeaveGroupRequest::default().with_group_id(GroupId(text(self.group.as_str())));
        if coordinator.version::<LeaveGroupRequest>(4)? >= 3 {
            let identity = MemberIdentity::default().with_member_id(text(self.id.as_str()));
            request.members = vec![identity];
        } else {
            request.member_id = text(self.id.as_str());
        }
        let answered = coordinator.call(4, &request).await?;
        check(answered.error_code, &format!("group {}", self.group))
    }

    /// Whether the group moved on; a member that it does not know any more has no id from then on.
    fn must_rejoin(&mut self, code: i16) -> bool {
        match ErrorCode::of(code) {
            Some(ErrorCode::RebalanceInProgress) => true,
            Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                self.id.clear();
                true
            }
            _ => false,
        }
    }

    /// The leader's work: consecutive ranges of each topic to the members that want it.
    async fn assign(
        &self,
        cluster: &mut Cluster,
        members: &[JoinGroupResponseMember],
    ) -> anyhow::Result<Vec<SyncGroupRequestAssignment>> {
        let mut wanted: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, member) in members.iter().enumerate() {
            for topic in subscribed(member.metadata.clone())? {
                wanted.entry(topic).or_default().push(number);
            }
        }
        let mut shares: Vec<Vec<(String, Vec<i32>)>> = vec![Vec::new(); members.len()];
        for (topic, mut takers) in wanted {
            takers.sort_by(|a, b| member_id(members, *a).cmp(member_id(members, *b)));
            let found = cluster.topic(&topic).await?;
            let partitions: Vec<i32> = found.partitions.keys().copied().collect();
            for (taker, range) in takers.iter().zip(ranges(&partitions, takers.len())) {
                if let Some(share) = shares.get_mut(*taker) {
                    share.push((topic.clone(), range));
                }
            }
        }
        let assignment = |(member, share): (&JoinGroupResponseMember, Vec<_>)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(assignment(&share))
        };
        Ok(members.iter().zip(shares).map(assignment).collect())
    }
}

/// Waits a moment where the coordinator is loading or moving; whether it did.
async fn pauses(code: i16) -> bool {
    let is_between = is_between_coordinators(code);
    if is_between {
        sleep(COORDINATOR_PAUSE).await;
    }
    is_between
}

fn member_id(members: &[JoinGroupResponseMember], number: usize) -> &str {
    members.get(number).map_or("", |member| member.member_id.as_str())
}

/// Consecutive parts, as even as can be, the larger ones first.
fn ranges(partitions: &[i32], members: usize) -> Vec<Vec<i32>> {
    let (each, more) = (partitions.len() / members.max(1), partitions.len() % members.max(1));
    let mut rest = partitions;
    let mut parts = Vec::new();
    for number in 0..members {
        let (part, after) = rest.split_at(each + usize::from(number < more));
        parts.push(part.to_vec());
        rest = after;
    }
    parts
}

fn put_text(out: &mut Vec<u8>, value: &str) {
    out.put_i16(i16::try_from(value.len()).unwrap_or(0));
    out.put_slice(value.as_bytes());
}

/// The consumer protocol's subscription, version 0.
fn subscription(topic: &str) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(0);
    out.put_i32(1);
    put_text(&mut out, topic);
    out.put_i32(-1);
    out.into()
}

/// The consumer protocol's assignment, version 0.
fn assignment(share: &[(String, Vec<i32>)]) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(0);
    out.put_i32(i32::try_from(share.len()).unwrap_or(0));
    for (topic, partitions) in share {
        put_text(&mut out, topic);
        out.put_i32(i32::try_from(partitions.len()).unwrap_or(0));
        partitions.iter().for_each(|partition| out.put_i32(*partition));
    }
    out.put_i32(-1);
    out.into()
}

/// A list's count, no larger than the bytes that are left allow.
fn take_count(bytes: &mut Bytes, item_bytes: usize) -> anyhow::Result<usize> {
    let count = usize::try_from(bytes.try_get_i32()?).unwrap_or(0);
    if count * item_bytes > bytes.len() {
        bail!("a member's bytes are cut");
    }
    Ok(count)
}

fn take_text(bytes: &mut Bytes) -> anyhow::Result<String> {
    let length = usize::try_from(bytes.try_get_i16()?).unwrap_or(0);
    if length > bytes.len() {
        bail!("a member's bytes are cut");
    }
    Ok(String::from_utf8(bytes.split_to(length).to_vec())?)
}

fn subscribed(mut bytes: Bytes) -> anyhow::Result<Vec<String>> {
    bytes.try_get_i16()?;
    let count = take_count(&mut bytes, 2)?;
    (0..count).map(|_| take_text(&mut bytes)).collect()
}

/// The partitions of a topic in an assignment; none in an empty one.
fn assigned(mut bytes: Bytes, topic: &str) -> anyhow::Result<Vec<i32>> {
    let mut found = Vec::new();
    if bytes.is_empty() {
        return Ok(found);
    }
    bytes.try_get_i16()?;
    for _ in 0..take_count(&mut bytes, 6)? {
        let name = take_text(&mut bytes)?;
        for _ in 0..take_count(&mut bytes, 4)? {
            let partition = bytes.try_get_i32()?;
            if name == topic {
                found.push(partition);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shared_in_ranges_and_every_one_is_somebodys() {
        assert_eq!(ranges(&[0, 1, 2, 3, 4], 2), [vec![0, 1, 2], vec![3, 4]]);
        assert_eq!(ranges(&[0], 3), [vec![0], vec![], vec![]]);
        assert_eq!(ranges(&[], 1), [Vec::<i32>::new()]);
    }

    #[test]
    fn what_members_write_is_read_back_and_what_is_cut_is_refused() {
        assert_eq!(subscribed(subscription("t")).expect("read"), ["t"]);
        let share = [("t".to_owned(), vec![1, 2]), ("u".to_owned(), vec![3])];
        let bytes = assignment(&share);
        assert_eq!(assigned(bytes.clone(), "t").expect("read"), [1, 2]);
        assert_eq!(assigned(Bytes::new(), "t").expect("read"), Vec::<i32>::new());
        for cut in 1..bytes.len() - 4 {
            assert!(assigned(bytes.slice(..cut), "t").is_err(), "cut at {cut}");
        }
    }
}
