//! The suites' sources, from the registries' packages, and the programs that are built of them. All is kept below
//! `target/` for the next run.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::kit::{install, kafka_jars, kit, succeed};

/// Go modules, whose packages carry their tests.
pub(crate) const FRANZ_GO: &str = "github.com/twmb/franz-go@v1.22.0";
pub(crate) const KAFKA_GO: &str = "github.com/segmentio/kafka-go@v0.4.51";
pub(crate) const SARAMA: &str = "github.com/IBM/sarama@v1.61.1";
const TOXIPROXY: &str = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0";

const KAFKA_PYTHON: &str = "kafka-python==3.0.12";
const CONFLUENT_KAFKA: &str = "confluent-kafka[avro,json,protobuf,schemaregistry]==2.15.0";
const RDKAFKA: &str = "0.39.0";

/// What the Python suites need to run.
const PYTEST: [&str; 11] = [
    "pytest==9.2.0",
    "pytest-asyncio",
    "pytest-mock",
    "pytest-timeout",
    "py",
    "lz4",
    "python-snappy",
    "zstandard",
    "cramjam",
    "crc32c",
    "async-timeout",
];

/// Does something once, and notes that it is done.
fn once(folder: &Path, what: impl FnOnce()) {
    let done = folder.join("done");
    if !done.exists() {
        // What an interrupted run left is no beginning.
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).expect("target is writable");
        what();
        std::fs::write(done, "").expect("written");
    }
}

pub(crate) fn suites() -> PathBuf {
    kit().join("suites")
}

/// The test program of a package of a Go module, in the folder of the package.
pub(crate) fn go_tests(module: &str, package: &str, tags: &str) -> PathBuf {
    let name = module.split('@').next().expect("a name").rsplit('/').next().expect("a name");
    let folder = suites().join(module.replace('/', "-"));
    once(&folder, || {
        let mut download = Command::new("go");
        download.args(["mod", "download", "-json", module]).current_dir(&folder);
        let told = succeed(&mut download);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let found = told["Dir"].as_str().expect("a folder");
        let mut copied = Command::new("cp");
        copied.args(["-rT", "--no-preserve=mode", found]).arg(folder.join("source"));
        install(name, &mut copied);
        let mut build = Command::new("go");
        build.args(["test", "-mod=mod", "-tags", tags, "-c", "-o", "suite.test", "."]);
        install(name, build.current_dir(folder.join("source").join(package)));
    });
    folder.join("source").join(package).join("suite.test")
}

/// The proxy that breaks connections for sarama.
pub(crate) fn toxiproxy() -> PathBuf {
    let folder = suites().join("toxiproxy");
    once(&folder, || {
        let mut build = Command::new("go");
        install("toxiproxy", build.args(["install", TOXIPROXY]).env("GOBIN", &folder));
    });
    folder.join("server")
}

/// Python with pytest.
pub(crate) fn pytest() -> PathBuf {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    let python = ONCE.get_or_init(|| {
        let folder = suites().join("python");
        let python = folder.join("bin/python");
        once(&folder, || {
            let mut make = Command::new("python3");
            install("a virtual environment", make.args(["-m", "venv"]).arg(&folder));
            let mut pip = Command::new(&python);
            install("pytest", pip.args(["-m", "pip", "install", "-q"]).args(PYTEST));
        });
        python
    });
    python.clone()
}

/// What confluent-kafka-python's suite needs beside pytest.
pub(crate) fn confluent_kafka() {
    let mut pip = Command::new(pytest());
    pip.args(["-m", "pip", "install", "-q", CONFLUENT_KAFKA, "trivup", "requests"]);
    install("confluent-kafka", &mut pip);
}

