//! One partition's segments in a bucket: claimed by its leader, read by everybody.
//!
//! Invariants: only what was read back from the store counts as there; the manifest is changed by the leader that claimed it in
//! its epoch, by compare-and-swap, so a leader that is none any more changes nothing; an object that no manifest names was never
//! told to anybody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::backup::topic_note;
use super::compacting::Pass;
use super::copying::{Copying, panicked};
use super::counts::TierCounts;
use super::disk_cache::DiskCache;
use super::encryption::Keyring;
use super::error::RemoteError;
use super::manifest::{LOG_ENDING, Manifest, RemoteSegment};
use super::reader::{Reader, told};
use crate::log::{LeaderEpochs, ProducerStates, SegmentSource};
use crate::model::number::to_u64;
use crate::model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId};
use crate::objects::{Listed, Store, StoreError, Version};
use crate::record::next_batch;
use crate::system::Throttle;
use crate::system::clock::{Instant, monotonic};
use crate::system::tasks::blocking;

/// Read at a time to learn of producers.
const REPLAY_BYTES: usize = 1 << 20;

/// A bucket, and how it is read.
#[derive(Debug)]
pub(crate) struct Tier {
    pub store: Store,
    /// The same store, for work that takes no processor from anybody.
    pub(super) idle: Store,
    pub reader: Arc<Reader>,
    pub counts: Arc<TierCounts>,
    /// What opens segments that are encrypted, and encrypts new ones.
    pub keyring: Arc<Keyring>,
    /// Holds copies to `remote.log.manager.copy.max.bytes.per.second`.
    pub(super) copies: Arc<Throttle>,
    /// Held by the pass of compaction that is under way.
    pub(super) compacting: Arc<Semaphore>,
}

impl Tier {
    pub(crate) fn new(store: Store, cache_bytes: u64) -> Arc<Self> {
        Self::with_idle((store.clone(), store), cache_bytes)
    }

    pub(crate) fn with_idle((store, idle): (Store, Store), cache_bytes: u64) -> Arc<Self> {
        let counts = Arc::<TierCounts>::default();
        let keyring = Arc::<Keyring>::default();
        let shared = (Arc::clone(&counts), Arc::clone(&keyring));
        let reader = Reader::new(store.clone(), shared, cache_bytes);
        let idle = idle.counted_with(&store);
        let compacting = Arc::new(Semaphore::new(1));
        Arc::new(Self { store, idle, reader, counts, keyring, copies: Arc::default(), compacting })
    }

    /// A bucket that is only read, beside this one: with the same memory, keys and limits.
    pub(crate) fn beside(&self, store: Store) -> Arc<Self> {
        let store = store.counted_with(&self.store);
        Arc::new(Self {
            idle: store.clone(),
            reader: self.reader.beside(store.clone()),
            store,
            counts: Arc::clone(&self.counts),
            keyring: Arc::clone(&self.keyring),
            copies: Arc::clone(&self.copies),
            compacting: Arc::clone(&self.compacting),
        })
    }

    /// Gives readers a disk beside their memory.
    pub(crate) fn set_disk_cache(&self, cache: Arc<DiskCache>) {
        self.reader.set_disk_cache(cache);
    }

    /// Bytes a second that are copied, and that are read.
    pub(crate) fn set_rates(&self, (copied, read): (i64, i64)) {
        self.copies.set_rate(copied);
        self.reader.set_rate(read);
    }
}

/// See the file's header.
#[derive(Debug)]
pub(crate) struct RemotePartition {
    pub(super) tier: Arc<Tier>,
    pub(super) topic: Arc<str>,
    topic_id: TopicId,
    pub(super) partition: PartitionId,
    known: Mutex<Option<Known>>,
    /// Whether a replica is learning from here how its log is to begin.
    pub restoring: AtomicBool,
    /// Held by whoever changes the manifest.
    changing: tokio::sync::Mutex<()>,
    /// How often the manifest may have become another one than that which follows from what this leader did.
    pub(super) claims: AtomicU64,
    /// After how many claims it was found out what of its segments counts.
    measured: AtomicU64,
    pub(super) pass: Mutex<Option<Pass>>,
}

