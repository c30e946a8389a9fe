//! The power is cut again and again while a client produces: what was acknowledged with `acks=all` is there.
//!
//! A small file system in a file is shut down by force (what is not flushed is gone), the broker killed, and the file
//! system mounted again. Needs root and loop devices; where they are missing the story says so and is skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::broker::{Broker, folder};
use crate::kit::{python_script, shut_down};

const CUTS: u32 = 5;
/// A file system in a file; unmounted when it is dropped.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Disk {
    fn new(folder: &Path) -> Result<Self, String> {
        let disk = Self { image: folder.join("image"), mount: folder.join("disk") };
        std::fs::create_dir_all(&disk.mount).map_err(|error| error.to_string())?;
        run(Command::new("truncate").args(["-s", "512M"]).arg(&disk.image))?;
        run(Command::new("mkfs.ext4").arg("-q").arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.mount))
    }

    fn cut_power(&self) -> Result<(), String> {
        run(&mut shut_down(&self.mount))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
    }
}

#[test]
fn nothing_acknowledged_by_all_is_lost_when_the_power_is_cut() {
    let (folder, _) = folder();
    let disk = match Disk::new(folder.path()) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: this machine mounts no file system of ours: {why}");
            return;
        }
    };
    let data = disk.mount.join("data");
    let small = ["log.dirs.min.free.bytes=0"];
    let broker = Broker::start_with(&data, &small);
    let listen = format!("listeners=PLAINTEXT://{}", broker.address);
    let mut script = python_script("crash.py");
    let client = script.args([&broker.address, "10"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = client.spawn().expect("python runs");
    std::thread::sleep(Duration::from_secs(2));
    let mut broker = Some(broker);
    for _ in 0..CUTS {
        std::thread::sleep(Duration::from_millis(900));
        disk.cut_power().expect("shut down");
        broker.take().expect("running").kill();
        disk.unmount().expect("unmounted");
        disk.mount().expect("mounted again");
        broker = Some(Broker::start_with(&data, &[small[0], &listen]));
    }
    let output = client.wait_with_output().expect("python ends");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    let result: serde_json::Value = serde_json::from_str(out.trim()).expect("JSON");
    for what in ["lost", "moved", "doubled", "reordered"] {
        assert_eq!(result["all"][what], 0, "{what}: {out}");
    }
    assert!(result["all"]["acked"].as_u64().unwrap_or(0) > 1000, "too little was produced: {out}");
    drop(broker);
}
