//! How the tools get here: by name from the machine's package managers, below the kit's folder, to be used again by the next run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::kit::{apt_get, copy, has_tools, install, kit};

/// One installation at a time: stories run side by side.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The folder of a tool's program and its list of packages.
pub(super) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/ecosystem").join(name)
}

fn folder(name: &str) -> PathBuf {
    kit().join("ecosystem").join(name)
}

/// Programs of Debian packages. Where they are not there and this process may not install them, the story is left out, in one line.
pub(super) fn has_packages(names: &[&str], files: &[&str]) -> bool {
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = || {
        let (paths, programs): (Vec<&str>, Vec<&str>) =
            files.iter().partition(|file| file.starts_with('/'));
        has_tools(&programs) && paths.iter().all(|path| Path::new(path).exists())
    };
    if is_there() {
        return true;
    }
    let installed = apt_get(names);
    let is_there = is_there();
    if !is_there {
        let why = installed.err().unwrap_or_else(|| format!("without {files:?}"));
        println!("left out: {names:?} missing, apt-get could not install: {why}");
    }
    is_there
}

/// The program on rskafka and samsa.
pub(super) fn rust_clients() -> PathBuf {
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let target = folder("rust");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--manifest-path"]);
    cargo.arg(source("rust").join("Cargo.toml")).env("CARGO_TARGET_DIR", &target);
    install("rskafka and samsa", &mut cargo);
    target.join("debug/strandline-ecosystem")
}

/// Python with what a tool's `requirements.txt` names.
pub(super) fn python(name: &str) -> PathBuf {
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, list) = (folder(name), source(name).join("requirements.txt"));
    let python = folder.join("bin/python");
    once(&folder, &list, || {
        install("a virtual environment", Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let mut pip = Command::new(&python);
        install(name, pip.args(["-m", "pip", "install", "-q", "-r"]).arg(&list));
    });
    python
}

/// The folder of a tool on Node.js with its packages.
pub(super) fn node(name: &str) -> PathBuf {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund"]);
    with_packages(name, "package.json", npm)
}

/// The folder of the jars that a tool's `pom.xml` names.
pub(super) fn jars(name: &str) -> PathBuf {
    let mut maven = Command::new("mvn");
    maven.args(["-B", "-q", "dependency:copy-dependencies"]);
    with_packages(name, "pom.xml", maven).join("libs")
}

/// A copy of a tool's folder, in which an installer has brought what its list of packages names.
fn with_packages(name: &str, list: &str, mut installer: Command) -> PathBuf {
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder(name);
    copy(&source(name), &folder);
    once(&folder, &source(name).join(list), || install(name, installer.current_dir(&folder)));
    folder
}

/// A Java program of a tool's folder, compiled: a command that runs its main class.
pub(super) fn java_program(name: &str, class: &str, options: &[&str]) -> Command {
    let jars = jars(name);
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder(name);
    let (classes, path) = (folder.join("classes"), format!("{}/*", jars.display()));
    let mut javac = Command::new("javac");
    javac.args(["-parameters", "-proc:none", "-cp", &path, "-d"]).arg(&classes);
    install(name, javac.arg(folder.join(format!("{class}.java"))));
    let mut java = Command::new("java");
    java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]).args(options);
    java.args(["-cp", &format!("{}:{path}", classes.display()), class]);
    java
}

/// Installs where that was not done for this very list of packages.
fn once(folder: &Path, list: &Path, installs: impl FnOnce()) {
    let done = folder.join("done");
    let wanted = std::fs::read_to_string(list).expect("a list of packages");
    if std::fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return;
    }
    installs();
    std::fs::write(done, wanted).expect("written");
}
