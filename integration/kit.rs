//! What the stories need besides the Rust toolchain: client libraries, by name, from the machine's package managers.
//!
//! Everything lands below `target/integration` and is reused by the next run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::watch;

/// Longest time that a client program may take.
const CLIENT_SECONDS: u64 = 240;

/// Longest time that an installer may take: some compile what they bring.
const INSTALL_SECONDS: u64 = 600;

/// Where all of it lands.
pub(crate) fn kit() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kit");
    std::fs::create_dir_all(&folder).expect("target is writable");
    folder
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/clients").join(name)
}

/// Runs an installer; a missing one is named in one line.
pub(crate) fn install(what: &str, command: &mut Command) {
    let program = command.get_program().to_string_lossy().into_owned();
    match end(command, INSTALL_SECONDS) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            panic!(
                "{program} could not install {what}: {}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        Err(error) => panic!("{program} is missing, needed to install {what}: {error}"),
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// Python with confluent-kafka (librdkafka), kafka-python and aiokafka.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let folder = kit().join("python");
        let python = folder.join("bin/python");
        let done = folder.join("done");
        if !done.exists() {
            install(
                "a virtual environment",
                Command::new("python3").args(["-m", "venv"]).arg(&folder),
            );
            let names = [
                "confluent-kafka",
                "kafka-python",
                "aiokafka",
                "python-snappy",
                "lz4",
                "zstandard",
                "cramjam",
            ];
            install(
                "the Python clients",
                Command::new(&python).args(["-m", "pip", "install", "-q"]).args(names),
            );
            std::fs::write(done, "").expect("written");
        }
        python
    })
}

/// The folder of Apache Kafka's jars: clients, tools, Connect.
pub(crate) fn kafka_jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let folder = kit().join("java");
        copy(&source("java"), &folder);
        if !folder.join("done").exists() {
            let mut maven = Command::new("mvn");
            install(
                "Apache Kafka's jars",
                maven.args(["-B", "-q", "dependency:copy-dependencies"]).current_dir(&folder),
            );
            std::fs::write(folder.join("done"), "").expect("written");
        }
        folder.join("libs")
    })
}

/// The program on franz-go and sarama.
pub(crate) fn go_client() -> &'static Path {
    static GO: OnceLock<PathBuf> = OnceLock::new();
    GO.get_or_init(|| {
        let folder = kit().join("go");
        copy(&source("go"), &folder);
        let mut build = Command::new("go");
        install(
            "the Go clients",
            build.args(["build", "-mod=mod", "-o", "client", "."]).current_dir(&folder),
        );
        folder.join("client")
    })
}

/// An S3 server: versitygw, which keeps objects as files of a folder.
pub(crate) fn s3_server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = kit().join("s3");
        let server = folder.join("versitygw");
        if !server.exists() {
            let mut build = Command::new("go");
            build.args(["install", "github.com/versity/versitygw/cmd/versitygw@v1.8.0"]);
            install("the S3 server", build.env("GOBIN", &folder));
        }
        server
    })
}

/// The folder of KafkaJS and the scripts that use it.
pub(crate) fn node_folder() -> &'static Path {
    static NODE: OnceLock<PathBuf> = OnceLock::new();
    NODE.get_or_init(|| {
        let folder = kit().join("node");
        copy(&source("node"), &folder);
        if !folder.join("node_modules").exists() {
            let mut npm = Command::new("npm");
            install(
                "KafkaJS",
                npm.args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(&folder),
            );
        }
        folder
    })
}

/// A Python script of `integration/clients/python`.
pub(crate) fn python_script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(source("python").join(name));
    command
}

/// One of Kafka's tools or any main class.
pub(crate) fn java(class: &str, arguments: &[&str]) -> Command {
    java_with(&[], class, arguments)
}

/// The same with folders of further jars.
pub(crate) fn java_with(more: &[&Path], class: &str, arguments: &[&str]) -> Command {
    let jars = kafka_jars();
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    let path = more.iter().fold(format!("{}/*", jars.display()), |path, folder| {
        format!("{path}:{}/*", folder.display())
    });
    command.arg(path);
    let logging = jars.parent().expect("a parent").join("log4j2.xml");
    command
        .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
        .arg(class)
        .args(arguments);
    command
}

