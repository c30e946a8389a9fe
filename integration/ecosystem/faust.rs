//! faust: a table that is kept beside its worker and in a topic. The worker is killed, its folder wiped, the broker killed: what it adds up
//! stays right, which it is only if every change was in the topic and all of it is read back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::installs::{python, source};
use super::{Phoenix, Tool, calmly, create, lines, produce, rows};
use crate::broker::folder;

const SHOPS: u64 = 50;
const SALES_PER_ROUND: u64 = 40;

fn worker(address: &str, folder: &Path) -> Tool {
    let mut command = Command::new(python("faust"));
    command.arg(source("faust").join("totals.py")).env("ADDRESS", address);
    command.env("FOLDER", folder.join("state")).current_dir(folder);
    Tool::start(&mut command, &folder.join("faust.log"))
}

fn amount(shop: u64, number: u64) -> u64 {
    (shop * 31 + number * 17) % 1_000
}

/// Another round of sales in every shop.
fn sell(address: &str, round: u64) {
    let numbers = round * SALES_PER_ROUND..(round + 1) * SALES_PER_ROUND;
    let sales = numbers.flat_map(|number| (0..SHOPS).map(move |shop| (shop, number)));
    let records = sales.map(|(shop, number)| {
        let amount = amount(shop, number);
        format!("s{shop}={{\"shop\": \"s{shop}\", \"number\": {number}, \"amount\": {amount}}}")
    });
    produce(address, "sales", records);
}

/// What the application said last of each shop.
fn results(address: &str) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for line in lines(address, "results", "%k=%v\n") {
        let (shop, value) = line.split_once('=').expect("a result");
        assert_ne!(value, "\"gap\"", "{shop}: the table forgot, or sales are missing");
        last.insert(shop.to_owned(), value.to_owned());
    }
    last
}

/// Waits until every shop's total is that of so many rounds.
fn wait_for(address: &str, rounds: u64) {
    let sales = rounds * SALES_PER_ROUND;
    let expected = (0..SHOPS).map(|shop| {
        let total: u64 = (0..sales).map(|number| amount(shop, number)).sum();
        (format!("s{shop}"), format!("[{},{total}]", sales - 1))
    });
    let expected: BTreeMap<_, _> = expected.collect();
    calmly(&format!("the totals of {rounds} rounds are there"), || {
        let found = results(address);
        let plain = found.into_iter().map(|(shop, value)| (shop, value.replace(' ', "")));
        plain.collect::<BTreeMap<_, _>>() == expected
    });
}

#[test]
fn faust_adds_up_right_though_its_state_was_wiped_and_worker_and_broker_were_killed() {
    let (folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    let address = broker.address.clone();
    for topic in ["sales", "results"] {
        create(&address, topic, "3");
    }
    sell(&address, 0);
    let first = worker(&address, folder.path());
    wait_for(&address, 1);
    sell(&address, 1);
    first.kill();
    std::fs::remove_dir_all(folder.path().join("state")).expect("the state was there");
    sell(&address, 2);
    let _second = worker(&address, folder.path());
    wait_for(&address, 3);
    broker.kill_and_rise();
    sell(&address, 3);
    wait_for(&address, 4);
    assert_eq!(rows(&["topic", "describe", "totals-totals-changelog", "-b", &address]).len(), 3);
}
