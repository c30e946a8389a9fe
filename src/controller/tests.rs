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

fn holds(partitions: u32, is_full: bool) -> crate::metadata::Capacity {
    crate::metadata::Capacity { partitions, by: "its 9 descriptors".to_owned(), is_full }
}

async fn say(controller: &Controller, capacity: crate::metadata::Capacity) {
    let epoch = controller.image().brokers[&1].epoch;
    let said = Command::Capacity { broker: 1, epoch, capacity };
    controller.ask(said).await.expect("noted");
}

#[tokio::test]
async fn topics_are_refused_that_a_broker_says_it_cannot_hold() {
    let controller = open(&SimDisk::default()).await;
    controller.create_topic(&topic("before", 2), false).await.expect("nothing was said yet");
    say(&controller, holds(5, false)).await;
    let why = refused(&controller, &topic("large", 4)).await;
    assert!(
        why.contains("broker 1 would have 6 replicas, and can hold 5 by its 9 descriptors"),
        "{why}"
    );
    controller.create_topic(&topic("small", 3), false).await.expect("it fits");
    let wish = NewPartitions { topic: "small".into(), count: 4, assignments: None };
    let error = controller.create_partitions(&wish, false).await.expect_err("refused");
    assert!(matches!(error, ControllerError::Limit(_)), "{error}");
    // What it says last counts, over a new registration by one that says nothing as well.
    say(&controller, holds(6, false)).await;
    controller.create_partitions(&wish, false).await.expect("it fits now");
    // One of an older process is not heard.
    let late = Command::Capacity { broker: 1, epoch: -1, capacity: holds(100, false) };
    controller.ask(late).await.expect("passed over");
    assert_eq!(controller.image().brokers[&1].capacity, Some(holds(6, false)));
}

#[tokio::test]
async fn topics_are_refused_while_a_broker_has_no_room_for_them() {
    let controller = open(&SimDisk::default()).await;
    say(&controller, holds(5, true)).await;
    let error = controller.create_topic(&topic("a", 1), false).await.expect_err("refused");
    assert!(matches!(&error, ControllerError::Storage(why) if why.contains("no room")), "{error}");
    say(&controller, holds(5, false)).await;
    controller.create_topic(&topic("a", 1), false).await.expect("made");
}

#[test]
fn what_brokers_say_of_themselves_is_read_with_and_without_what_they_can_hold() {
    let before = r#"{"broker":1,"epoch":2,"is_ready":true,"wants_to_stop":false}"#;
    let heartbeat: Heartbeat = serde_json::from_str(before).expect("the release before says less");
    assert_eq!(heartbeat.capacity, None);
    let now = Heartbeat { capacity: Some(holds(5, false)), ..heartbeat };
    let text = serde_json::to_string(&now).expect("written");
    assert_eq!(serde_json::from_str::<Heartbeat>(&text).expect("read"), now);
    let image = r#"{"epoch":1,"incarnation":"00000000-0000-0000-0000-000000000001","endpoints":[],"directories":[],"is_fenced":false,"later":7}"#;
    let image: crate::metadata::BrokerImage = serde_json::from_str(image).expect("read");
    assert_eq!(image.capacity, None);
    assert!(!serde_json::to_string(&image).expect("written").contains("capacity"));
}

#[test]
fn what_makes_room_is_carried_out_with_the_last_of_it_and_what_grows_is_not() {
    use crate::quorum::Room;
    let create =
        Command::CreateTopic { topic: topic("a", 1), id: uuid::Uuid::nil(), validate_only: false };
    assert_eq!(create.needs(), Room::Plenty);
    assert_eq!(Command::ProducerIds.needs(), Room::Low);
    assert_eq!(Command::DeleteTopic { id: uuid::Uuid::nil() }.needs(), Room::Scarce);
}
