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
use crate::wire::{Wire, batch_at, produce};

const REQUEST_MS: f64 = 200.0;
/// Half of what one wait for the disk takes: whoever waited for it is past this.
const UNTOUCHED_MS: f64 = REQUEST_MS / 2.0;

/// Segments of a topic that nothing has read since the disk was mounted.
const COLD_SEGMENTS: i64 = 1_000;

/// A file system that is on a device as quick as any at first, and then on one that takes its time.
struct SlowDisk {
    mount: PathBuf,
    image: PathBuf,
    device: Option<Device>,
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
        sh(&format!("mount -o loop {} {}", image.display(), mount.display()))?;
        Ok(Self { mount, image, device: None })
    }

    fn slow_down(&mut self, folder: &Path) -> Result<(), String> {
        sh(&format!("umount {}", self.mount.display()))?;
        let delays = [format!("rdelay={REQUEST_MS}ms"), format!("wdelay={REQUEST_MS}ms")];
        let delays: Vec<&str> = delays.iter().map(String::as_str).collect();
        let device = Device::new(&folder.join("nbd"), &self.image, "delay", &delays)?;
        sh(&format!("mount {} {}", device.path, self.mount.display()))?;
        self.device = Some(device);
        Ok(())
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

/// A record an hour, each in a segment of its own.
fn fill(broker: &Broker, topic: &str) {
    const HOUR_MS: i64 = 3_600_000;
    cli(broker, &["topic", "alter", topic, "segment.ms=60000", "retention.ms=-1"]);
    let mut wire = Wire::connect(&broker.address);
    for hour in 0..COLD_SEGMENTS {
        let time = 1_700_000_000_000 + hour * HOUR_MS;
        let answer = wire.ask(9, &produce(topic, 1, batch_at(time, 1, 1_000, -1)));
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "record {hour}");
    }
}

fn segments(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    files.filter(|file| file.path().extension().is_some_and(|ending| ending == "log")).count()
}

/// Topics of a broker: on the slow disk, the first of them with a thousand segments, and on the other one.
type Topics = (Vec<&'static str>, Vec<&'static str>);

/// A disk that is slow from now on, with topics on it that were made before.
fn prepare(folder: &Path, data: &Path, settings: &[&str]) -> Result<(SlowDisk, Topics), String> {
    let mut slow = SlowDisk::new(folder)?;
    let broker = Broker::start_with(data, settings);
    let names = ["t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8"];
    for name in names {
        cli(&broker, &["topic", "create", name, "-p", "1"]);
    }
    let lies_there = |name: &&str| slow.mount.join("data").join(format!("{name}-0")).exists();
    let (there, here): Topics = names.iter().partition(|name| lies_there(name));
    assert!(there.len() >= 3 && !here.is_empty(), "{there:?} {here:?}");
    fill(&broker, there[0]);
    assert!(broker.terminate().success());
    slow.slow_down(folder)?;
    Ok((slow, (there, here)))
}

#[test]
fn a_disk_of_200_ms_a_request_holds_up_no_partition_on_another_one() {
    let (folder, data) = folder();
    let slow_data = folder.path().join("slow").join("data");
    let directories = format!("log.dirs={},{}", data.display(), slow_data.display());
    let small = ["log.dirs.min.free.bytes=0", "log.segment.bytes=1048576", &directories];
    let (_slow, (mut there, here)) = match prepare(folder.path(), &data, &small) {
        Ok(prepared) => prepared,
        Err(why) => {
            println!("skipped: this machine makes no slow disk: {why}");
            return;
        }
    };
    let broker = Broker::start_with(&data, &small);
    let cold = there.remove(0);
    assert!(segments(&slow_data.join(format!("{cold}-0"))) >= 1_000);
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
    // Old segments are read from several places at once; each has to wait for the disk, several times.
    let readers: Vec<Child> = (0..COLD_SEGMENTS)
        .step_by(200)
        .map(|offset| {
            let mut reader = Command::new(BINARY);
            reader.args(["consume", cold, "-n", "5", "-b", &broker.address, "-o"]);
            reader.arg(offset.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
            reader.spawn().expect("it runs")
        })
        .collect();
    let (beside, longest_beside) = end_to_end(&broker, here[0], 6);
    println!(
        "p99 {alone:.1} ms alone, {beside:.1} ms beside the slow disk; longest {longest_alone:.1} and {longest_beside:.1} ms"
    );
    for load in loads {
        let output = load.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for reader in readers {
        let output = reader.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 5, "{said}");
    }
    for topic in &there {
        let folder = slow_data.join(format!("{topic}-0"));
        eventually("segments are rolled on the slow disk", || segments(&folder) > 2);
    }
    eventually("the replica has moved", || data.join(format!("{moved}-0")).exists());
    let most = 1.2 * alone + UNTOUCHED_MS;
    assert!(beside < most, "p99 {beside} ms beside the slow disk, {alone} ms alone");
}