/// A Java program of `integration/clients/java`.
pub(crate) fn java_program(name: &str, arguments: &[&str]) -> Command {
    let path = source("java").join(format!("{name}.java"));
    java(&path.display().to_string(), arguments)
}

/// Runs a client to its end; panics with its words if it fails or hangs.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = finish(command);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed\n{out}\n{err}");
    out.into_owned()
}

/// Runs a client to its end, however that is.
pub(crate) fn finish(command: &mut Command) -> Output {
    finish_within(command, CLIENT_SECONDS)
}

/// Runs a program to its end, which must come within some seconds.
pub(crate) fn finish_within(command: &mut Command, seconds: u64) -> Output {
    end(command, seconds).unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
}

/// Runs a program to its end, which must come within some seconds; an error where it does not start.
fn end(command: &mut Command, seconds: u64) -> std::io::Result<Output> {
    let limit = Duration::from_secs(seconds);
    watch::may_take(limit);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let pid = child.id();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    if let Ok(output) = end.recv_timeout(limit) {
        return Ok(output.expect("the program ran"));
    }
    // Those that it started hold its output open: without them its last words come.
    let below = watch::descendants(pid);
    watch::kill(&[&below[..], &[pid]].concat());
    let Ok(output) = end.recv_timeout(Duration::from_secs(10)) else {
        panic!("{command:?} hung after {seconds} s, and somebody still holds its output")
    };
    let output = output.expect("the program ran");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    panic!("{command:?} hung after {seconds} s\n{out}\n{err}");
}

/// Whether programs are there.
pub(crate) fn has_tools(names: &[&str]) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    names.iter().all(|name| folders.iter().any(|folder| folder.join(name).exists()))
}

/// The library that shows a process another wall clock.
pub(crate) fn fake_clock_library() -> Option<PathBuf> {
    let roots = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime"));
    let libraries = roots.map(|root| Path::new(&root).join("libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

/// What makes packets, clocks and disks fail, where this process may install it; the stories say what is missing.
pub(crate) fn install_tools() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let names = ["iptables", "nbdkit", "nbdfuse"];
        if has_tools(&names) && fake_clock_library().is_some() || !has_tools(&["apt-get"]) {
            return;
        }
        if let Err(why) = apt_get(&[&["faketime"], &names[..]].concat()) {
            println!("apt-get could not install {names:?} and faketime: {why}");
        }
    });
}

/// Installs Debian packages, where this process may; why not, where it may not.
pub(crate) fn apt_get(names: &[&str]) -> Result<(), String> {
    let mut update = Command::new("apt-get");
    let _ = end(update.args(["update", "-qq"]), INSTALL_SECONDS);
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends", "-o"]);
    install.arg("DPkg::Lock::Timeout=300").args(names).env("DEBIAN_FRONTEND", "noninteractive");
    let output = end(&mut install, INSTALL_SECONDS).map_err(|error| error.to_string())?;
    let why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    if output.status.success() { Ok(()) } else { Err(why) }
}

/// Shuts a file system down by force: `FS_IOC_SHUTDOWN` with `NOLOGFLUSH`, so that the journal is not written out either.
pub(crate) fn shut_down(mount: &Path) -> Command {
    const SCRIPT: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(mount);
    command
}

/// Puts words before a command: it runs in another network, for instance.
pub(crate) fn after(prefix: &[String], command: &Command) -> Command {
    let mut words: Vec<std::ffi::OsString> = prefix.iter().map(Into::into).collect();
    words.push(command.get_program().to_owned());
    words.extend(command.get_args().map(ToOwned::to_owned));
    let mut whole = Command::new(&words[0]);
    whole.args(&words[1..]);
    whole
}

/// Waits until something is true.
pub(crate) fn eventually(what: &str, is_true: impl FnMut() -> bool) {
    eventually_within(Duration::from_mins(1), Duration::from_millis(50), what, is_true);
}

/// The same with a limit, and a pause between looks, of the caller's.
pub(crate) fn eventually_within(
    limit: Duration,
    pause: Duration,
    what: &str,
    mut is_true: impl FnMut() -> bool,
) {
    watch::watch();
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < limit, "{what} did not happen");
        std::thread::sleep(pause);
    }
}
