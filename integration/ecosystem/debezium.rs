//! Debezium: a table's changes by a topic into a file, and what is no change into a dead-letter queue. The worker is killed, the broker is
//! killed: what the file tells is the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::installs::jars;
use super::postgres::Postgres;
use super::{Phoenix, calmly, free_port, is_asked_for, lines, produce, rows};
use crate::broker::folder;
use crate::clients::{connect_with, curl};

const TOPIC: &str = "bank.public.accounts";

/// Registers the table's source, and the file's sink.
fn put_connectors(rest: u16, postgres: u16, file: &Path) {
    let json = "org.apache.kafka.connect.json.JsonConverter";
    let source = serde_json::json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput", "slot.name": "accounts", "topic.prefix": "bank",
        "database.hostname": "127.0.0.1", "database.port": postgres.to_string(),
        "database.user": "postgres", "database.dbname": "postgres",
        "table.include.list": "public.accounts", "publication.autocreate.mode": "filtered",
        "key.converter": json, "key.converter.schemas.enable": "false",
        "value.converter": json, "value.converter.schemas.enable": "false",
        "transforms": "flat",
        "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.flat.delete.tombstone.handling.mode": "rewrite",
    });
    let sink = serde_json::json!({
        "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
        "topics": TOPIC, "file": file.display().to_string(),
        "value.converter": json, "value.converter.schemas.enable": "false",
        "errors.tolerance": "all", "errors.deadletterqueue.topic.name": "dead",
        "errors.deadletterqueue.topic.replication.factor": "1",
        "errors.deadletterqueue.context.headers.enable": "true",
        // A dead worker's tasks are given to the next one after this time.
        "consumer.override.session.timeout.ms": "6000",
    });
    for (name, config) in [("source", source), ("sink", sink)] {
        let url = format!("http://127.0.0.1:{rest}/connectors/{name}/config");
        let (kind, config) = ("Content-Type: application/json", config.to_string());
        calmly(name, || curl(&["-X", "PUT", "-H", kind, "-d", &config, &url]).is_some());
    }
}

/// Changes of one round: every account changes, some come, some go.
fn change(postgres: &Postgres, round: u32) {
    let mut sql = String::new();
    for n in round * 500..(round + 1) * 500 {
        let _ = writeln!(sql, "insert into accounts values ({n}, 'owner {n}', {});", n * 7 % 1_000);
    }
    let _ = writeln!(sql, "update accounts set balance = balance + {round} + 1;");
    let _ = writeln!(sql, "update accounts set owner = 'heir of ' || id where id % 11 = {round};");
    let _ = writeln!(sql, "delete from accounts where id % 13 = {round};");
    postgres.ask(&sql);
}

/// What is no change.
fn poison(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("k=no change {n}"))
}

/// The table as the file tells it. A worker that was killed may have left half a record, and its successor's first words come right after it.
fn told(file: &Path) -> BTreeMap<u32, String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut table = BTreeMap::new();
    for record in text.split('{').skip(1) {
        let Some((fields, _)) = record.split_once("}\n") else { continue };
        let fields: BTreeMap<&str, &str> =
            fields.split(", ").filter_map(|field| field.split_once('=')).collect();
        let id = fields["id"].parse().expect("a number");
        match fields["__deleted"] {
            "true" => table.remove(&id),
            _ => table.insert(id, format!("{}|{}", fields["owner"], fields["balance"])),
        };
    }
    table
}

fn table(postgres: &Postgres) -> BTreeMap<u32, String> {
    let rows = postgres.ask("select id, owner, balance from accounts");
    let rows = rows.lines().filter_map(|row| row.split_once('|'));
    rows.map(|(id, rest)| (id.parse().expect("a number"), rest.to_owned())).collect()
}

fn wait_for(postgres: &Postgres, file: &Path) {
    let expected = table(postgres);
    calmly("the file tells what the table has", || told(file) == expected);
}

#[test]
fn debezium_brings_every_change_of_a_table_and_the_rest_to_the_dead_letters_though_worker_and_broker_are_killed()
 {
    if !is_asked_for("Debezium") {
        return;
    }
    let (folder, data) = folder();
    let Some(postgres) = Postgres::start(folder.path()) else { return };
    postgres.ask("create table accounts (id int primary key, owner text, balance int)");
    let mut broker = Phoenix::start(&data);
    let (address, file) = (broker.address.clone(), folder.path().join("changes"));
    let (plugins, rest) = (jars("debezium"), free_port());
    let plugins = plugins.parent().expect("a parent");
    let connect = || connect_with(folder.path(), &address, rest, &[plugins]);
    change(&postgres, 0);
    let worker = connect();
    let base = format!("http://127.0.0.1:{rest}/connectors");
    calmly("Connect starts", || curl(&[&base]).is_some());
    put_connectors(rest, postgres.port, &file);
    wait_for(&postgres, &file);
    produce(&address, TOPIC, poison(0..10));
    change(&postgres, 1);
    wait_for(&postgres, &file);
    // The worker dies with changes on their way, and another goes on.
    change(&postgres, 2);
    drop(worker);
    change(&postgres, 3);
    let _worker = connect();
    produce(&address, TOPIC, poison(10..20));
    wait_for(&postgres, &file);
    broker.kill();
    change(&postgres, 4);
    broker.rise();
    change(&postgres, 5);
    wait_for(&postgres, &file);
    let expected: BTreeSet<String> = (0..20).map(|n| format!("no change {n}")).collect();
    // It may not be there yet.
    calmly("there are dead letters", || {
        !rows(&["topic", "describe", "dead", "-b", &address]).is_empty()
    });
    calmly("the dead letters are what is no change", || {
        let found: BTreeSet<String> = lines(&address, "dead", "%v\n").into_iter().collect();
        assert!(found.is_subset(&expected), "{:?}", found.difference(&expected).next());
        found == expected
    });
}