/// kafka-python with its tests, and what they miss of themselves.
pub(crate) fn kafka_python() -> PathBuf {
    let folder = suites().join(KAFKA_PYTHON);
    let source =
        folder.join(KAFKA_PYTHON.replace("==", "-").replace("kafka-python", "kafka_python"));
    once(&folder, || {
        let mut pip = Command::new(pytest());
        pip.args(["-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:", KAFKA_PYTHON]);
        install("kafka-python's source", pip.current_dir(&folder));
        let archive = source.with_file_name(format!(
            "{}.tar.gz",
            source.file_name().expect("a name").to_string_lossy()
        ));
        install("tar", Command::new("tar").arg("-xzf").arg(archive).current_dir(&folder));
        std::fs::write(source.join("test/__init__.py"), "").expect("written");
        std::fs::copy(super::shim("service.py"), source.join("test/service.py")).expect("copied");
    });
    source
}

/// The folder of the crates of rust-rdkafka and of librdkafka, with the tests of both.
fn crates() -> PathBuf {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    let folder = ONCE.get_or_init(|| {
        let folder = suites().join(format!("rdkafka-{RDKAFKA}"));
        once(&folder, || {
            let asker = folder.join("asker");
            std::fs::create_dir_all(asker.join("src")).expect("target is writable");
            std::fs::write(asker.join("src/lib.rs"), "").expect("written");
            let text = format!(
                "[package]\nname = \"asker\"\nedition = \"2024\"\n[workspace]\n[dependencies]\nrdkafka = \"={RDKAFKA}\"\n"
            );
            std::fs::write(asker.join("Cargo.toml"), text).expect("written");
            let mut vendor = Command::new("cargo");
            vendor.args(["vendor", "--quiet"]).arg(folder.join("vendor"));
            install("rust-rdkafka", vendor.current_dir(&asker));
        });
        folder
    });
    folder.clone()
}

/// The test programs of rust-rdkafka, and the folder they run in.
pub(crate) fn rust_rdkafka() -> (PathBuf, Vec<PathBuf>) {
    let source = crates().join("vendor/rdkafka");
    let list = source.join("programs");
    if !list.exists() {
        let mut build = Command::new("cargo");
        build.args(["test", "--no-run", "--tests", "--message-format=json"]);
        build.current_dir(&source).env("CARGO_TARGET_DIR", crates().join("target"));
        let output = build.output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let programs = text.lines().filter_map(|line| {
            let told: serde_json::Value = serde_json::from_str(line).ok()?;
            told["executable"].as_str().map(|path| format!("{path}\n"))
        });
        std::fs::write(&list, programs.collect::<String>()).expect("written");
    }
    let text = std::fs::read_to_string(&list).expect("a list");
    (source, text.lines().map(PathBuf::from).collect())
}

/// librdkafka's folder of tests, with its test program built.
pub(crate) fn librdkafka() -> PathBuf {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    let source = ONCE.get_or_init(|| {
        let folder = suites().join("librdkafka");
        let source = folder.join("source");
        let vendored = crates().join("vendor/rdkafka-sys/librdkafka");
        once(&folder, || {
            let mut copied = Command::new("cp");
            install("librdkafka", copied.arg("-rT").arg(vendored).arg(&source));
            let mut configure = Command::new("bash");
            configure.args([
                "configure",
                "--disable-gssapi",
                "--disable-curl",
                "--disable-optimization",
            ]);
            install("librdkafka", configure.current_dir(&source));
            let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
            let mut make = Command::new("make");
            install("librdkafka", make.args(["-j", &cores, "libs"]).current_dir(&source));
            let mut make = Command::new("make");
            make.args(["-j", &cores, "-C", "tests", "test-runner"]);
            install("librdkafka's tests", make.current_dir(&source));
        });
        source
    });
    source.join("tests")
}

/// A folder like Apache Kafka's own, with the tools that librdkafka's tests call.
pub(crate) fn kafka_tools() -> &'static Path {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    ONCE.get_or_init(|| {
        let folder = suites().join("kafka-tools");
        let tools = [("kafka-topics.sh", "TopicCommand"), ("kafka-acls.sh", "AclCommand")];
        std::fs::create_dir_all(folder.join("bin")).expect("target is writable");
        for (name, class) in tools {
            let text = format!(
                "#!/bin/sh\nexec java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp '{}/*' org.apache.kafka.tools.{class} \"$@\"\n",
                kafka_jars().display()
            );
            let path = folder.join("bin").join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("permitted");
        }
        folder
    })
}
