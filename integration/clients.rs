//! Clients of other languages, unchanged.

use std::path::Path;
use std::process::Command;

use crate::broker::{Broker, folder};
use crate::kit::{eventually, go_client, java, kafka_jars, node_folder, python_script, succeed};

fn good(command: &mut Command) {
    let out = succeed(command);
    assert!(out.trim().ends_with("good"), "{out}");
}

#[test]
fn librdkafka_produces_consumes_rebalances_and_administers() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    good(python_script("librdkafka.py").arg(&broker.address));
}

#[test]
fn kafka_python_and_aiokafka_work_with_every_codec() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    good(python_script("others.py").arg(&broker.address));
}

#[test]
fn franz_go_works_with_every_codec() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    good(Command::new(go_client()).args(["franz", &broker.address]));
}

#[test]
fn sarama_works_with_every_codec() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    good(Command::new(go_client()).args(["sarama", &broker.address]));
}

#[test]
fn kafkajs_works() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    good(Command::new("node").arg(node_folder().join("kafkajs.js")).arg(&broker.address));
}

#[test]
fn clients_find_the_log_to_end_after_every_record_that_was_acknowledged_by_the_leader_alone() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    good(python_script("ends.py").arg(&broker.address));
    good(Command::new("node").arg(node_folder().join("ends.js")).arg(&broker.address));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a story is told in one piece")]
fn kafkas_own_tools_work() {
    let (folder, data) = folder();
    let broker = Broker::start(&data);
    let at: &str = &broker.address;
    let tool = |class: &str, arguments: &[&str]| {
        let all: Vec<&str> = [&["--bootstrap-server", at], arguments].concat();
        succeed(&mut java(&format!("org.apache.kafka.tools.{class}"), &all))
    };
    tool(
        "TopicCommand",
        &["--create", "--topic", "tools", "--partitions", "3", "--config", "retention.ms=100000"],
    );
    let described = tool("TopicCommand", &["--describe", "--topic", "tools"]);
    assert!(
        described.contains("PartitionCount: 3") && described.contains("retention.ms=100000"),
        "{described}"
    );
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let properties = format!("compression.type={codec}");
        let sent = succeed(&mut java(
            "org.apache.kafka.tools.ProducerPerformance",
            &[
                "--bootstrap-server",
                at,
                "--topic",
                "tools",
                "--num-records",
                "2000",
                "--record-size",
                "300",
                "--throughput",
                "-1",
                "--command-property",
                &properties,
                "acks=all",
            ],
        ));
        assert!(sent.contains("2000 records sent"), "{sent}");
    }
    let offsets = tool("GetOffsetShell", &["--topic", "tools"]);
    let total: u64 = offsets
        .lines()
        .filter_map(|line| line.rsplit(':').next()?.trim().parse::<u64>().ok())
        .sum();
    assert_eq!(total, 10_000, "{offsets}");
    let consumed = tool(
        "VerifiableConsumer",
        &["--topic", "tools", "--group-id", "tools", "--max-messages", "10000"],
    );
    assert!(consumed.contains("offsets_committed"), "{consumed}");
    let group = tool("consumer.group.ConsumerGroupCommand", &["--describe", "--group", "tools"]);
    assert!(group.contains("tools"), "{group}");
    let json = folder.path().join("delete.json");
    std::fs::write(
        &json,
        r#"{"partitions":[{"topic":"tools","partition":0,"offset":10}],"version":1}"#,
    )
    .expect("written");
    let deleted =
        tool("DeleteRecordsCommand", &["--offset-json-file", &json.display().to_string()]);
    assert!(deleted.contains("low_watermark: 10"), "{deleted}");
    let config = [
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        "tools",
        "--add-config",
        "cleanup.policy=[compact,delete]",
    ];
    succeed(&mut java(
        "kafka.admin.ConfigCommand",
        &[&["--bootstrap-server", at], &config[..]].concat(),
    ));
    let verified = tool("VerifiableProducer", &["--topic", "verified", "--max-messages", "1000"]);
    assert!(verified.contains("\"acked\":1000"), "{verified}");
    let log = data.join("verified-0/00000000000000000000.log");
    let dumped = succeed(&mut java(
        "org.apache.kafka.tools.DumpLogSegments",
        &["--files", &log.display().to_string()],
    ));
    assert!(dumped.contains("lastOffset: 999") && dumped.contains("isvalid: true"), "{dumped}");
    assert!(broker.terminate().success());
}

