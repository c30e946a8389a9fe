//! A PostgreSQL server of the story's own, which tells its changes (`wal_level=logical`).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::installs::has_packages;
use super::{calmly, free_port};
use crate::kit::{after, succeed};

pub(super) struct Postgres {
    child: Child,
    pub port: u16,
}

/// Where Debian keeps the newest server's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}

/// The server does not run as root: then it runs as the package's user.
fn prefix() -> Vec<String> {
    let is_root = succeed(Command::new("id").arg("-u")).trim() == "0";
    let words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"];
    if is_root { words.map(ToOwned::to_owned).to_vec() } else { Vec::new() }
}

impl Postgres {
    /// Starts it below a folder; nothing where there is none.
    pub(super) fn start(folder: &Path) -> Option<Self> {
        if programs().is_none()
            && !has_packages(&["postgresql"], &["/usr/share/doc/postgresql", "psql"])
        {
            return None;
        }
        let (programs, data) = (programs().expect("initdb is there"), folder.join("postgres"));
        let prefix = prefix();
        std::fs::create_dir(&data).expect("a folder");
        if !prefix.is_empty() {
            // The user gets in, and owns what is its own.
            let mut mode = std::fs::metadata(folder).expect("a folder").permissions();
            mode.set_mode(0o711);
            std::fs::set_permissions(folder, mode).expect("a folder");
            succeed(Command::new("chown").arg("postgres:postgres").arg(&data));
        }
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-D"]).arg(&data);
        succeed(after(&prefix, &initdb).current_dir("/"));
        let port = free_port();
        let mut server = Command::new(programs.join("postgres"));
        server.arg("-D").arg(&data).args(["-c", "wal_level=logical", "-c"]);
        server.arg("listen_addresses=127.0.0.1").args(["-p", &port.to_string(), "-k"]).arg(&data);
        let log = std::fs::File::create(folder.join("postgres.log")).expect("a log");
        let mut command = after(&prefix, &server);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
        let child = command.spawn().expect("the server runs");
        let server = Self { child, port };
        calmly("PostgreSQL answers", || {
            server.psql().args(["-c", "select 1"]).output().expect("psql").status.success()
        });
        Some(server)
    }

    fn psql(&self) -> Command {
        let mut command = Command::new("psql");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        command.args(["-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    pub(super) fn ask(&self, sql: &str) -> String {
        succeed(self.psql().args(["-c", sql]))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, with its own processes.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
