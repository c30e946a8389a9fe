//! The answer to a fetch: records are sent from where they lie.
//!
//! Invariants: what is not in memory is read away from the connection's task; what the kernel can send is not copied.

use std::sync::Arc;

use super::fetch::{Fetching, Found};
use super::fetch_sessions::{Followed, TopicKey};
use crate::error::ErrorCode;
use crate::log::LogSlice;
use crate::model::BrokerId;
use crate::model::number::to_i64;
use crate::network::{Answer, Output, Part};
use crate::protocol::{FetchNode, FetchedPartition, FetchedRecords, FetchedTopic, encode_fetch};
use crate::system::clock::uptime_ms;
use crate::system::tasks::blocking;

/// Ranges from this size on are sent by the kernel; smaller ones are read into the response.
const SENDFILE_BYTES_MIN: usize = 32 << 10;

impl Fetching {
    /// Answers with what was found; what is not in memory is read elsewhere first.
    pub(super) fn answer(self, mut found: Vec<Found>) -> Answer {
        let is_cold =
            |slice: &LogSlice| !slice.is_active && !slice.file.is_cached(slice.byte, slice.bytes);
        let any_cold = found.iter().any(|f| f.slice.as_ref().is_some_and(is_cold));
        let any_remote = found.iter().any(|f| f.remote.is_some());
        if !any_cold && !any_remote {
            return Answer::Now(self.respond(&mut found));
        }
        Answer::Later(Box::pin(async move {
            let (fetching, mut found) =
                if any_remote { self.bring(found).await? } else { (self, found) };
            blocking(move || {
                for slice in
                    found.iter().filter_map(|f| f.slice.as_ref()).filter(|slice| is_cold(slice))
                {
                    // Reading brings the range into the page cache, from where it is sent.
                    let _ = slice.read();
                }
                fetching.respond(&mut found)
            })
            .await
        }))
    }

    fn respond(&self, found: &mut Vec<Found>) -> Output {
        let followed = &self.plan.followed;
        self.note_told(found);
        let throttled = found.iter().filter(|f| f.is_throttled).filter_map(|f| f.slice.as_ref());
        let throttled_bytes: usize = throttled.map(|slice| slice.bytes).sum();
        if throttled_bytes > 0 {
            self.context.replicas.throttles.leader.note(uptime_ms(), throttled_bytes);
        }
        if self.plan.is_incremental {
            found.retain(|f| {
                f.slice.is_some()
                    || f.bytes.is_some()
                    || f.diverging.is_some()
                    || f.preferred >= 0
                    || followed.get(f.at).is_some_and(|followed| is_news(f, followed))
            });
        }
        let mut buffers: Vec<Option<Vec<u8>>> = Vec::with_capacity(found.len());
        let mut outside = Vec::new();
        for f in found.iter_mut() {
            if let Some(bytes) = &f.bytes {
                outside.push(Part::Bytes(bytes.clone()));
                buffers.push(None);
                continue;
            }
            let small = f.slice.as_ref().filter(|s| s.bytes < SENDFILE_BYTES_MIN);
            // What the kernel sends can't be taken back: a file that is too short has to be found out before.
            let read = match (small, &f.slice) {
                (Some(slice), _) => slice.read().map(Some),
                (None, Some(slice)) => slice.check().map(|()| None),
                (None, None) => Ok(None),
            };
            let buffer = read.unwrap_or_else(|error| {
                self.unread(f, &error);
                None
            });
            if buffer.is_none()
                && let Some(slice) = &f.slice
            {
                let file = Arc::clone(&slice.file);
                outside.push(Part::File { file, offset: slice.byte, bytes: slice.bytes });
            }
            buffers.push(buffer);
        }
        let topics = self.topics(found, &buffers);
        let nodes = self.nodes(found);
        let chunks = encode_fetch(&self.head, 0, self.plan.session_id, &topics, &nodes);
        assemble(chunks, outside)
    }