#[derive(Debug, Clone)]
struct Known {
    manifest: Arc<Manifest>,
    version: Option<Version>,
    since: Instant,
}

/// What a log that begins in the middle has to know of what was before.
#[derive(Debug, Default)]
pub(crate) struct RestoredState {
    pub epochs: LeaderEpochs,
    pub producers: ProducerStates,
}

impl RemotePartition {
    pub(crate) fn new(
        tier: &Arc<Tier>,
        topic: &Arc<str>,
        topic_id: TopicId,
        partition: PartitionId,
    ) -> Self {
        Self {
            tier: Arc::clone(tier),
            topic: Arc::clone(topic),
            topic_id,
            partition,
            known: Mutex::default(),
            restoring: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
            claims: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            pass: Mutex::default(),
        }
    }

    fn name(&self) -> String {
        format!("{}/manifest.json", Manifest::folder(&self.topic, self.topic_id, self.partition))
    }

    pub(crate) fn reader(&self) -> &Arc<Reader> {
        &self.tier.reader
    }

    /// The manifest as it was last read.
    pub(crate) fn manifest(&self) -> Option<Arc<Manifest>> {
        self.known.lock().as_ref().map(|known| Arc::clone(&known.manifest))
    }

    /// The manifest, if this leader has claimed it.
    pub(crate) fn claimed(&self, leader_epoch: LeaderEpoch) -> Option<Arc<Manifest>> {
        self.manifest().filter(|manifest| manifest.leader_epoch == leader_epoch)
    }

    /// Reads the manifest anew; an empty one where there is none.
    pub(crate) async fn refresh(&self) -> Result<Arc<Manifest>, RemoteError> {
        self.not_older(Duration::ZERO).await
    }

    /// The manifest as it was at most so long ago.
    pub(crate) async fn not_older(&self, age: Duration) -> Result<Arc<Manifest>, RemoteError> {
        let asked = monotonic();
        let _changing = self.changing.lock().await;
        let known = self.known.lock().clone();
        if let Some(known) = known.filter(|known| known.since + age > asked) {
            return Ok(known.manifest);
        }
        let known = self.load().await?;
        let manifest = Arc::clone(&known.manifest);
        *self.known.lock() = Some(known);
        Ok(manifest)
    }

