//! What a newcomer and an operator do first.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::{BINARY, Broker, folder, run};

/// Runs a client command of the binary against a broker; panics with its words if it fails.
pub(crate) fn cli(broker: &Broker, arguments: &[&str]) -> String {
    let output = run(&[arguments, &["-b", &broker.address]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a topic of one partition.
pub(crate) fn create(broker: &Broker, topic: &str, settings: &[&str]) {
    let settings = settings.iter().flat_map(|setting| ["-c", setting]);
    let words = ["topic", "create", topic, "-p", "1"].into_iter().chain(settings);
    cli(broker, &words.collect::<Vec<_>>());
}

/// Sends lines to a topic; returns what was said on stderr and whether it went well.
pub(crate) fn produce(broker: &Broker, topic: &str, lines: &str) -> (bool, String) {
    let mut command = Command::new(BINARY);
    command.args(["produce", "-b", &broker.address, topic]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let sent = child.stdin.take().expect("piped").write_all(lines.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    // A command that is refused ends at once, maybe before it read every line.
    assert!(sent.is_ok() || !output.status.success(), "{sent:?}, and yet it went well");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(crate) fn consume(broker: &Broker, topic: &str) -> String {
    cli(broker, &["consume", topic, "-o", "start", "-e"])
}

pub(crate) fn get(broker: &Broker, path: &str) -> String {
    let url = format!("http://{}{path}", broker.http);
    let output = Command::new("curl").args(["-s", "-m", "10", &url]).output().expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_record_goes_in_and_comes_out_and_is_there_after_a_restart() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    println!("ready in {:?}, {} KiB resident", broker.started_in, broker.resident_kib());
    assert!(produce(&broker, "greetings", "hello\nworld\n").0);
    assert_eq!(consume(&broker, "greetings"), "hello\nworld\n");
    assert!(broker.terminate().success());
    assert!(data.join("clean-shutdown").exists());
    let broker = Broker::start(&data);
    assert!(!data.join("clean-shutdown").exists());
    assert!(produce(&broker, "greetings", "again\n").0);
    assert_eq!(consume(&broker, "greetings"), "hello\nworld\nagain\n");
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let (_folder, data) = folder();
    let _broker = Broker::start(&data);
    let second = run(&[
        "serve",
        "--set",
        &format!("log.dirs={}", data.display()),
        "--set",
        "listeners=PLAINTEXT://127.0.0.1:0",
    ]);
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && error.contains("is in use by another process"), "{error}");
}

#[test]
fn wrong_settings_are_refused_with_the_way_out() {
    let refused = |arguments: &[&str]| {
        let output = run(&[&["serve", "--check-config"], arguments].concat());
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["--set", "num.partition=1"]).contains("did you mean 'num.partitions'?"));
    assert!(refused(&["--set", "num.partitions=many"]).contains("Not a number"));
    assert!(refused(&["--set", "listeners=9092"]).contains("NAME://host:port"));
    assert!(refused(&["--set", "advertised.listeners=OTHER://h:1"]).contains("no listener named"));
    assert!(refused(&["--config", "/no/such/file"]).contains("/no/such/file"));
    // What asks for safety that is not there does not start, whichever way it is asked for.
    for (setting, way_out) in [
        ("listeners=SASL_SSL://127.0.0.1:0", "SASL is not built"),
        ("listeners=OUTSIDE://127.0.0.1:0", "OUTSIDE:SSL"),
        ("authorizer.class.name=a.B", "there are no ACLs"),
        ("ssl.client.auth=required", "no listener speaks it"),
    ] {
        assert!(refused(&["--set", setting]).contains(way_out), "{setting}");
        let (name, value) = setting.split_once('=').expect("a setting");
        let name = format!("STRANDLINE_{}", name.to_ascii_uppercase().replace('.', "_"));
        let mut started = Command::new(BINARY);
        let output = started.arg("serve").env(name, value).output().expect("the binary runs");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && why.contains(way_out), "{setting}: {why}");
    }
    let good = run(&["serve", "--check-config", "--set", "num.partitions=3"]);
    assert!(good.status.success());
    let explained = run(&["config", "explain", "log.retention.ms"]);
    assert!(
        String::from_utf8_lossy(&explained.stdout).contains("Age at which segments are deleted")
    );
}

#[test]
fn health_metrics_and_the_configuration_are_shown_over_http() {
    let (_folder, data) = folder();
    let broker = Broker::start_with(&data, &["num.partitions=2"]);
    assert!(produce(&broker, "t", "a\nb\nc\n").0);
    cli(&broker, &["consume", "t", "-o", "start", "-e", "-g", "readers", "-n", "1"]);
    assert_eq!(get(&broker, "/livez"), "ok\n");
    assert_eq!(get(&broker, "/readyz"), "ok\n");
    let metrics = get(&broker, "/metrics");
    for line in [
        "kafka_brokers 1",
        "kafka_topic_partitions{topic=\"t\"} 2",
        "kafka_consumergroup_lag_sum{consumergroup=\"readers\",topic=\"t\"} 2",
        "strandline_requests_total{api=\"Produce\"}",
        "strandline_consumergroup_lag_seconds{consumergroup=\"readers\"",
        "strandline_offline_partitions 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let config: serde_json::Value =
        serde_json::from_str(&get(&broker, "/v1/config/effective")).expect("JSON");
    assert_eq!(
        config["num.partitions"],
        serde_json::json!({ "value": "2", "origin": "command line" })
    );
    assert_eq!(config["log.retention.hours"]["origin"], "default");
}

#[test]
fn each_listener_tells_its_own_address_also_on_ipv6() {
    let (_folder, data) = folder();
    let listeners = "listeners=INSIDE://127.0.0.1:0,OUTSIDE://[::1]:0";
    let map = "listener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT";
    let advertised = "advertised.listeners=OUTSIDE://[::1]:0";
    let broker = Broker::start_with(&data, &[listeners, map, advertised]);
    let info = cli(&broker, &["cluster", "info"]);
    assert!(info.contains(&broker.address), "{info}");
}

#[test]
fn the_commands_do_what_they_say() {
    let (folder, data) = folder();
    let broker = Broker::start(&data);
    cli(&broker, &["topic", "create", "t", "-p", "2", "-c", "retention.ms=1000000"]);
    let mut command = Command::new(BINARY);
    command.args(["produce", "-b", &broker.address, "t", "-k", "=", "-H", "h=1", "-z", "lz4"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().expect("piped").write_all(b"a=1\nb=2\n").expect("written");
    assert!(child.wait().expect("it ends").success());
    let mut shown: Vec<String> =
        cli(&broker, &["consume", "t", "-o", "start", "-e", "-f", "%k=%v %h\\n"])
            .lines()
            .map(str::to_owned)
            .collect();
    shown.sort();
    assert_eq!(shown, ["a=1 h=1", "b=2 h=1"]);
    cli(&broker, &["consume", "t", "-o", "start", "-e", "-g", "g"]);
    let lag: serde_json::Value =
        serde_json::from_str(&cli(&broker, &["group", "lag", "g", "--format", "json"]))
            .expect("JSON");
    assert!(lag.as_array().expect("rows").iter().all(|row| row["lag"] == 0), "{lag}");
    cli(&broker, &["group", "seek", "g", "t", "start"]);
    assert!(cli(&broker, &["group", "ls"]).contains('g'));
    cli(&broker, &["topic", "alter", "t", "retention.ms="]);
    cli(&broker, &["topic", "add-partitions", "t", "4"]);
    assert!(!cli(&broker, &["topic", "describe", "t"]).contains("retention.ms"));
    cli(&broker, &["topic", "trim", "t", "-p", "0", "-o", "-1"]);
    assert!(cli(&broker, &["cluster", "health"]).starts_with("Healthy"));
    let file = folder.path().join("file");
    std::fs::write(&file, "a whole file").expect("written");
    cli(&broker, &["produce", "files", "-f", &file.display().to_string()]);
    assert_eq!(consume(&broker, "files"), "a whole file\n");
    cli(&broker, &["group", "rm", "g"]);
    cli(&broker, &["topic", "rm", "t", "files"]);
    assert!(!cli(&broker, &["topic", "ls"]).contains("files"));
    let missing = run(&["topic", "describe", "t", "-b", &broker.address]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("topic t: UnknownTopicOrPartition"));
    let bench = cli(&broker, &["topic", "create", "bench"]);
    assert!(bench.contains("is made"));
    assert!(cli(&broker, &["bench", "produce", "bench", "--seconds", "1"]).contains("MB/s"));
    assert!(cli(&broker, &["bench", "consume", "bench", "--seconds", "1"]).contains("records/s"));
    assert!(cli(&broker, &["bench", "e2e", "bench", "--seconds", "1"]).contains("p99"));
}

#[test]
fn consumers_of_a_group_on_the_command_line_share_its_partitions_and_hand_them_over() {
    let (folder, data) = folder();
    let broker = Broker::start_with(&data, &["group.initial.rebalance.delay.ms=0"]);
    cli(&broker, &["topic", "create", "shared", "-p", "4"]);
    let shown = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let member = |name: &str| {
        let out = std::fs::File::create(folder.path().join(name)).expect("made");
        let arguments = ["consume", "shared", "-g", "g", "-o", "start", "-f", "%v\\n"];
        let mut command = Command::new(BINARY);
        command.args(arguments).args(["-b", &broker.address]).stdout(out);
        command.spawn().expect("the binary runs")
    };
    // Empty as long as there is no group.
    let members = || {
        let arguments = ["group", "describe", "g", "--format", "json", "-b", &broker.address];
        String::from_utf8_lossy(&run(&arguments).stdout).into_owned()
    };
    let until = |what: &str, is_true: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !is_true() {
            assert!(Instant::now() < deadline, "{what}: {} {:?}", members(), shown("a"));
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let count = |wanted: usize| members().matches("\"member\"").count() == wanted;
    let mut first = member("a");
    until("one member", &|| count(1));
    let mut second = member("b");
    until("two members", &|| count(2));
    let lines = |from: usize| {
        let line = |n: usize| format!("{n}=v{n}");
        (from..from + 200).map(line).collect::<Vec<_>>().join("\n") + "\n"
    };
    let send = |from: usize| {
        let mut command = Command::new(BINARY);
        command.args(["produce", "-b", &broker.address, "shared", "-k", "="]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary runs");
        child.stdin.take().expect("piped").write_all(lines(from).as_bytes()).expect("written");
        assert!(child.wait().expect("it ends").success());
    };
    // A rebalance may still be under way when the second member is listed.
    std::thread::sleep(Duration::from_secs(3));
    send(0);
    until("both have a part", &|| {
        let (a, b) = (shown("a").len(), shown("b").len());
        a > 0 && b > 0 && a + b >= 200
    });
    assert!(
        Command::new("kill")
            .args(["-INT", &first.id().to_string()])
            .status()
            .expect("kill")
            .success()
    );
    assert!(first.wait().expect("it ends").success());
    until("one is left", &|| count(1));
    send(200);
    let all =
        || shown("a").into_iter().chain(shown("b")).collect::<std::collections::BTreeSet<_>>();
    until("everything is read", &|| all().len() == 400);
    second.kill().expect("killed");
    second.wait().expect("it ends");
}

#[test]
fn output_that_nobody_reads_to_its_end_is_no_failure() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    cli(&broker, &["topic", "create", "t", "-p", "1"]);
    let small = ["--seconds", "1", "--batch-bytes", "200", "--record-bytes", "10"];
    cli(&broker, &[&["bench", "produce", "t"], &small[..]].concat());
    assert!(broker.terminate().success());
    // More than a pipe holds.
    let segment = data.join("t-0/00000000000000000000.log");
    let dump = format!("'{BINARY}' log dump '{}'", segment.display());
    let mut whole = Command::new("sh");
    let whole = whole.args(["-c", &format!("{dump} | wc -c")]).output().expect("sh runs");
    let bytes = String::from_utf8_lossy(&whole.stdout).trim().parse::<u64>().expect("a number");
    assert!(bytes > 100_000, "{bytes} bytes");
    let mut first = Command::new("sh");
    first.args(["-c", &format!("{{ {dump} || echo failed; }} 2>&1 | head -n 1; sleep 0.2")]);
    let first = first.output().expect("sh runs");
    let said = String::from_utf8_lossy(&first.stdout).into_owned()
        + &String::from_utf8_lossy(&first.stderr);
    assert!(said.contains("POSITION") && said.lines().count() == 1, "{said}");
    let mut told = Command::new("sh");
    told.args(["-c", &format!("{{ {dump}; echo \"ended with $?\" >&2; }} | head -n 1")]);
    let told = told.output().expect("sh runs");
    let error = String::from_utf8_lossy(&told.stderr);
    assert_eq!(error.trim(), "ended with 0");
}
