//! rskafka and samsa, whose protocol and codecs share no code with other clients: each reads what the other wrote, after the broker was
//! killed, and from a broker that had to open every batch and pack it anew.

use std::process::Command;

use super::installs::rust_clients;
use super::{Phoenix, rows};
use crate::broker::{Broker, folder};
use crate::kit::succeed;

fn good(what: &str, address: &str) {
    let out = succeed(Command::new(rust_clients()).args([what, address]));
    assert!(out.trim().ends_with("good"), "{out}");
}

#[test]
fn rskafka_and_samsa_read_what_the_other_wrote_in_each_codec_also_after_the_broker_was_killed() {
    let (_folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    good("write", &broker.address);
    good("group", &broker.address);
    broker.kill_and_rise();
    good("read", &broker.address);
    let rows = rows(&["group", "lag", "samsas", "-b", &broker.address]);
    let lags: Vec<_> = rows.iter().map(|row| row["lag"].as_i64()).collect();
    assert_eq!(lags, [Some(0)], "{rows:?}");
}

#[test]
fn a_broker_that_packs_anew_opens_what_rskafka_and_samsa_wrote_in_each_codec() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["compression.type=gzip"]);
    good("write", &broker.address);
    good("read", &broker.address);
}
