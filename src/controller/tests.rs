use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::metadata::{ConfigResource, MetadataStore};
use crate::system::sim_disk::SimDisk;
use crate::system::{Clock, Random, SharedDisk};

fn open(disk: &SimDisk) -> Controller {
    let shared: SharedDisk = Arc::new(disk.clone());
    let (store, image) = MetadataStore::open(&shared, Path::new("/d"), 0).expect("open");
    Controller::new(store, image, Config::default(), Clock::system(), Random::seeded(1))
}

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: -1, ..NewTopic::default() }
}

fn refused(controller: &Controller, wish: &NewTopic) -> String {
    controller.create_topic(wish, false).expect_err("refused").to_string()
}

#[test]
fn a_topic_is_refused_with_the_text_that_clients_know() {
    let controller = open(&SimDisk::default());
    controller.create_topic(&topic("a_b", 1), false).expect("made");
    assert_eq!(refused(&controller, &topic("a_b", 1)), "Topic 'a_b' already exists.");
    assert_eq!(
        refused(&controller, &topic("a.b", 1)),
        "Topic 'a.b' collides with existing topic: a_b"
    );
    assert!(refused(&controller, &topic("x", 0)).contains("non-positive"));
    let three = NewTopic { replication_factor: 3, ..topic("x", 1) };
    assert!(refused(&controller, &three).contains("only 1 broker(s) are registered"));
    let unknown = NewTopic {
        configs: [("no.such".to_owned(), Some("1".to_owned()))].into(),
        ..topic("x", 1)
    };
    assert_eq!(refused(&controller, &unknown), "Unknown topic config name: no.such");
    assert!(controller.image().topic("x").is_none());
}

#[test]
fn a_validated_topic_is_not_made() {
    let controller = open(&SimDisk::default());
    let made = controller.create_topic(&topic("a", 3), true).expect("valid");
    assert_eq!(made.partitions.len(), 3);
    assert!(controller.image().topic("a").is_none());
}

#[test]
fn producer_ids_never_repeat_over_a_crash() {
    let disk = SimDisk::default();
    let controller = open(&disk);
    let first = controller.next_producer_id().expect("id");
    assert_eq!(controller.next_producer_id().expect("id"), first + 1);
    drop(controller);
    disk.crash(&Random::seeded(3));
    assert!(open(&disk).next_producer_id().expect("id") > first + 1);
}

#[test]
fn an_unclean_start_begins_new_leader_epochs() {
    let controller = open(&SimDisk::default());
    controller.create_topic(&topic("a", 2), false).expect("made");
    assert_eq!(controller.register_broker(true).expect("epoch"), 1);
    assert_eq!(controller.register_broker(false).expect("epoch"), 2);
    let image = controller.image();
    let epochs: Vec<i32> =
        image.topic("a").expect("topic").partitions.iter().map(|p| p.leader_epoch).collect();
    assert_eq!(epochs, [1, 1]);
}

#[test]
fn a_setting_is_changed_appended_and_taken_away() {
    let controller = open(&SimDisk::default());
    controller.create_topic(&topic("a", 1), false).expect("made");
    let resource = ConfigResource::Topic("a".into());
    let change = |name: &str, operation, value: Option<&str>| {
        let change = ConfigChange { name: name.into(), operation, value: value.map(Into::into) };
        controller.alter_configs(&resource, &[change], false)
    };
    change("cleanup.policy", ConfigOperation::Append, Some("compact")).expect("append");
    assert!(controller.topic_config("a").is_compacted && controller.topic_config("a").is_deleted);
    change("cleanup.policy", ConfigOperation::Subtract, Some("delete")).expect("subtract");
    assert!(!controller.topic_config("a").is_deleted);
    change("cleanup.policy", ConfigOperation::Delete, None).expect("delete");
    assert!(!controller.topic_config("a").is_compacted);
    let null = change("retention.ms", ConfigOperation::Set, None).expect_err("null");
    assert_eq!(null.to_string(), "Null value not supported for : retention.ms");
}

#[test]
fn a_broker_setting_that_is_not_dynamic_is_refused() {
    let controller = open(&SimDisk::default());
    let set = |name: &str, value: &str| {
        let operation = ConfigOperation::Set;
        let change = ConfigChange { name: name.into(), operation, value: Some(value.into()) };
        controller.alter_configs(&ConfigResource::Cluster, &[change], false)
    };
    set("message.max.bytes", "5000").expect("dynamic");
    assert_eq!(controller.config().long("message.max.bytes"), 5000);
    assert!(set("num.partitions", "5").expect_err("static").to_string().contains("Cannot update"));
}