    /// A partition's records can't be read: it alone is answered with an error.
    fn unread(&self, found: &mut Found, error: &std::io::Error) {
        let followed = self.plan.followed.get(found.at);
        let (partition, offset) = followed.map_or((-1, -1), |f| (f.partition, f.offset));
        tracing::error!(topic = %found.topic_name, partition, offset, %error, "records not read");
        self.context.replicas.note_unread();
        found.error = ErrorCode::KafkaStorageError;
        found.slice = None;
    }

    fn topics<'a>(
        &'a self,
        found: &'a [Found],
        buffers: &'a [Option<Vec<u8>>],
    ) -> Vec<FetchedTopic<'a>> {
        let mut topics: Vec<FetchedTopic<'a>> = Vec::new();
        let mut last: Option<&TopicKey> = None;
        for (f, buffer) in found.iter().zip(buffers) {
            let Some(followed) = self.plan.followed.get(f.at) else { continue };
            if last != Some(&followed.topic) {
                let (name, id) = match &followed.topic {
                    TopicKey::Name(name) => (&**name, uuid::Uuid::nil()),
                    TopicKey::Id(id) => ("", *id),
                };
                topics.push(FetchedTopic { name, id, partitions: Vec::new() });
                last = Some(&followed.topic);
            }
            let records = match (buffer, &f.slice, &f.bytes) {
                (Some(bytes), ..) => FetchedRecords::Inline(bytes),
                (None, Some(slice), _) => FetchedRecords::External(slice.bytes),
                (None, None, Some(bytes)) => FetchedRecords::External(bytes.len()),
                (None, None, None) => FetchedRecords::Inline(&[]),
            };
            let is_unknown =
                matches!(f.error, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId);
            let partition = FetchedPartition {
                index: followed.partition,
                error: f.error.code(),
                high_watermark: f.high_watermark,
                last_stable_offset: f.high_watermark,
                log_start: f.log_start,
                has_aborted: is_unknown || (self.limits.is_read_committed && f.error.is_none()),
                leader: f.leader,
                preferred: f.preferred,
                diverging: f.diverging.map(|at| (at.epoch, at.end)),
                records,
            };
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(partition);
            }
        }
        topics
    }

    fn note_told(&self, found: &[Found]) {
        if self.plan.session_id == 0 {
            return;
        }
        let told = |f: &Found| {
            let mut followed = self.plan.followed.get(f.at)?.clone();
            followed.told_high_watermark = f.high_watermark;
            followed.told_log_start = f.log_start;
            followed.told_error = !f.error.is_none();
            Some((followed, f.slice.is_some() || f.bytes.is_some()))
        };
        self.context.sessions.told(self.plan.session_id, found.iter().filter_map(told).collect());
    }

    /// Where the leaders are that the asker has to turn to (KIP-951).
    fn nodes(&self, found: &[Found]) -> Vec<FetchNode> {
        let mut ids: Vec<BrokerId> = found.iter().filter_map(|f| Some(f.leader?.0)).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        ids.sort_unstable();
        ids.dedup();
        let image = self.context.image();
        ids.into_iter().filter_map(|id| self.context.broker(&self.call, &image, id)).collect()
    }
}

fn is_news(found: &Found, followed: &Followed) -> bool {
    !found.error.is_none()
        || followed.told_error
        || found.high_watermark != followed.told_high_watermark
        || found.log_start != followed.told_log_start
}

/// Puts the records that were left out between the chunks.
pub(super) fn assemble(chunks: Vec<bytes::BytesMut>, outside: Vec<Part>) -> Output {
    let mut chunks = chunks.into_iter().map(bytes::BytesMut::freeze);
    let mut output = Output::bytes(chunks.next().unwrap_or_default());
    for (part, chunk) in outside.into_iter().zip(chunks) {
        output.rest.push(part);
        output.rest.push(Part::Bytes(chunk));
    }
    debug_assert_eq!(
        to_i64(output.len()),
        i64::from(crate::model::number::be32(&output.head, 0)) + 4
    );
    output
}