/// A Connect worker; killed when it is dropped.
pub(crate) struct Worker(std::process::Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(folder: &Path, bootstrap: &str, rest: u16) -> Worker {
    connect_with(folder, bootstrap, rest, &[])
}

/// The same with folders of further plugins.
pub(crate) fn connect_with(folder: &Path, bootstrap: &str, rest: u16, more: &[&Path]) -> Worker {
    let properties = folder.join("connect.properties");
    let plugins = more.iter().fold(kafka_jars().display().to_string(), |all, plugin| {
        format!("{all},{}", plugin.display())
    });
    let text = format!(
        "bootstrap.servers={bootstrap}\ngroup.id=connect\nconfig.storage.topic=connect-configs\n\
         offset.storage.topic=connect-offsets\nstatus.storage.topic=connect-status\n\
         config.storage.replication.factor=1\noffset.storage.replication.factor=1\nstatus.storage.replication.factor=1\n\
         offset.storage.partitions=3\nstatus.storage.partitions=2\noffset.flush.interval.ms=500\n\
         scheduled.rebalance.max.delay.ms=0\nplugin.discovery=service_load\nplugin.path={plugins}\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.storage.StringConverter\n\
         listeners=http://127.0.0.1:{rest}\n"
    );
    std::fs::write(&properties, text).expect("written");
    let mut command = java(
        "org.apache.kafka.connect.cli.ConnectDistributed",
        &[&properties.display().to_string()],
    );
    let log = std::fs::File::create(folder.join("connect.log")).expect("a log");
    command.stdout(log.try_clone().expect("a log")).stderr(log).stdin(std::process::Stdio::null());
    Worker(command.spawn().expect("java runs"))
}

pub(crate) fn curl(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("curl").args(["-sf", "-m", "5"]).args(arguments).output().expect("curl runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Where Connect keeps what it knows.
pub(crate) const CONNECT_TOPICS: [&str; 3] =
    ["connect-configs", "connect-offsets", "connect-status"];

#[test]
fn kafka_connect_moves_a_file_through_a_topic_and_survives_the_death_of_its_worker() {
    let (folder, data) = folder();
    let broker = Broker::start(&data);
    through_connect(folder.path(), &broker.address, || {});
}

/// Moves a file through a topic, and another part of it with a new worker after the first one died and `meanwhile` was done.
pub(crate) fn through_connect(folder: &Path, address: &str, meanwhile: impl FnOnce()) {
    let rest = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port")
        .port();
    let base = format!("http://127.0.0.1:{rest}/connectors");
    let (source, sink) = (folder.join("in.txt"), folder.join("out.txt"));
    let write = |from: usize, to: usize| {
        let text = (from..to).fold(String::new(), |all, n| all + &format!("line {n}\n"));
        let mut all = std::fs::read_to_string(&source).unwrap_or_default();
        all.push_str(&text);
        std::fs::write(&source, all).expect("written");
    };
    write(0, 500);
    let worker = connect(folder, address, rest);
    eventually("Connect starts", || curl(&[&base]).is_some());
    let put = |name: &str, config: &str| {
        let url = format!("{base}/{name}/config");
        eventually(name, || {
            curl(&["-X", "PUT", "-H", "Content-Type: application/json", "-d", config, &url])
                .is_some()
        });
    };
    put(
        "source",
        &format!(
            r#"{{"connector.class":"org.apache.kafka.connect.file.FileStreamSourceConnector","topic":"lines","file":"{}"}}"#,
            source.display()
        ),
    );
    put(
        "sink",
        &format!(
            r#"{{"connector.class":"org.apache.kafka.connect.file.FileStreamSinkConnector","topics":"lines","file":"{}"}}"#,
            sink.display()
        ),
    );
    eventually("500 lines arrive", || lines(&sink) >= 500);
    drop(worker);
    meanwhile();
    write(500, 1000);
    let _worker = connect(folder, address, rest);
    // A sink may write lines again after its worker's death (it commits now and then), but it leaves none out.
    eventually("every line arrives", || {
        let text = std::fs::read_to_string(&sink).unwrap_or_default();
        let arrived: std::collections::HashSet<&str> = text.lines().collect();
        (0..1000).all(|n| arrived.contains(format!("line {n}").as_str()))
    });
    for topic in CONNECT_TOPICS {
        let out = succeed(&mut java(
            "org.apache.kafka.tools.TopicCommand",
            &["--bootstrap-server", address, "--describe", "--topic", topic],
        ));
        assert!(out.contains("cleanup.policy=compact"), "{out}");
    }
}
