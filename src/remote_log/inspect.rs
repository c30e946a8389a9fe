//! Looks at a bucket from outside, without a broker.
//!
//! Invariants: nothing is changed; a segment counts as good when every byte of its object was read and compared.

use std::collections::HashSet;
use std::sync::Arc;

use super::backup::{TopicNote, is_topic_note};
use super::error::RemoteError;
use super::manifest::{LOG_ENDING, Manifest};
use super::partition::Tier;
use super::verifying::Source;

const MANIFEST: &str = "/manifest.json";

/// What a bucket holds.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub manifests: Vec<Manifest>,
    /// What topics are, as far as the bucket says.
    pub topics: Vec<TopicNote>,
    /// Manifests and topics that can't be read, and why.
    pub unreadable: Vec<(String, RemoteError)>,
    /// Segments' objects that no manifest names: copies that were broken off, or are under way.
    pub orphans: Vec<String>,
}

/// What `verify` found of one partition.
#[derive(Debug)]
pub(crate) struct Verified {
    pub segments: usize,
    pub bytes: u64,
    /// Objects that are missing or damaged, and how.
    pub damaged: Vec<(String, RemoteError)>,
}

impl Tier {
    /// Reads every manifest.
    pub(crate) async fn inventory(self: &Arc<Self>) -> Result<Inventory, RemoteError> {
        let listed = self.store.list("").await?;
        let (mut manifests, mut topics, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let is_told = |name: &str| name.ends_with(MANIFEST) || is_topic_note(name);
        for object in listed.iter().filter(|object| is_told(&object.name)) {
            let read = self.store.get(&object.name).await.map_err(RemoteError::from);
            let read = read.and_then(|(bytes, _)| {
                if is_topic_note(&object.name) {
                    return TopicNote::read(&object.name, &bytes).map(|note| topics.push(note));
                }
                Manifest::decode(&bytes)
                    .map(|manifest| manifests.push(manifest))
                    .map_err(|reason| RemoteError::Damaged { object: object.name.clone(), reason })
            });
            if let Err(error) = read {
                unreadable.push((object.name.clone(), error));
            }
        }
        let named: HashSet<String> = manifests.iter().flat_map(Manifest::objects).collect();
        let is_orphan = |name: &String| name.ends_with(LOG_ENDING) && !named.contains(name);
        let orphans = listed.into_iter().map(|object| object.name).filter(is_orphan).collect();
        Ok(Inventory { manifests, topics, unreadable, orphans })
    }

    /// Reads every byte of a partition again, and compares.
    pub(crate) async fn verify(self: &Arc<Self>, manifest: &Manifest) -> Verified {
        let source = Source { store: &self.store, counts: &self.counts, keyring: &self.keyring };
        let mut verified = Verified { segments: 0, bytes: 0, damaged: Vec::new() };
        for segment in &manifest.segments {
            let object = manifest.object(segment);
            match source.verify(&object, segment).await {
                Ok(()) => {
                    verified.segments += 1;
                    verified.bytes += segment.object_bytes;
                }
                Err(error) => verified.damaged.push((object, error)),
            }
        }
        verified
    }
}