    async fn load(&self) -> Result<Known, RemoteError> {
        let (name, since) = (self.name(), monotonic());
        match self.tier.store.get(&name).await {
            Ok((bytes, version)) => {
                let manifest = Manifest::decode(&bytes)
                    .map_err(|reason| RemoteError::Damaged { object: name, reason })?;
                Ok(Known { manifest: Arc::new(manifest), version: Some(version), since })
            }
            Err(StoreError::NotFound(_)) => {
                let manifest = Manifest::new(&self.topic, self.topic_id, self.partition);
                Ok(Known { manifest: Arc::new(manifest), version: None, since })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What it means that an object is not there: where the manifest does not name it any more, it is gone because it may.
    pub(super) async fn missing(&self, object: String) -> RemoteError {
        let names = |manifest: &Manifest| {
            manifest.segments.iter().any(|segment| manifest.object(segment) == object)
        };
        match self.load().await {
            Ok(now) if !names(&now.manifest) => RemoteError::Changed(self.topic.to_string()),
            Ok(_) | Err(_) => RemoteError::Store(StoreError::NotFound(object)),
        }
    }

    /// Makes the manifest that of the leader of `leader_epoch`, and takes out of it what its log contradicts. It may go on past
    /// the end of the log: after an unclean election, or where all lost what was not flushed, the bucket knows more.
    pub(crate) async fn claim(
        &self,
        leader_epoch: LeaderEpoch,
        (epochs, log_end): (&LeaderEpochs, Offset),
        now_ms: Timestamp,
    ) -> Result<Arc<Manifest>, RemoteError> {
        let _changing = self.changing.lock().await;
        self.claims.fetch_add(1, Ordering::AcqRel);
        let known = self.load().await?;
        if known.manifest.leader_epoch > leader_epoch {
            return Err(self.fenced(known.manifest.leader_epoch));
        }
        let mut manifest = Manifest::clone(&known.manifest);
        manifest.leader_epoch = leader_epoch;
        let before = manifest.end();
        manifest.follow_lineage((|offset| epochs.epoch_at(offset), log_end), now_ms);
        if before != manifest.end() {
            let (topic, partition, now) = (&self.topic, self.partition, manifest.end());
            tracing::error!(%topic, partition, before, now, "the leader's log contradicts what is in object storage, and is the truth: an unclean election");
        }
        self.swap(known, manifest).await
    }

    /// The same for a topic that is brought back: its leader's log is empty, and what the bucket has is the truth.
    pub(crate) async fn claim_to_restore(
        &self,
        leader_epoch: LeaderEpoch,
        now_ms: Timestamp,
    ) -> Result<Arc<Manifest>, RemoteError> {
        if self.tier.topic_note(&self.topic, self.topic_id).await?.is_none()
            && self.load().await?.version.is_none()
        {
            let partition = format!("{}-{}", self.topic, self.partition);
            return Err(RemoteError::NotThere { partition });
        }
        self.claim(leader_epoch, (&LeaderEpochs::default(), Offset::MAX), now_ms).await
    }

    /// Reads the manifest of a topic that another cluster writes; an error if its bucket has nothing of it.
    pub(crate) async fn look(&self) -> Result<Arc<Manifest>, RemoteError> {
        let manifest = self.refresh().await?;
        let is_there = self.known.lock().as_ref().is_some_and(|known| known.version.is_some());
        if !is_there && self.tier.topic_note(&self.topic, self.topic_id).await?.is_none() {
            let partition = format!("{}-{}", self.topic, self.partition);
            return Err(RemoteError::NotThere { partition });
        }
        Ok(manifest)
    }

    /// Gives the claim up: it has to be made again.
    pub(crate) fn disclaim(&self) {
        *self.known.lock() = None;
    }

    /// Changes the manifest that this leader has claimed.
    pub(crate) async fn change(
        &self,
        leader_epoch: LeaderEpoch,
        change: impl FnOnce(&mut Manifest) -> Result<(), String>,
    ) -> Result<Arc<Manifest>, RemoteError> {
        let _changing = self.changing.lock().await;
        let known = self.known.lock().clone();
        let known = known.filter(|known| known.manifest.leader_epoch == leader_epoch);
        let known = known.ok_or_else(|| RemoteError::Unknown(self.name()))?;
        let mut manifest = Manifest::clone(&known.manifest);
        change(&mut manifest)
            .map_err(|reason| RemoteError::Damaged { object: self.name(), reason })?;
        if manifest == *known.manifest {
            return Ok(known.manifest);
        }
        self.swap(known, manifest).await
    }

    async fn swap(&self, known: Known, manifest: Manifest) -> Result<Arc<Manifest>, RemoteError> {
        let (name, bytes) = (self.name(), Bytes::from(manifest.encode()));
        let put = match &known.version {
            Some(version) => self.tier.store.replace(&name, bytes, version).await,
            None => self.tier.store.create(&name, bytes).await,
        };
        let known = match put {
            Ok(version) => {
                let manifest = Arc::new(manifest);
                Known { manifest, version: Some(version), since: monotonic() }
            }
            Err(error) => {
                // What failed may have been done all the same: only what the store says now is known.
                *self.known.lock() = None;
                let now = self.load().await?;
                if now.manifest.leader_epoch > manifest.leader_epoch {
                    return Err(self.fenced(now.manifest.leader_epoch));
                }
                if *now.manifest != manifest {
                    return Err(error.into());
                }
                now
            }
        };
        let manifest = Arc::clone(&known.manifest);
        *self.known.lock() = Some(known);
        Ok(manifest)
    }

    fn fenced(&self, leader_epoch: LeaderEpoch) -> RemoteError {
        let partition = format!("{}-{}", self.topic, self.partition);
        RemoteError::Fenced { partition, leader_epoch }
    }

    /// Copies a segment, looks whether it arrived, and names it in the manifest. Where the partition falls behind that takes its
    /// share of the processors, else only what nobody wants.
    pub(crate) async fn copy(
        &self,
        source: SegmentSource,
        (leader_epoch, id): (LeaderEpoch, Uuid),
        falls_behind: bool,
    ) -> Result<Arc<Manifest>, RemoteError> {
        let manifest =
            self.claimed(leader_epoch).ok_or_else(|| RemoteError::Unknown(self.name()))?;
        let SegmentSource { from, end, is_compacted, .. } = source;
        let epochs = source.epochs.clone();
        // Not in the background: whoever opens a file holds a lock that readers wait for.
        let opened = blocking(move || source.open()).await;
        let opened = opened.unwrap_or_else(|| Err(panicked().into()))?;
        let opened = Arc::new(opened.ok_or_else(|| RemoteError::Changed(self.name()))?);
        let mut segment = RemoteSegment {
            id,
            base_offset: from,
            end_offset: end,
            object_offset: opened.index.base_offset,
            leader_epoch,
            max_timestamp: opened.max_timestamp,
            log_bytes: opened.bytes,
            counted_bytes: Some(opened.counted_bytes).filter(|counted| *counted < opened.bytes),
            object_bytes: 0,
            epochs,
            is_compacted,
            encryption: self.tier.keyring.new_key(id)?,
        };
        let store = if falls_behind { &self.tier.store } else { &self.tier.idle };
        let copy = Copying {
            store: store.clone(),
            counts: Arc::clone(&self.tier.counts),
            keyring: Arc::clone(&self.tier.keyring),
            throttle: Arc::clone(&self.tier.copies),
            topic: Arc::clone(&self.topic),
            object: manifest.object(&segment),
            opened,
            owner: (self.topic_id, self.partition),
        };
        let sent = segment.clone();
        let sent = store.background().run(async move { copy.run(sent).await });
        segment.object_bytes = sent.await.unwrap_or_else(|| Err(panicked().into()))?;
        let bytes = segment.object_bytes;
        let manifest = self.change(leader_epoch, |manifest| manifest.add(segment)).await?;
        self.tier.counts.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(manifest)
    }

    /// Deletes objects that no reader has needed for `delay_ms`, and then forgets them.
    pub(crate) async fn sweep(
        &self,
        leader_epoch: LeaderEpoch,
        delay_ms: i64,
        now_ms: Timestamp,
    ) -> Result<usize, RemoteError> {
        let Some(manifest) = self.claimed(leader_epoch) else { return Ok(0) };
        let due = manifest.removed.iter().filter(|r| r.since_ms.saturating_add(delay_ms) <= now_ms);
        let due: Vec<String> = due.map(|removed| removed.object.clone()).collect();
        if due.is_empty() {
            return Ok(0);
        }
        self.tier.store.delete(&due).await?;
        self.change(leader_epoch, |manifest| {
            manifest.removed.retain(|removed| !due.contains(&removed.object));
            Ok(())
        })
        .await?;
        Ok(due.len())
    }

    /// Finds out how many bytes count of segments of which only some do; how many segments that are.
    pub(crate) async fn measure(&self, leader_epoch: LeaderEpoch) -> Result<usize, RemoteError> {
        let Some(manifest) = self.claimed(leader_epoch) else { return Ok(0) };
        let claims = self.claims.load(Ordering::Acquire);
        if self.measured.load(Ordering::Acquire) == claims {
            return Ok(0);
        }
        let mut measured = HashMap::new();
        for segment in manifest.segments.iter().filter(|segment| segment.is_unmeasured()) {
            let object = manifest.object(segment);
            let counted = self.tier.reader.counted_bytes(&object, segment).await;
            measured.insert(segment.id, counted.map_err(|error| told(&object, &error))?);
        }
        if !measured.is_empty() {
            let note = |manifest: &mut Manifest| {
                for segment in &mut manifest.segments {
                    segment.counted_bytes =
                        measured.get(&segment.id).copied().or(segment.counted_bytes);
                }
                Ok(())
            };
            self.change(leader_epoch, note).await?;
        }
        self.measured.store(claims, Ordering::Release);
        Ok(measured.len())
    }

    /// Takes everything away that the partition has, and at last its manifest; whether nothing is left.
    pub(crate) async fn leave(
        &self,
        leader_epoch: LeaderEpoch,
        delay_ms: i64,
        now_ms: Timestamp,
    ) -> Result<bool, RemoteError> {
        if self.claimed(leader_epoch).is_none() {
            if self.load().await?.version.is_none() {
                return Ok(true);
            }
            let whatever = (&LeaderEpochs::default(), Offset::MAX);
            self.claim(leader_epoch, whatever, now_ms).await?;
        }
        self.change(leader_epoch, |manifest| {
            manifest.advance(manifest.end().unwrap_or(0), now_ms);
            Ok(())
        })
        .await?;
        self.sweep(leader_epoch, delay_ms, now_ms).await?;
        if self.claimed(leader_epoch).is_none_or(|manifest| !manifest.removed.is_empty()) {
            return Ok(false);
        }
        let mut last = vec![self.name()];
        if self.partition == 0 {
            last.push(topic_note(&self.topic, self.topic_id));
        }
        let _changing = self.changing.lock().await;
        *self.known.lock() = None;
        self.tier.store.delete(&last).await?;
        Ok(true)
    }

    /// Deletes what a leader sent that did not come to name it: nobody was ever told of it. Only what is older than
    /// `age_ms` by the store's clock, and still not named by the manifest that is read after the list.
    pub(crate) async fn sweep_orphans(
        &self,
        leader_epoch: LeaderEpoch,
        age_ms: i64,
        now_ms: Timestamp,
    ) -> Result<usize, RemoteError> {
        if self.claimed(leader_epoch).is_none() {
            return Ok(0);
        }
        let folder = Manifest::folder(&self.topic, self.topic_id, self.partition);
        let listed = self.tier.store.list(&folder).await?;
        let old = |object: &&Listed| now_ms.saturating_sub(object.modified_ms) > age_ms;
        self.tier.abort_uploads(listed.iter().filter(old)).await?;
        let manifest = self.refresh().await?;
        if manifest.leader_epoch != leader_epoch {
            return Ok(0);
        }
        let named: HashSet<String> = manifest.objects().collect();
        let is_orphan = |object: &Listed| {
            object.name.ends_with(LOG_ENDING)
                && !named.contains(&object.name)
                && now_ms.saturating_sub(object.modified_ms) > age_ms
        };
        let orphans: Vec<String> =
            listed.into_iter().filter(is_orphan).map(|object| object.name).collect();
        if !orphans.is_empty() {
            self.tier.store.delete(&orphans).await?;
            self.tier.counts.orphans.fetch_add(to_u64(orphans.len()), Ordering::Relaxed);
        }
        Ok(orphans.len())
    }

    /// What a follower has to know whose log begins at `start`: epochs and producers of what is in remote storage only.
    pub(crate) async fn state_at(&self, start: Offset) -> Result<RestoredState, RemoteError> {
        let manifest = self.refresh().await?;
        if manifest.end().unwrap_or(manifest.log_start) < start || manifest.log_start > start {
            return Err(RemoteError::OutOfRange(start));
        }
        let mut epochs = LeaderEpochs::default();
        for (epoch, begins) in manifest.segments.iter().flat_map(|segment| &segment.epochs) {
            if *begins < start {
                epochs.assign(*epoch, *begins);
            }
        }
        let (mut producers, mut at) = (ProducerStates::default(), manifest.log_start);
        let told = |error: Arc<RemoteError>| RemoteError::Damaged {
            object: self.name(),
            reason: error.to_string(),
        };
        for segment in manifest.segments.iter().rev().filter(|s| s.end_offset <= start) {
            let object = manifest.object(segment);
            let trailer = self.tier.reader.trailer(&object, segment).await.map_err(told)?;
            if trailer.end_offset <= start {
                (producers, at) = (trailer.producers.clone(), trailer.end_offset);
                break;
            }
        }
        while at < start {
            let bytes =
                self.tier.reader.read(&manifest, at, REPLAY_BYTES, start).await.map_err(told)?;
            let mut rest = &*bytes;
            while let Some((header, _, after)) = next_batch(rest) {
                rest = after;
                if header.base_offset >= at {
                    producers.note(&header);
                }
                at = header.last_offset() + 1;
            }
        }
        Ok(RestoredState { epochs, producers })
    }
}
