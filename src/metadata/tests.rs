use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::system::SharedDisk;
use crate::system::sim_disk::SimDisk;

fn facts() -> Vec<MetadataRecord> {
    let id = uuid::Uuid::from_u128(7);
    vec![
        MetadataRecord::Topic { name: "a".into(), id },
        MetadataRecord::Partition {
            topic: id,
            partition: 0,
            leader: 1,
            replicas: vec![1],
            isr: vec![1],
            leader_epoch: 0,
        },
        MetadataRecord::Config {
            resource: ConfigResource::Topic("a".into()),
            name: "retention.ms".into(),
            value: Some("5".into()),
        },
        MetadataRecord::ProducerIds { next: 1000 },
    ]
}

#[test]
fn the_image_after_a_restart_is_the_image_before_it() {
    let sim = SimDisk::default();
    let disk: SharedDisk = Arc::new(sim.clone());
    let (mut store, mut image) = MetadataStore::open(&disk, Path::new("/d"), 0).expect("open");
    store.append(&facts(), 5).expect("append");
    facts().iter().for_each(|fact| image.apply(fact));
    drop(store);
    sim.crash(&crate::system::Random::seeded(1));
    let (_, again) = MetadataStore::open(&disk, Path::new("/d"), 0).expect("open");
    assert_eq!(again, image);
    assert_eq!(again.topic("a").map(|t| t.partitions.len()), Some(1));
}

#[test]
fn a_snapshot_makes_the_same_image() {
    let mut image = Image::default();
    facts().iter().for_each(|fact| image.apply(fact));
    let mut again = Image::default();
    again.apply(&MetadataRecord::Topic { name: "old".into(), id: uuid::Uuid::from_u128(9) });
    image.records().iter().for_each(|fact| again.apply(fact));
    assert_eq!(again, image);
}

#[test]
fn a_removed_topic_takes_its_configuration_along() {
    let mut image = Image::default();
    facts().iter().for_each(|fact| image.apply(fact));
    image.apply(&MetadataRecord::RemoveTopic { id: uuid::Uuid::from_u128(7) });
    assert!(image.topics.is_empty());
    assert_eq!(image.configured().count(), 0);
}
