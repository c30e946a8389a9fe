//! The broker is killed again and again while clients produce: nothing that was acknowledged may be gone.

use std::process::Stdio;
use std::time::Duration;

use crate::broker::{Broker, folder};
use crate::kit::python_script;

const KILLS: u32 = 20;

/// Pseudo-random pauses, the same in every run.
fn pause_ms(round: u32) -> u64 {
    u64::from(round.wrapping_mul(2_654_435_761) % 500) + 150
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_reordered_when_the_broker_is_killed_twenty_times() {
    let (_folder, data) = folder();
    let broker = Broker::start(&data);
    let listen = format!("listeners=PLAINTEXT://{}", broker.address);
    let address = broker.address.clone();
    let mut script = python_script("crash.py");
    let client =
        script.args([&address, "14"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let client = client.expect("python runs");
    std::thread::sleep(Duration::from_secs(2));
    let mut broker = Some(broker);
    for round in 0..KILLS {
        std::thread::sleep(Duration::from_millis(pause_ms(round)));
        broker.take().expect("running").kill();
        broker = Some(Broker::start_with(&data, &[&listen]));
    }
    let output = client.wait_with_output().expect("python ends");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    println!("{out}");
    let result: serde_json::Value = serde_json::from_str(out.trim()).expect("JSON");
    for (topic, what) in [
        ("all", "lost"),
        ("all", "moved"),
        ("all", "doubled"),
        ("all", "reordered"),
        ("one", "lost"),
    ] {
        assert_eq!(result[topic][what], 0, "{topic} {what}: {out}");
    }
    let acked = result["all"]["acked"].as_u64().unwrap_or(0);
    assert!(acked > 1000, "too little was produced to say anything: {out}");
}
