//! Batches with a true checksum whose records no client could read: what another client writes stops nobody.

#[path = "poison.rs"]
mod poison;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use self::poison::{CODECS, poisons};
use crate::wire::{Wire, create, produce};

fn send(wire: &mut Wire, topic: &str, batch: &Bytes) -> PartitionProduceResponse {
    let mut answer = wire.ask(9, &produce(topic, -1, batch.clone()));
    answer.responses.remove(0).partition_responses.remove(0)
}

/// `KAFKA=HOST:PORT cargo test --test integration hostile::records::apache_kafka_is_asked -- --ignored`
#[test]
#[ignore = "needs a running Apache Kafka, at KAFKA=HOST:PORT"]
fn apache_kafka_is_asked_anew() {
    let address = std::env::var("KAFKA").expect("KAFKA=HOST:PORT");
    let mut wire = Wire::connect(&address);
    let mut answers = String::new();
    for codec in CODECS {
        let topic = format!("poisoned-{codec}-{}", std::process::id());
        wire.ask(5, &create(&topic, 1, 1));
        for poison in poisons(codec) {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let answer = send(&mut wire, &topic, &poison.batch);
            let name = poison.name;
            let _ = writeln!(answers, "{codec}: {name} => {}", answer.error_code);
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/hostile/kafka-4.3.1.txt");
    std::fs::write(file, answers).expect("written");
}
