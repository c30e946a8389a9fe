//! Committing, reading and deleting offsets.
//!
//! Invariants: an offset is visible once its record is durable, and the newest record wins whatever order the waits
//! end in; deleting a group also deletes what is being committed to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::GroupError;
use super::group::{Commit, Group, GroupState};
use super::groups::{Cell, CommitRequest, Groups, Shard, commit_bytes};
use super::records::{CommittedOffset, GroupRecord, subscribed_topics};
use crate::model::{LeaderEpoch, PartitionId};
use crate::system::Grant;

type Key = (String, i32);
/// What is committed, and what is counted of it.
type Value = (CommittedOffset, Option<Grant>);

/// What each group has committed, by topic and partition.
pub(crate) type OffsetsByGroup = BTreeMap<String, Vec<(Key, CommittedOffset)>>;

impl Groups {
    /// Longest metadata string of an offset.
    pub(crate) fn metadata_bytes_max(&self) -> usize {
        self.settings.metadata_bytes_max
    }

    /// Writes offsets now; the future says when they are durable.
    pub(crate) fn commit(
        self: &Arc<Self>,
        mut request: CommitRequest,
    ) -> Result<impl Future<Output = Result<(), GroupError>> + Send + use<>, GroupError> {
        // A consumer without a group (generation -1) may make one; a member's group must be there.
        let found = self.find(&request.group, request.generation < 0)?;
        let cell = found.ok_or(GroupError::NotFound)?;
        let commit_ms = self.clock.now_ms();
        let written = self.step(&cell, |group, now_ms| {
            group.check_commit(
                now_ms,
                &request.member_id,
                request.instance_id.as_deref(),
                request.generation,
            )?;
            if request.offsets.is_empty() {
                return Ok(None);
            }
            let (keys, values, records) = split(&mut request, commit_ms);
            let written = self.write(&cell, &records)?;
            for key in &keys {
                *group.pending_commits.entry(key.clone()).or_insert(0) += 1;
            }
            Ok(Some((written, keys, values)))
        })??;
        Ok(async move {
            let Some((written, keys, values)) = written else { return Ok(()) };
            let is_durable = written.is_durable().await;
            apply(&mut cell.group.lock(), keys, values, written.base_offset, is_durable);
            if is_durable { Ok(()) } else { Err(GroupError::Unavailable) }
        })
    }

    /// The committed offsets of a group; empty if there is no such group.
    pub(crate) fn offsets(&self, group: &str) -> Result<Vec<(Key, CommittedOffset)>, GroupError> {
        let Some(cell) = self.find(group, false)? else { return Ok(Vec::new()) };
        let group = cell.group.lock();
        Ok(group
            .offsets
            .iter()
            .map(|(key, commit)| (key.clone(), commit.committed.clone()))
            .collect())
    }

    /// What all groups have committed, by the partition of the topic that keeps them, and the epoch in which this broker leads
    /// it.
    pub(crate) fn all_offsets(&self) -> Vec<(PartitionId, LeaderEpoch, OffsetsByGroup)> {
        let shards: Vec<_> = self.shards.read().iter().map(|(p, s)| (*p, Arc::clone(s))).collect();
        let is_loaded =
            |shard: &Shard| shard.is_loaded.load(Ordering::Acquire) && shard.is_current();
        let mut all = Vec::new();
        for (partition, shard) in shards.into_iter().filter(|(_, shard)| is_loaded(shard)) {
            let cells: Vec<_> = shard
                .groups
                .lock()
                .iter()
                .map(|(id, cell)| (id.clone(), Arc::clone(cell)))
                .collect();
            let mut groups = OffsetsByGroup::new();
            for (id, cell) in cells {
                let group = cell.group.lock();
                let offsets = group.offsets.iter();
                let offsets = offsets.map(|(key, commit)| (key.clone(), commit.committed.clone()));
                let mut offsets: Vec<_> = offsets.collect();
                offsets.sort_by(|(one, _), (other, _)| one.cmp(other));
                if !offsets.is_empty() {
                    groups.insert(id, offsets);
                }
            }
            all.push((partition, shard.leader_epoch, groups));
        }
        all
    }

    /// Deletes an empty group with its offsets.
    pub(crate) fn delete(
        self: &Arc<Self>,
        id: &str,
    ) -> Result<impl Future<Output = Result<(), GroupError>> + Send + use<>, GroupError> {
        let cell = self.find(id, false)?.ok_or(GroupError::NotFound)?;
        let written = {
            let mut group = cell.group.lock();
            match group.state {
                GroupState::Dead => return Err(GroupError::NotFound),
                GroupState::Empty if group.pending.is_empty() => {}
                _ => return Err(GroupError::NotEmpty),
            }
            let written = self.write(&cell, &tombstones(&group))?;
            group.state = GroupState::Dead;
            written
        };
        forget(&cell, id);
        Ok(
            async move {
                if written.is_durable().await { Ok(()) } else { Err(GroupError::Unavailable) }
            },
        )
    }

