use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::metadata::ConfigResource;
use crate::system::sim_disk::SimDisk;
use crate::system::{Random, SharedDisk};

async fn open(disk: &SimDisk) -> Arc<Controller> {
    let shared: SharedDisk = Arc::new(disk.clone());
    alone::alone(&shared, Path::new("/d"), Config::default(), Random::seeded(1)).await
}

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: -1, ..NewTopic::default() }
}

async fn refused(controller: &Controller, wish: &NewTopic) -> String {
    controller.create_topic(wish, false).await.expect_err("refused").to_string()
}

#[tokio::test]
async fn a_topic_is_refused_with_the_text_that_clients_know() {
    let controller = open(&SimDisk::default()).await;
    controller.create_topic(&topic("a_b", 1), false).await.expect("made");
    assert_eq!(refused(&controller, &topic("a_b", 1)).await, "Topic 'a_b' already exists.");
    assert_eq!(
        refused(&controller, &topic("a.b", 1)).await,
        "Topic 'a.b' collides with existing topic: a_b"
    );
    assert!(refused(&controller, &topic("x", 0)).await.contains("non-positive"));
    let three = NewTopic { replication_factor: 3, ..topic("x", 1) };
    assert!(refused(&controller, &three).await.contains("only 1 broker(s) are registered"));
    let unknown = NewTopic {
        configs: [("no.such".to_owned(), Some("1".to_owned()))].into(),
        ..topic("x", 1)
    };
    assert_eq!(refused(&controller, &unknown).await, "Unknown topic config name: no.such");
    assert!(controller.image().topic("x").is_none());
}

#[tokio::test]
async fn a_validated_topic_is_not_made() {
    let controller = open(&SimDisk::default()).await;
    let made = controller.create_topic(&topic("a", 3), true).await.expect("valid");
    assert_eq!(made.partitions.len(), 3);
    assert!(controller.image().topic("a").is_none());
}

#[tokio::test]
async fn producer_ids_never_repeat_over_a_crash() {
    let disk = SimDisk::default();
    let controller = open(&disk).await;
    let first = controller.next_producer_id().await.expect("id");
    assert!(first > 1 << 32, "{first}: another cluster may have begun with it");
    assert_eq!(controller.next_producer_id().await.expect("id"), first + 1);
    drop(controller);
    disk.crash(&Random::seeded(3));
    assert!(open(&disk).await.next_producer_id().await.expect("id") > first + 1);
}

#[tokio::test]
async fn a_process_that_did_not_stop_cleanly_is_fenced_before_its_successor_is_let_in() {
    let controller = open(&SimDisk::default()).await;
    controller.create_topic(&topic("a", 2), false).await.expect("made");
    let epochs = |image: &crate::metadata::Image| -> Vec<(i32, i32)> {
        let topic = image.topic("a").expect("topic");
        topic.partitions.iter().map(|p| (p.leader, p.leader_epoch)).collect()
    };
    let before = controller.image().brokers[&1].epoch;
    alone::register(&controller, uuid::Uuid::from_u128(9), None).await;
    let image = controller.image();
    let broker = &image.brokers[&1];
    assert!(broker.epoch > before && broker.is_fenced);
    assert_eq!(epochs(&image), [(-1, 1), (-1, 1)]);
    let epoch = broker.epoch;
    controller.ask(Command::Unfence { broker: 1, epoch }).await.expect("unfenced");
    assert_eq!(epochs(&controller.image()), [(1, 2), (1, 2)]);
}

#[tokio::test]
async fn a_setting_is_changed_appended_and_taken_away() {
    let controller = open(&SimDisk::default()).await;
    controller.create_topic(&topic("a", 1), false).await.expect("made");
    let resource = ConfigResource::Topic("a".into());
    let change = async |name: &str, operation, value: Option<&str>| {
        let change = ConfigChange { name: name.into(), operation, value: value.map(Into::into) };
        controller.alter_configs(&resource, &[change], false).await
    };
    change("cleanup.policy", ConfigOperation::Append, Some("compact")).await.expect("append");
    assert!(controller.topic_config("a").is_compacted && controller.topic_config("a").is_deleted);
    change("cleanup.policy", ConfigOperation::Subtract, Some("delete")).await.expect("subtract");
    assert!(!controller.topic_config("a").is_deleted);
    change("cleanup.policy", ConfigOperation::Delete, None).await.expect("delete");
    assert!(!controller.topic_config("a").is_compacted);
    let null = change("retention.ms", ConfigOperation::Set, None).await.expect_err("null");
    assert_eq!(null.to_string(), "Null value not supported for : retention.ms");
}

#[tokio::test]
async fn a_broker_setting_that_is_not_dynamic_is_refused() {
    let controller = open(&SimDisk::default()).await;
    let set = async |name: &str, value: &str| {
        let operation = ConfigOperation::Set;
        let change = ConfigChange { name: name.into(), operation, value: Some(value.into()) };
        controller.alter_configs(&ConfigResource::Cluster, &[change], false).await
    };
    set("message.max.bytes", "5000").await.expect("dynamic");
    assert_eq!(controller.config().long("message.max.bytes"), 5000);
    assert!(
        set("num.partitions", "5").await.expect_err("static").to_string().contains("Cannot update")
    );
}

#[tokio::test]
async fn a_topic_that_is_brought_back_has_the_id_and_the_epoch_that_it_is_to_have() {
    let mut config = Config::default();
    config.set("remote.storage.url", "file:x", crate::config::Origin::File).expect("set");
    let disk: SharedDisk = Arc::new(SimDisk::default());
    let controller = alone::alone(&disk, Path::new("/d"), config, Random::seeded(1)).await;
    let id = uuid::Uuid::from_u128(77);
    let restore = |name: &str, from: String, is_tiered: bool| NewTopic {
        configs: [
            ("remote.storage.restore".to_owned(), Some(from)),
            ("remote.storage.enable".to_owned(), Some(is_tiered.to_string())),
        ]
        .into(),
        ..topic(name, 2)
    };
    for wrong in ["x", "77@1", &format!("{id}"), &format!("{id}@-1"), &format!("{id}@x")] {
        let said = refused(&controller, &restore("a", wrong.to_owned(), true)).await;
        assert!(said.contains("ID@EPOCH"), "{said}");
    }
    let here = refused(&controller, &restore("a", format!("{id}@9"), false)).await;
    assert!(here.contains("remote.storage.enable"), "{here}");
    let made = controller.create_topic(&restore("a", format!("{id}@9"), true), false).await;
    let made = made.expect("made");
    assert_eq!((made.id, made.partitions[1].leader_epoch), (id, 9));
    let twice = refused(&controller, &restore("b", format!("{id}@9"), true)).await;
    assert!(twice.contains("already exists"), "{twice}");
    let set = ConfigChange {
        name: "remote.storage.restore".into(),
        operation: ConfigOperation::Set,
        value: Some(format!("{id}@12")),
    };
    let resource = ConfigResource::Topic("a".into());
    let later = controller.alter_configs(&resource, &[set], false).await.expect_err("refused");
    assert!(later.to_string().contains("only where one is made"), "{later}");
}
