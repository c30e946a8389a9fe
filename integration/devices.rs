//! Block devices that misbehave: a file behind nbdkit with one of its filters, a FUSE file, and a loop device.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs words to their end; what they printed.
pub(crate) fn sh(words: &str) -> Result<String, String> {
    let mut split = words.split_whitespace();
    let mut command = Command::new(split.next().unwrap_or_default());
    let output = command.args(split).output().map_err(|error| format!("{words}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Gone when it is dropped.
pub(crate) struct Device {
    server: Child,
    mount: PathBuf,
    pub path: String,
}

impl Device {
    /// Shows a file as a device, through one of nbdkit's filters and its settings; `mount` is a folder for what lies between.
    pub(crate) fn new(
        mount: &Path,
        image: &Path,
        filter: &str,
        settings: &[&str],
    ) -> Result<Self, String> {
        std::fs::create_dir_all(mount).map_err(|error| error.to_string())?;
        let file = mount.join("nbd");
        let mut server = Command::new("nbdfuse");
        server.arg(&file).args(["[", "nbdkit", &format!("--filter={filter}"), "file"]).arg(image);
        server.args(settings).arg("]");
        let server =
            server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = server.map_err(|error| format!("nbdfuse: {error}"))?;
        let mut device = Self { server, mount: mount.to_owned(), path: String::new() };
        let begun = Instant::now();
        while !file.exists() {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err("nbdfuse shows no device".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        device.path = sh(&format!("losetup -f --show {}", file.display()))?;
        Ok(device)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // By then the file system on it is unmounted, unless something went wrong before.
        let _ = sh(&format!("losetup -d {}", self.path));
        let _ = sh(&format!("umount -l {}", self.mount.display()));
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