    /// Deletes offsets of partitions; for each, whether that is allowed.
    pub(crate) fn delete_offsets(
        self: &Arc<Self>,
        id: &str,
        keys: &[Key],
    ) -> Result<(Vec<Result<(), GroupError>>, impl Future<Output = bool> + Send + use<>), GroupError>
    {
        let cell = self.find(id, false)?.ok_or(GroupError::NotFound)?;
        let (verdicts, deleted, written) = {
            let group = cell.group.lock();
            let subscribed = subscribed(&group)?;
            let verdict = |key: &Key| match &subscribed {
                Some(topics) if topics.contains(&key.0) => Err(GroupError::Subscribed),
                _ => Ok(()),
            };
            let verdicts: Vec<_> = keys.iter().map(verdict).collect();
            let allowed = keys
                .iter()
                .zip(&verdicts)
                .filter(|(_, verdict)| verdict.is_ok())
                .map(|(key, _)| key);
            let deleted: Vec<Key> =
                allowed.filter(|key| group.offsets.contains_key(*key)).cloned().collect();
            let written = if deleted.is_empty() {
                None
            } else {
                Some(self.remove_offsets(&cell, &group, &deleted)?)
            };
            (verdicts, deleted, written)
        };
        let done = async move {
            let Some(written) = written else { return true };
            let is_durable = written.is_durable().await;
            if is_durable {
                drop_offsets(&mut cell.group.lock(), &deleted, written.base_offset);
            }
            is_durable
        };
        Ok((verdicts, done))
    }

    /// Writes tombstones for offsets; the caller holds the group's lock.
    pub(super) fn remove_offsets(
        &self,
        cell: &Cell,
        group: &Group,
        keys: &[Key],
    ) -> Result<super::groups::Written, GroupError> {
        let records: Vec<GroupRecord> = keys.iter().map(|key| tombstone(&group.id, key)).collect();
        self.write(cell, &records)
    }
}

/// Takes a group out of its shard's list.
pub(super) fn forget(cell: &Arc<Cell>, id: &str) {
    let mut groups = cell.shard.groups.lock();
    if groups.get(id).is_some_and(|listed| Arc::ptr_eq(listed, cell)) {
        groups.remove(id);
    }
}

/// Removes offsets that were deleted at `record_offset`, but not those committed since.
pub(super) fn drop_offsets(group: &mut Group, keys: &[Key], record_offset: i64) {
    for key in keys {
        if group.offsets.get(key).is_some_and(|commit| commit.record_offset < record_offset) {
            group.offsets.remove(key);
        }
    }
}

/// Everything that a deleted group leaves in the log.
pub(super) fn tombstones(group: &Group) -> Vec<GroupRecord> {
    let mut keys: Vec<&Key> = group.offsets.keys().chain(group.pending_commits.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut records: Vec<GroupRecord> =
        keys.into_iter().map(|key| tombstone(&group.id, key)).collect();
    records.push(GroupRecord::Group { group: group.id.clone(), value: None });
    records
}

fn tombstone(group: &str, (topic, partition): &Key) -> GroupRecord {
    GroupRecord::Offset {
        group: group.to_owned(),
        topic: topic.clone(),
        partition: *partition,
        value: None,
    }
}

fn split(request: &mut CommitRequest, commit_ms: i64) -> (Vec<Key>, Vec<Value>, Vec<GroupRecord>) {
    let (mut keys, mut values, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let expire_ms = request.retention_ms.map(|retention| commit_ms.saturating_add(retention));
    for (topic, partition, offset, leader_epoch, metadata) in &request.offsets {
        let value = CommittedOffset {
            offset: *offset,
            leader_epoch: *leader_epoch,
            metadata: metadata.clone(),
            commit_ms,
            expire_ms,
        };
        records.push(GroupRecord::Offset {
            group: request.group.clone(),
            topic: topic.clone(),
            partition: *partition,
            value: Some(value.clone()),
        });
        keys.push((topic.clone(), *partition));
        let kept = request.kept.as_mut().map(|all| all.split(commit_bytes(topic, metadata)));
        values.push((value, kept));
    }
    (keys, values, records)
}

fn apply(
    group: &mut Group,
    keys: Vec<Key>,
    values: Vec<Value>,
    base_offset: i64,
    is_durable: bool,
) {
    for (record_offset, (key, (committed, kept))) in
        (base_offset..).zip(keys.into_iter().zip(values))
    {
        if let Some(count) = group.pending_commits.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                group.pending_commits.remove(&key);
            }
        }
        let before = group.offsets.get(&key);
        let is_newer = before.is_none_or(|commit| commit.record_offset < record_offset);
        if is_durable && is_newer && group.state != GroupState::Dead {
            group.offsets.insert(key, Commit { committed, record_offset, _kept: kept });
        }
    }
}

/// The topics that a consumer group subscribes to; `None` if it has no members. Other kinds of groups must be empty.
pub(super) fn subscribed(group: &Group) -> Result<Option<Vec<String>>, GroupError> {
    match group.state {
        GroupState::Dead => Err(GroupError::NotFound),
        GroupState::Empty => Ok(None),
        _ if group.protocol_type.as_deref() == Some("consumer") => {
            let mut topics = Vec::new();
            for member in group.members.values() {
                for (_, metadata) in &member.protocols {
                    topics.extend(subscribed_topics(metadata).unwrap_or_default());
                }
            }
            topics.sort_unstable();
            topics.dedup();
            Ok(Some(topics))
        }
        _ => Err(GroupError::NotEmpty),
    }
}
