//! A disk on which each request takes 200 ms: what lies in another log directory of the broker does not notice.
//!
//! Needs root, loop devices, nbdkit and nbdfuse; where they are missing the story says so and is skipped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::broker::{BINARY, Broker, folder};
use crate::devices::{Device, sh};
use crate::first_run::cli;
use crate::kit::{self, eventually};
use crate::plans::Plan;

const REQUEST_MS: f64 = 200.0;
/// Half of what one wait for the disk takes: whoever waited for it is past this.
const UNTOUCHED_MS: f64 = REQUEST_MS / 2.0;

/// A file system on a device that takes its time.
struct SlowDisk {
    mount: PathBuf,
    _device: Device,
}

impl SlowDisk {
    fn new(folder: &Path) -> Result<Self, String> {
        kit::install_tools();
        let (image, mount) = (folder.join("image"), folder.join("slow"));
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        sh(&format!("truncate -s 1G {}", image.display()))?;
        sh(&format!(
            "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {}",
            image.display()
        ))?;
        let delays = [format!("rdelay={REQUEST_MS}ms"), format!("wdelay={REQUEST_MS}ms")];
        let delays: Vec<&str> = delays.iter().map(String::as_str).collect();
        let device = Device::new(&folder.join("nbd"), &image, "delay", &delays)?;
        sh(&format!("mount {} {}", device.path, mount.display()))?;
        Ok(Self { mount, _device: device })
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let _ = sh(&format!("umount -l {}", self.mount.display()));
    }
}

/// p99 and the largest of the times from sending a record to reading it, in ms.
fn end_to_end(broker: &Broker, topic: &str, seconds: u32) -> (f64, f64) {
    let seconds = seconds.to_string();
    let words = ["bench", "e2e", topic, "--rate", "200", "--seconds", &seconds];
    let text = cli(broker, &words);
    let after = |name: &str| {
        let found = text.split(name).nth(1).and_then(|rest| rest.split([',', '\n']).next());
        found.and_then(|number| number.trim().parse().ok()).expect("a number of ms")
    };
    (after("p99 "), after("max "))
}

fn load(broker: &Broker, words: &[&str]) -> Child {
    let mut command = Command::new(BINARY);
    command.arg("bench").args(words).args(["-b", &broker.address]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs")
}

#[test]
fn a_disk_of_200_ms_a_request_holds_up_no_partition_on_another_one() {
    let (folder, data) = folder();
    let slow = match SlowDisk::new(folder.path()) {
        Ok(slow) => slow,
        Err(why) => {
            println!("skipped: this machine makes no slow disk: {why}");
            return;
        }
    };
    let slow_data = slow.mount.join("data");
    let directories = format!("log.dirs={},{}", data.display(), slow_data.display());
    let small = ["log.dirs.min.free.bytes=0", "log.segment.bytes=1048576", &directories];
    let broker = Broker::start_with(&data, &small);
    let names = ["t1", "t2", "t3", "t4", "t5", "t6"];
    for name in names {
        cli(&broker, &["topic", "create", name, "-p", "1"]);
    }
    let (mut there, here): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| slow_data.join(format!("{name}-0")).exists());
    assert!(there.len() >= 2 && !here.is_empty(), "{there:?} {here:?}");
    let moved = there.pop().expect("a topic");
    cli(&broker, &["bench", "produce", moved, "--seconds", "1"]);
    let (alone, longest_alone) = end_to_end(&broker, here[0], 6);
    // Several segments a second are rolled there, by more connections than there are threads.
    let mut loads: Vec<Child> = there
        .iter()
        .flat_map(|topic| ["all", "1"].map(|acks| (topic, acks)))
        .map(|(topic, acks)| {
            let words = ["produce", topic, "--seconds", "12", "--clients", "4", "--acks", acks];
            load(&broker, &words)
        })
        .collect();
    // A replica comes from there meanwhile, too.
    Plan::to_directory(&broker.address, folder.path(), &[moved], &data).execute();
    loads.extend(there.iter().map(|topic| load(&broker, &["consume", topic, "--seconds", "8"])));
    let (beside, longest_beside) = end_to_end(&broker, here[0], 6);
    println!(
        "p99 {alone:.1} ms alone, {beside:.1} ms beside the slow disk; longest {longest_alone:.1} and {longest_beside:.1} ms"
    );
    for load in loads {
        let output = load.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for topic in &there {
        let rolled = || {
            let files = std::fs::read_dir(slow_data.join(format!("{topic}-0"))).expect("a folder");
            let is_log = |path: &Path| path.extension().is_some_and(|ending| ending == "log");
            files.flatten().filter(|file| is_log(&file.path())).count()
        };
        eventually("segments are rolled on the slow disk", || rolled() > 2);
    }
    eventually("the replica has moved", || data.join(format!("{moved}-0")).exists());
    let most = 1.2 * alone + UNTOUCHED_MS;
    assert!(beside < most, "p99 {beside} ms beside the slow disk, {alone} ms alone");
}
