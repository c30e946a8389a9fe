//! NestJS: a microservice that handles events and answers questions by topics, killed and followed by another, while the broker is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::installs::node;
use super::{Phoenix, Tool, calmly, create};
use crate::broker::folder;
use crate::kit::succeed;

fn server(address: &str, folder: &Path) -> Tool {
    let mut command = Command::new("node");
    command.arg(node("nest").join("server.js")).arg(address).arg(folder.join("orders"));
    Tool::start(&mut command, &folder.join("nest.log"))
}

fn client(address: &str, arguments: [&str; 3]) {
    let mut command = Command::new("node");
    command.arg(node("nest").join("client.js")).arg(address).args(arguments);
    // Where a connection ends under a request KafkaJS may forget it, and node ends for want of anything to wait for: the
    // orders are placed again, as somebody would who was not told that they are.
    let mut rounds = (0..3).map(|_| succeed(&mut command));
    assert!(rounds.any(|out| out.trim().ends_with("good")), "the client ends before it is done");
}

/// Waits until exactly these orders are handled, some more than once.
fn wait_for(file: &Path, orders: u32) {
    let order = |id: u32| {
        format!("{id} {}to go", "coffee ".repeat(usize::try_from(id % 5).expect("small")))
    };
    let expected: BTreeSet<String> = (0..orders).map(order).collect();
    calmly(&format!("{orders} orders are handled"), || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found: BTreeSet<String> = text.lines().map(ToOwned::to_owned).collect();
        assert!(found.is_subset(&expected), "{:?}", found.difference(&expected).next());
        found == expected
    });
}

#[test]
fn nestjs_handles_every_event_and_answers_every_question_though_service_and_broker_are_killed() {
    let (folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    let (address, file) = (broker.address.clone(), folder.path().join("orders"));
    for topic in ["orders", "sum", "sum.reply"] {
        create(&address, topic, "3");
    }
    let first = server(&address, folder.path());
    client(&address, ["0", "500", "20"]);
    wait_for(&file, 500);
    client(&address, ["500", "800", "0"]);
    first.kill();
    client(&address, ["800", "1000", "0"]);
    let second = server(&address, folder.path());
    broker.kill_and_rise();
    client(&address, ["1000", "1200", "20"]);
    wait_for(&file, 1_200);
    drop(second);
}
