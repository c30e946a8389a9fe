//! A file system that turns read-only under a broker: what can't be kept is refused, what was acknowledged is read, and other disks go on.
//!
//! `mount -o remount,ro` is refused by the kernel while anybody writes to a file there; it turns a file system read-only itself when it
//! finds it damaged (`errors=remount-ro`), which ext4 can be told to believe. It takes no writes from then on until it is unmounted and
//! checked. Needs root and loop devices; where they are missing the stories say so and are skipped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_response::PartitionData;

use super::good::{Good, OFTEN};
use crate::broker::{Broker, folder};
use crate::compacted::told;
use crate::devices::sh;
use crate::first_run::{cli, create, get};
use crate::kit::eventually;
use crate::wire::{Wire, create as made, fetch};

const STORAGE_ERROR: i16 = 56;
/// The longest until a broker has noticed, and some time for a busy machine.
const SEEN: Duration = Duration::from_secs(5);

/// An ext4 in a file, mounted through a loop device; it goes when it is dropped.
struct Volume {
    image: PathBuf,
    mount: PathBuf,
}

impl Volume {
    fn new(folder: &Path) -> Option<Self> {
        let volume = Self { image: folder.join("image"), mount: folder.join("volume") };
        std::fs::create_dir_all(&volume.mount).expect("made");
        let made = sh(&format!("truncate -s 256M {}", volume.image.display()))
            .and_then(|_| sh(&format!("mkfs.ext4 -q -F {}", volume.image.display())))
            .and_then(|_| volume.mounted());
        match made {
            Ok(_) => Some(volume),
            Err(why) => {
                println!("skipped: this machine mounts no loop device: {why}");
                None
            }
        }
    }

    fn mounted(&self) -> Result<String, String> {
        let (image, mount) = (self.image.display(), self.mount.display());
        sh(&format!("mount -o loop,errors=remount-ro {image} {mount}"))
    }

    /// What an administrator would try.
    fn remount(&self, how: &str) -> Result<String, String> {
        sh(&format!("mount -o remount,{how} {}", self.mount.display()))
    }

    /// The kernel finds the file system damaged; `false` where it can't be told to.
    fn turns_read_only(&self) -> bool {
        let device = sh(&format!("findmnt -n -o SOURCE {}", self.mount.display()));
        let device = device.expect("mounted").replace("/dev/", "");
        match std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1") {
            Ok(()) => true,
            Err(why) => {
                println!("skipped: ext4 can't be told that it is damaged: {why}");
                false
            }
        }
    }

    /// Checked and mounted anew.
    fn mended(&self) {
        sh(&format!("umount -l {}", self.mount.display())).expect("unmounted");
        // The device goes with the last file that is open on it.
        eventually("nobody has it open", || {
            sh(&format!("losetup -j {}", self.image.display())).is_ok_and(|found| found.is_empty())
        });
        let checked =
            std::process::Command::new("e2fsck").args(["-f", "-p"]).arg(&self.image).status();
        assert!(checked.expect("it runs").code().is_some_and(|code| code < 4), "it is not mended");
        self.mounted().expect("mounted");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = sh(&format!("umount -l {}", self.mount.display()));
    }
}

/// Produces until it is refused; how many records were acknowledged meanwhile.
fn until_refused(broker: &Broker, topic: &str) -> usize {
    let (mut wire, begun, mut acked) = (Wire::connect(&broker.address), Instant::now(), 0);
    loop {
        match wire.produce_one(topic, -1, 1_000) {
            0 => acked += 1,
            error => {
                assert_eq!(error, STORAGE_ERROR);
                println!("refused after {:?}, {acked} were acknowledged", begun.elapsed());
                return acked;
            }
        }
        assert!(begun.elapsed() < SEEN, "acknowledged though nothing can be written");
    }
}

fn fetched(broker: &Broker, topic: &str) -> PartitionData {
    let answer = Wire::connect(&broker.address).ask(11, &fetch(topic, 100, 1));
    answer.responses[0].partitions[0].clone()
}

fn read(broker: &Broker, topic: &str) -> usize {
    cli(broker, &["consume", topic, "-o", "start", "-e"]).lines().count()
}

/// Which of two topics lies on the volume, and which does not.
fn by_place(volume: &Volume) -> (&'static str, &'static str) {
    if volume.mount.join("a-0").exists() { ("a", "b") } else { ("b", "a") }
}

