//! Compaction of what is in a bucket: in passes, each of many small steps, between which the partition's copies go on.
//!
//! Invariants: one pass at a time on this broker; a pass notes the keys of what no pass has seen yet, and then rewrites all
//! segments below, oldest first, so that a tombstone's turn comes after that of what it deletes; a pass that is broken off changes
//! no more than it has changed, and is begun anew; after a new claim of the manifest, whose segments may be others, a pass that
//! began before it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::copying::panicked;
use super::error::RemoteError;
use super::manifest::{Manifest, RemoteSegment};
use super::partition::RemotePartition;
use super::reader::told;
use super::rewriting::Work;
use crate::log::ProducerStates;
use crate::log::compaction::{Compaction, CompactionRules};
use crate::model::number::{to_f64, to_i64};
use crate::model::{LeaderEpoch, Offset};
use crate::objects::StoreError;

/// Offsets of one segment, whose index has 31 bits for them.
const OFFSETS_MAX: i64 = 1 << 30;

/// When a pass is worth it, and how it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompactionSettings {
    pub rules: CompactionRules,
    pub map_bytes_max: i64,
    pub dirty_ratio_min: f64,
    pub min_lag_ms: i64,
    pub max_lag_ms: i64,
    pub segment_bytes: u64,
    pub index_interval_bytes: u64,
}

/// A pass under way.
#[derive(Debug)]
pub(super) struct Pass {
    _permit: OwnedSemaphorePermit,
    leader_epoch: LeaderEpoch,
    /// Of how many claims it knows.
    claims: u64,
    compaction: Compaction,
    /// Up to where keys are noted, and are to be.
    noted_to: Offset,
    target: Offset,
    /// Up to where segments are rewritten.
    rewritten_to: Offset,
}

/// What a step leads to.
enum Step {
    Noted,
    /// Up to here everything is as it should be.
    Kept(Offset),
    Rewritten(Vec<Uuid>, RemoteSegment),
}

/// Up to where a pass would go, if it is worth one.
fn wanted(manifest: &Manifest, settings: &CompactionSettings) -> Option<Offset> {
    let now_ms = settings.rules.now_ms;
    let age = |segment: &RemoteSegment| now_ms.saturating_sub(segment.max_timestamp);
    let is_fresh = |segment: &RemoteSegment| {
        settings.min_lag_ms > 0 && segment.max_timestamp >= 0 && age(segment) < settings.min_lag_ms
    };
    let old: Vec<_> = manifest.segments.iter().take_while(|segment| !is_fresh(segment)).collect();
    let is_dirty = |segment: &&&RemoteSegment| segment.end_offset > manifest.cleaned_to;
    let first = old.iter().find(is_dirty)?;
    let dirty: u64 = old.iter().filter(is_dirty).map(|segment| segment.log_bytes).sum();
    let all: u64 = old.iter().map(|segment| segment.log_bytes).sum();
    let ratio = to_f64(to_i64(dirty)) / to_f64(to_i64(all.max(1)));
    let is_overdue = first.max_timestamp >= 0 && age(first) > settings.max_lag_ms;
    let is_worth_it =
        ratio > settings.dirty_ratio_min || settings.dirty_ratio_min <= 0.0 || is_overdue;
    old.last().filter(|_| is_worth_it).map(|last| last.end_offset)
}

/// The segments from an offset on that become one.
fn group(manifest: &Manifest, from: Offset, to: Offset, bytes_max: u64) -> &[RemoteSegment] {
    let all = &manifest.segments;
    let first = all.partition_point(|segment| segment.end_offset <= from);
    let rest = all.get(first..).unwrap_or_default();
    let base = rest.first().map_or(0, |segment| segment.base_offset);
    let (mut bytes, mut count) = (0, 0);
    for segment in rest.iter().take_while(|segment| segment.end_offset <= to) {
        bytes += segment.log_bytes;
        let fits = bytes <= bytes_max && segment.end_offset - base <= OFFSETS_MAX;
        if count > 0 && !fits {
            break;
        }
        count += 1;
    }
    rest.get(..count).unwrap_or_default()
}

impl RemotePartition {
    /// Does the next step of a pass, or begins one if it is worth it and no other partition's is under way; whether there is more
    /// to do.
    pub(crate) async fn compact(
        &self,
        leader_epoch: LeaderEpoch,
        id: Uuid,
        settings: CompactionSettings,
    ) -> Result<bool, RemoteError> {
        match self.next_step(leader_epoch, id, settings).await {
            Err(RemoteError::Store(StoreError::NotFound(object))) => {
                Err(self.missing(object).await)
            }
            stepped => stepped,
        }
    }

