//! A broker that an ordinary user runs, whose folders are taken from it: what it can't write it refuses, and what it has it serves.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use super::good::Quiet;
use crate::broker::{BINARY, Broker, folder};
use crate::devices::sh;
use crate::first_run::{create, get};
use crate::kit::{after, eventually, has_tools};
use crate::wire::Wire;

/// Nobody's id, where tests run as root: root may write whatever the permissions say.
const NOBODY: &str = "65534";

/// A broker of an ordinary user on a folder that is theirs.
fn start(home: &Path, data: &Path) -> Broker {
    let command = Broker::command(data, &[]);
    if sh("id -u").expect("an id").trim() != "0" {
        return Broker::start_command(command);
    }
    let binary = home.join("strandline");
    if !binary.exists() {
        // The folder of the sources need not be open to others.
        std::fs::copy(BINARY, &binary).expect("copied");
    }
    let words = format!("setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups");
    let words: Vec<String> = words.split(' ').map(ToOwned::to_owned).collect();
    let mut own = std::process::Command::new(&binary);
    own.args(command.get_args());
    Broker::start_command(after(&words, &own))
}

#[test]
fn an_ordinary_users_broker_refuses_what_it_may_not_write_and_has_all_of_it_after_a_restart() {
    const STORAGE_ERROR: i16 = 56;
    if !has_tools(&["setpriv"]) {
        println!("skipped: setpriv is missing");
        return;
    }
    let (home, data) = folder();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
    };
    mode(home.path(), 0o777);
    let broker = start(home.path(), &data);
    create(&broker, "t", &["segment.bytes=1048576"]);
    let mut wire = Wire::connect(&broker.address);
    let mut acked = 0;
    while acked < 3 {
        assert_eq!(wire.produce_one("t", -1, 100_000), 0);
        acked += 1;
    }
    let quiet = Quiet::of(&broker);
    // Nothing new can be made there: the segment that is open is written on until it is full.
    mode(&data.join("t-0"), 0o555);
    let refused = (0..20).find(|_| match wire.produce_one("t", -1, 200_000) {
        0 => {
            acked += 1;
            false
        }
        error => {
            assert_eq!(error, STORAGE_ERROR);
            true
        }
    });
    assert!(refused.is_some(), "a full segment was written on");
    eventually("it says so", || get(&broker, "/readyz").contains("is offline"));
    quiet.comes_back(&broker, 20);
    mode(&data.join("t-0"), 0o755);
    let given_back = Instant::now();
    assert!(broker.terminate().success());
    let broker = start(home.path(), &data);
    assert_eq!(get(&broker, "/readyz"), "ok\n");
    println!("served again {:?} after the folder was given back", given_back.elapsed());
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(wire.produce_one("t", -1, 100_000), 0);
    let read = crate::first_run::cli(&broker, &["consume", "t", "-o", "start", "-e"]);
    assert_eq!(read.lines().count(), acked + 1, "all that was acknowledged, and one more");
    assert!(broker.terminate().success());
}
