//! Plans for Kafka's own tool that moves replicas, between brokers and between a broker's log directories.

use std::path::Path;
use std::process::Command;

use crate::kit::{eventually, java, succeed};

/// A plan in a file, and the cluster that it is for.
pub(crate) struct Plan {
    file: String,
    bootstrap: String,
}

impl Plan {
    /// First partitions of topics go to other brokers, each to the same.
    pub(crate) fn to_brokers(
        bootstrap: &str,
        folder: &Path,
        topic: &str,
        replicas: &[usize],
    ) -> Self {
        let text = format!(r#"{{"topic":"{topic}","partition":0,"replicas":{replicas:?}}}"#);
        Self::new(bootstrap, folder, &[text])
    }

    /// First partitions of topics of a single node go to another log directory.
    pub(crate) fn to_directory(
        bootstrap: &str,
        folder: &Path,
        topics: &[&str],
        directory: &Path,
    ) -> Self {
        let to = directory.display();
        let replica = |topic: &&str| {
            format!(r#"{{"topic":"{topic}","partition":0,"replicas":[1],"log_dirs":["{to}"]}}"#)
        };
        Self::new(bootstrap, folder, &topics.iter().map(replica).collect::<Vec<_>>())
    }

    fn new(bootstrap: &str, folder: &Path, partitions: &[String]) -> Self {
        let file = folder.join("plan.json");
        let text = format!(r#"{{"version":1,"partitions":[{}]}}"#, partitions.join(","));
        std::fs::write(&file, text).expect("written");
        Self { file: file.display().to_string(), bootstrap: bootstrap.to_owned() }
    }

    fn tool(&self) -> Command {
        let words = ["--bootstrap-server", &self.bootstrap, "--reassignment-json-file", &self.file];
        java("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", &words)
    }

    /// Begins to carry it out.
    pub(crate) fn execute(&self) {
        succeed(self.tool().arg("--execute"));
    }

    /// What the tool says of how far it is.
    pub(crate) fn verify(&self) -> String {
        succeed(self.tool().args(["--verify", "--preserve-throttles"]))
    }

    /// Carries it out to its end.
    pub(crate) fn carry_out(&self) {
        self.execute();
        eventually("the replicas are moved", || self.verify().contains("is completed"));
    }
}