    async fn next_step(
        &self,
        leader_epoch: LeaderEpoch,
        id: Uuid,
        settings: CompactionSettings,
    ) -> Result<bool, RemoteError> {
        // Before the manifest is looked at: what is claimed after that ends the pass.
        let claims = self.claims.load(Ordering::Acquire);
        let Some(manifest) = self.claimed(leader_epoch) else { return Ok(false) };
        let pass = self.pass.lock().take();
        let is_good = |pass: &Pass| pass.leader_epoch == leader_epoch && pass.claims == claims;
        let pass = pass.filter(is_good);
        let pass = pass.or_else(|| self.begin_pass((&manifest, claims), &settings));
        let Some(pass) = pass else { return Ok(false) };
        let work = Work {
            tier: Arc::clone(&self.tier),
            manifest,
            index_interval_bytes: settings.index_interval_bytes,
        };
        let producers = self.producers_of_cut(&work, &pass, settings.segment_bytes).await?;
        let background = self.tier.idle.background();
        let stepped = background.run(async move {
            let mut pass = pass;
            pass.compaction.rules.now_ms = settings.rules.now_ms;
            let step = pass.step(&work, (id, settings.segment_bytes), producers).await;
            step.map(|step| (pass, step))
        });
        let (mut pass, step) = stepped.await.unwrap_or_else(|| Err(panicked().into()))?;
        match step {
            Step::Noted => {}
            Step::Kept(to) => pass.rewritten_to = to,
            Step::Rewritten(old, new) => {
                pass.rewritten_to = new.end_offset;
                self.change_in(&pass, |manifest| {
                    manifest.replace(&old, new, settings.rules.now_ms)
                })
                .await?;
            }
        }
        if pass.rewritten_to < pass.target {
            *self.pass.lock() = Some(pass);
            return Ok(true);
        }
        self.change_in(&pass, |manifest| {
            manifest.cleaned_to = pass.target;
            Ok(())
        })
        .await?;
        tracing::info!(topic = %self.topic, partition = self.partition, to = pass.target, "compacted in object storage");
        Ok(true)
    }

    /// Ends a pass that is under way, which others may wait for.
    pub(crate) fn end_pass(&self) {
        self.pass.lock().take();
    }

    fn begin_pass(
        &self,
        (manifest, claims): (&Manifest, u64),
        settings: &CompactionSettings,
    ) -> Option<Pass> {
        let permit = Arc::clone(&self.tier.compacting).try_acquire_owned().ok()?;
        let target = wanted(manifest, settings)?;
        Some(Pass {
            _permit: permit,
            leader_epoch: manifest.leader_epoch,
            claims,
            compaction: Compaction::new(settings.rules, settings.map_bytes_max),
            noted_to: manifest.cleaned_to,
            target,
            rewritten_to: 0,
        })
    }

    /// Changes the manifest if it is the one that the pass knows.
    async fn change_in(
        &self,
        pass: &Pass,
        change: impl FnOnce(&mut Manifest) -> Result<(), String>,
    ) -> Result<(), RemoteError> {
        let claims = &self.claims;
        let changed = self.change(pass.leader_epoch, |manifest| {
            if claims.load(Ordering::Acquire) != pass.claims {
                return Err("it was claimed anew".to_owned());
            }
            change(manifest)
        });
        changed.await.map(drop).map_err(|error| match error {
            // What was written meanwhile is nobody's, and is swept.
            RemoteError::Damaged { .. } => RemoteError::Changed(self.topic.to_string()),
            error => error,
        })
    }

    /// Producers at the end of what is rewritten next, if its last segment was cut after it was copied: then they are not those
    /// that stand in its object.
    async fn producers_of_cut(
        &self,
        work: &Work,
        pass: &Pass,
        segment_bytes: u64,
    ) -> Result<Option<ProducerStates>, RemoteError> {
        let next = pass.next_group(&work.manifest, segment_bytes);
        let Some(last) = next.last() else { return Ok(None) };
        let object = work.manifest.object(last);
        let trailer = self.tier.reader.trailer(&object, last).await;
        let trailer = trailer.map_err(|error| told(&object, &error))?;
        if trailer.end_offset == last.end_offset {
            return Ok(None);
        }
        Ok(Some(self.state_at(last.end_offset).await?.producers))
    }
}

impl Pass {
    /// What is rewritten next; nothing while keys are noted.
    fn next_group<'a>(&self, manifest: &'a Manifest, segment_bytes: u64) -> &'a [RemoteSegment] {
        if self.noted_to < self.target {
            return &[];
        }
        group(manifest, self.rewritten_to, self.target, segment_bytes)
    }

    async fn step(
        &mut self,
        work: &Work,
        (id, segment_bytes): (Uuid, u64),
        producers: Option<ProducerStates>,
    ) -> Result<Step, RemoteError> {
        if self.noted_to < self.target {
            let segments = &work.manifest.segments;
            let next = segments.partition_point(|segment| segment.end_offset <= self.noted_to);
            let Some(segment) = segments.get(next) else {
                self.target = self.noted_to;
                return Ok(Step::Noted);
            };
            work.note(segment, &mut self.compaction).await?;
            self.noted_to = segment.end_offset;
            if self.compaction.is_full() {
                self.target = self.noted_to;
            }
            return Ok(Step::Noted);
        }
        let group = self.next_group(&work.manifest, segment_bytes);
        let Some(last) = group.last() else { return Ok(Step::Kept(self.target)) };
        if let [only] = group
            && !work.would_change(only, &self.compaction).await?
        {
            return Ok(Step::Kept(last.end_offset));
        }
        let written = work.rewrite((group, id), &self.compaction, producers.as_ref()).await?;
        let old = group.iter().map(|segment| segment.id).collect();
        Ok(written.map_or(Step::Kept(last.end_offset), |new| Step::Rewritten(old, new)))
    }
}
