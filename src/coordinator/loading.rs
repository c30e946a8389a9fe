//! Reading groups back from the log.
//!
//! Invariants: the groups after a load are those that the records below the high watermark make; a shard answers
//! "loading" until all of it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::group::Group;
use super::groups::{Cell, Groups, Shard};
use super::records::GroupRecord;
use crate::model::Offset;
use crate::record::{Records, next_batch};
use crate::replication::PartitionError;
use crate::system::clock::uptime_ms;

const READ_BYTES: usize = 1 << 20;
/// Batches here are the broker's own; this only bounds what a damaged one could claim.
const PLAIN_BYTES_MAX: usize = 256 << 20;

impl Groups {
    /// Loads every partition of the topic that is not loaded yet. Blocks.
    pub(crate) fn load(self: &Arc<Self>) {
        let partitions = self.topic_partitions();
        let added = {
            let mut shards = self.shards.write();
            let known = shards.len();
            for partition in partitions.into_iter().skip(known) {
                let is_loaded = AtomicBool::new(false);
                shards.push(Arc::new(Shard { partition, groups: Mutex::default(), is_loaded }));
            }
            shards.iter().skip(known).cloned().collect::<Vec<_>>()
        };
        for shard in added {
            match self.load_shard(&shard) {
                Ok(()) => shard.is_loaded.store(true, Ordering::Release),
                Err(error) => {
                    tracing::error!(partition = %shard.partition.name, %error, "groups not loaded: they stay unavailable");
                }
            }
        }
    }

    fn load_shard(self: &Arc<Self>, shard: &Arc<Shard>) -> Result<(), PartitionError> {
        let (mut offset, ..) = shard.partition.bounds(-1)?;
        while let Some(slice) = shard.partition.read(offset, READ_BYTES, true, -1)?.slice {
            let bytes = slice.read().map_err(|_| PartitionError::Offline)?;
            let mut rest = bytes.as_slice();
            let before = offset;
            while let Some((header, batch, after)) = next_batch(rest) {
                rest = after;
                offset = header.last_offset() + 1;
                let records = Records::open(header, batch, PLAIN_BYTES_MAX)
                    .map_err(|_| PartitionError::Offline)?;
                for record in &records {
                    let record = record.map_err(|_| PartitionError::Offline)?;
                    self.replay(shard, record.offset, record.key.unwrap_or_default(), record.value);
                }
            }
            if offset == before {
                return Err(PartitionError::Offline);
            }
        }
        self.start_loaded(shard);
        Ok(())
    }

    /// Takes one record in.
    pub(super) fn replay(
        &self,
        shard: &Arc<Shard>,
        offset: Offset,
        key: &[u8],
        value: Option<&[u8]>,
    ) {
        let Some(record) = GroupRecord::decode(key, value) else {
            tracing::warn!(partition = %shard.partition.name, offset, "record of an unknown kind skipped");
            return;
        };
        let mut groups = shard.groups.lock();
        let mut cell = |id: &str| {
            let new = || {
                let group = Mutex::new(Group::new(id, self.clock.now_ms()));
                Arc::new(Cell { shard: Arc::clone(shard), group })
            };
            Arc::clone(groups.entry(id.to_owned()).or_insert_with(new))
        };
        match record {
            GroupRecord::Offset { group, topic, partition, value } => {
                let cell = cell(&group);
                let mut group = cell.group.lock();
                match value {
                    Some(value) => drop(group.offsets.insert((topic, partition), (value, offset))),
                    None => drop(group.offsets.remove(&(topic, partition))),
                }
            }
            GroupRecord::Group { group, value: Some(stored) } => {
                cell(&group).group.lock().restore(stored, uptime_ms());
            }
            GroupRecord::Group { group, value: None } => {
                let cell = cell(&group);
                let mut group = cell.group.lock();
                let offsets = std::mem::take(&mut group.offsets);
                *group = Group::new(&group.id, self.clock.now_ms());
                group.offsets = offsets;
            }
        }
    }

    /// Drops groups of which nothing is left, and gives the members of the others their full session from now.
    fn start_loaded(self: &Arc<Self>, shard: &Arc<Shard>) {
        let cells: Vec<Arc<Cell>> = {
            let mut groups = shard.groups.lock();
            groups.retain(|_, cell| {
                let group = cell.group.lock();
                !(group.is_forgettable() && group.generation == 0)
            });
            groups.values().cloned().collect()
        };
        for cell in cells {
            let _ = self.step(&cell, |group, now_ms| {
                for member in group.members.values_mut() {
                    member.heard(now_ms);
                }
                group.wake_at_ms = group.members.values().map(|member| member.deadline_ms).min();
            });
        }
    }
}
