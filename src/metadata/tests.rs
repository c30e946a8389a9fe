use super::*;

fn facts() -> Vec<MetadataRecord> {
    let id = uuid::Uuid::from_u128(7);
    vec![
        MetadataRecord::Topic { name: "a".into(), id },
        MetadataRecord::Partition {
            topic: id,
            partition: 0,
            state: PartitionImage {
                leader: 1,
                replicas: vec![1],
                isr: vec![1],
                elr: Vec::new(),
                leader_epoch: 0,
                ..PartitionImage::default()
            },
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
fn a_snapshot_makes_the_same_image() {
    let mut image = Image::default();
    facts().iter().for_each(|fact| image.apply(fact));
    let mut again = Image::default();
    again.apply(&MetadataRecord::Topic { name: "old".into(), id: uuid::Uuid::from_u128(9) });
    again.apply(&MetadataRecord::Config {
        resource: ConfigResource::Cluster,
        name: "num.partitions".into(),
        value: Some("9".into()),
    });
    let records = again.records_to(&image);
    records.iter().for_each(|fact| again.apply(fact));
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