#[test]
fn a_directory_that_turns_read_only_under_a_producer_loses_nothing_and_takes_no_other_with_it() {
    let (folder, data) = folder();
    let Some(volume) = Volume::new(folder.path()) else { return };
    let log = folder.path().join("log");
    let both = format!("log.dirs={},{}", data.display(), volume.mount.display());
    let settings = [&*both, OFTEN, "log.dirs.min.free.bytes=0"];
    let broker = told(&data, &log, &settings);
    for topic in ["a", "b"] {
        create(&broker, topic, &["retention.ms=-1"]);
    }
    let (gone, left) = by_place(&volume);
    let good = Good::begin(&broker, left, 1_000);
    let mut wire = Wire::connect(&broker.address);
    for _ in 0..200 {
        assert_eq!(wire.produce_one(gone, -1, 1_000), 0);
    }
    let busy = volume.remount("ro").expect_err("refused while the broker writes");
    println!("an administrator is told: {busy}");
    if !volume.turns_read_only() {
        return;
    }
    let acked = 200 + until_refused(&broker, gone);
    // Its records are refused truly: never an empty answer for what is there.
    for _ in 0..20 {
        assert_eq!(wire.produce_one(gone, -1, 1_000), STORAGE_ERROR);
        let read = fetched(&broker, gone);
        let records = read.records.as_ref().map_or(0, bytes::Bytes::len);
        assert!(read.error_code == STORAGE_ERROR || records > 1_000, "{read:?}");
    }
    println!("a fetch is answered with {}", fetched(&broker, gone).error_code);
    let ready = get(&broker, "/readyz");
    assert!(ready.contains("is offline"), "{ready}");
    assert!(get(&broker, "/metrics").lines().any(|line| {
        line.starts_with("strandline_log_directory_offline") && line.ends_with(" 1")
    }));
    // What is made from now on is made where it can be written.
    let answer = wire.ask(5, &made("new", 1, 1));
    assert_eq!(answer.topics[0].error_code, 0);
    assert_eq!(wire.produce_one("new", -1, 100), 0);
    std::thread::sleep(Duration::from_secs(1));
    let sent = good.end(&broker).len();
    let said = std::fs::read_to_string(&log).expect("said");
    assert!(said.contains("Read-only file system"), "{said}");
    println!("remounted: {:?}", volume.remount("rw"));
    assert_eq!(wire.produce_one(gone, -1, 1_000), STORAGE_ERROR, "offline until a restart");
    let ended = broker.terminate();
    println!("it ends with {ended:?}");
    // A start on the volume as it is serves the rest.
    let broker = told(&data, &log, &settings);
    assert_eq!(read(&broker, left), sent);
    assert_eq!(Wire::connect(&broker.address).produce_one(gone, -1, 1_000), STORAGE_ERROR);
    assert!(broker.terminate().success());
    volume.mended();
    let broker = told(&data, &log, &settings);
    eventually("all is served", || get(&broker, "/readyz") == "ok\n");
    assert_eq!(read(&broker, gone), acked, "what was acknowledged is what is read");
    assert_eq!((read(&broker, left), read(&broker, "new")), (sent, 1));
    assert_eq!(Wire::connect(&broker.address).produce_one(gone, -1, 1_000), 0);
    assert!(broker.terminate().success());
}

#[test]
fn a_broker_whose_only_disk_turns_read_only_makes_no_promise_and_has_all_of_it_after_the_repair() {
    let (folder, _) = folder();
    let Some(volume) = Volume::new(folder.path()) else { return };
    let data = volume.mount.join("data");
    let log = folder.path().join("log");
    let settings = ["log.dirs.min.free.bytes=0"];
    let mut broker = told(&data, &log, &settings);
    create(&broker, "t", &["retention.ms=-1"]);
    let mut wire = Wire::connect(&broker.address);
    for _ in 0..200 {
        assert_eq!(wire.produce_one("t", -1, 1_000), 0);
    }
    if !volume.turns_read_only() {
        return;
    }
    let acked = 200 + until_refused(&broker, "t");
    // Whether the node goes on, or ends because it can't keep its metadata: nothing is promised any more.
    let patience = Duration::from_secs(15);
    for topic in ["new", "another"] {
        let connected = Wire::try_connect(&broker.address, patience);
        let answer = connected.and_then(|mut wire| wire.try_ask(5, &made(topic, 1, 1)));
        let code = answer.as_ref().map(|answer| answer.topics[0].error_code);
        println!("create {topic}: {code:?}; ended: {}", broker.has_ended());
        assert_ne!(code.ok(), Some(0), "a topic was made that nobody will find");
    }
    drop(broker);
    volume.mended();
    let broker = told(&data, &log, &settings);
    eventually("all is served", || get(&broker, "/readyz") == "ok\n");
    assert_eq!(read(&broker, "t"), acked, "what was acknowledged is what is read");
    let mut wire = Wire::connect(&broker.address);
    assert_eq!(wire.produce_one("t", -1, 1_000), 0);
    assert_eq!(wire.ask(5, &made("new", 1, 1)).topics[0].error_code, 0);
    assert!(broker.terminate().success());
}
