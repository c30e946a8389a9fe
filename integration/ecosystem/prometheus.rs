//! Prometheus: its own scrape of a broker, its own check of the page, and its own word that a broker is gone.

use std::process::Command;

use super::installs::has_packages;
use super::{Phoenix, Tool, calmly, create, free_port, produce, strandline};
use crate::broker::folder;
use crate::kit::succeed;

/// What a query says: the value of its one result.
fn ask(port: u16, query: &str) -> Option<f64> {
    let url = format!("http://127.0.0.1:{port}/api/v1/query");
    let mut curl = Command::new("curl");
    curl.args(["-sf", "-m", "5", "-G", &url, "--data-urlencode", &format!("query={query}")]);
    let answer: serde_json::Value = serde_json::from_slice(&curl.output().ok()?.stdout).ok()?;
    let results = answer["data"]["result"].as_array()?;
    assert!(results.len() <= 1, "{query}: {answer}");
    results.first()?["value"][1].as_str()?.parse().ok()
}

fn numbers(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("{n}={n}"))
}

#[test]
fn prometheus_scrapes_what_was_produced_and_consumed_and_sees_a_broker_die_and_rise() {
    if !has_packages(&["prometheus"], &["prometheus", "promtool"]) {
        return;
    }
    let (folder, data) = folder();
    let mut broker = Phoenix::start(&data);
    create(&broker.address, "seen", "2");
    produce(&broker.address, "seen", numbers(700));
    strandline(&[
        "consume",
        "seen",
        "--group",
        "g",
        "-o",
        "start",
        "--exit",
        "-b",
        &broker.address,
    ]);
    produce(&broker.address, "seen", numbers(50));

    let config = folder.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\nscrape_configs:\n\
         - job_name: strandline\n  static_configs: [{{targets: ['{}']}}]\n",
        broker.http
    );
    std::fs::write(&config, text).expect("written");
    let port = free_port();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _prometheus = Tool::start(&mut command, &folder.path().join("prometheus.log"));

    let is = |query: &str, value: f64| {
        let mut last = None;
        calmly(&format!("{query} is {value}"), || {
            last = ask(port, query);
            last.is_some_and(|found| (found - value).abs() < 0.001)
        });
    };
    is("up", 1.0);
    is("sum(kafka_topic_partition_current_offset{topic=\"seen\"})", 750.0);
    is("kafka_consumergroup_current_offset_sum{consumergroup=\"g\"}", 700.0);
    is("sum(kafka_consumergroup_lag{consumergroup=\"g\"})", 50.0);
    is("kafka_brokers", 1.0);
    broker.kill();
    is("up", 0.0);
    broker.rise();
    is("up", 1.0);
    produce(&broker.address, "seen", numbers(1));
    is("sum(kafka_topic_partition_current_offset{topic=\"seen\"})", 751.0);
    // No page was cut short, no sample doubled or refused.
    is("scrape_samples_scraped - scrape_samples_post_metric_relabeling", 0.0);

    let page = folder.path().join("page");
    succeed(
        Command::new("curl")
            .args(["-sf", "-o"])
            .arg(&page)
            .arg(format!("http://{}/metrics", broker.http)),
    );
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(std::fs::File::open(&page).expect("a page"));
    let checked = promtool.output().expect("promtool runs");
    let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
    // kafka_exporter's names, which dashboards know, end as promtool would not have them.
    let others = complaints.lines().filter(|line| {
        let is_known = line.contains("should not have \"_sum\" suffix");
        !(line.is_empty() || is_known && line.starts_with("kafka_consumergroup_"))
    });
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new());
}
