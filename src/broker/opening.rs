//! The partitions that are to be here, and those of them whose logs could not be opened for want of descriptors, memory or room: they are
//! opened once there is some.

use std::sync::Arc;
use std::time::Duration;

use super::publisher::topic_config;
use crate::config::Config;
use crate::controller::Controller;
use crate::metadata::Image;
use crate::model::TopicPartition;
use crate::replication::{PartitionSpec, PartitionState, Replicas};
use crate::system::clock::sleep;
use crate::system::descriptors_max;
use crate::system::tasks::{blocking, keep_job};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Says what a start could not open: the rest is served.
pub(super) fn name_unopened(replicas: &Replicas) {
    let (count, first) = replicas.unopened();
    if count > 0 {
        let names: Vec<String> = first.iter().map(ToString::to_string).collect();
        let first = names.join(", ");
        tracing::error!(
            count,
            first,
            descriptors = descriptors_max(),
            "partitions are not served, for want of descriptors, memory or room: raise the limit (ulimit -n), free some room, or delete topics; they are opened once that is done"
        );
    }
}

/// Opens what could not be opened, over and over.
pub(super) fn open_later(controller: &Arc<Controller>, replicas: &Arc<Replicas>) {
    let (controller, replicas) = (Arc::clone(controller), Arc::clone(replicas));
    keep_job("opening of logs", async move {
        loop {
            sleep(LOOK_AGAIN).await;
            let (controller, replicas) = (Arc::clone(&controller), Arc::clone(&replicas));
            blocking(move || try_again(&controller, &replicas)).await;
        }
    });
}

fn try_again(controller: &Controller, replicas: &Replicas) {
    let names = replicas.take_unopened();
    if names.is_empty() {
        return;
    }
    for spec in specs(&controller.image(), &controller.config()) {
        if names.contains(&spec.name) && replicas.reopen(&spec) {
            tracing::info!(partition = %spec.name, "log opened");
            controller.show_again(spec.topic_id, spec.name.partition);
        }
    }
}

/// The partitions that the metadata says are here. None of them has a role before the metadata is current again.
pub(super) fn specs(image: &Image, config: &Config) -> Vec<PartitionSpec> {
    let node_id = config.int("node.id");
    let mut specs = Vec::new();
    for topic in image.topics.values() {
        let config = topic_config(image, config, &topic.name);
        for (partition, found) in (0..).zip(&topic.partitions) {
            if !found.replicas.contains(&node_id) {
                continue;
            }
            specs.push(PartitionSpec {
                name: TopicPartition { topic: Arc::clone(&topic.name), partition },
                topic_id: topic.id,
                state: PartitionState::unknown(),
                config: Arc::clone(&config),
            });
        }
    }
    specs
}
