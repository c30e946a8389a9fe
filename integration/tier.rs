//! Object storage: a real S3 server, and what is found out about a bucket before it is trusted.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::broker::{BINARY, folder, run};
use crate::kit::{eventually, finish, s3_server};

const KEY: (&str, &str) = ("labkey", "labsecret123");

/// A server that ends with its owner.
pub(crate) struct S3 {
    server: Child,
    endpoint: String,
}

impl S3 {
    /// Serves a folder that holds the bucket `lab`.
    pub(crate) fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("data/lab")).expect("made");
        std::fs::create_dir_all(folder.join("meta")).expect("made");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let server = Command::new(s3_server())
            .args(["--port", &port.to_string(), "--region", "us-east-1", "posix"])
            .args(["--sidecar".as_ref(), folder.join("meta").as_os_str()])
            .arg(folder.join("data"))
            .envs([("ROOT_ACCESS_KEY", KEY.0), ("ROOT_SECRET_KEY", KEY.1)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = server.expect("the S3 server starts");
        eventually("the S3 server listens", || std::net::TcpStream::connect(port).is_ok());
        Self { server, endpoint: format!("http://{port}") }
    }

    /// What a broker has to be told of the bucket `lab`.
    pub(crate) fn settings(&self) -> Vec<String> {
        Self::settings_through(self.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().expect("an address")
    }

    /// The same where something stands in between.
    pub(crate) fn settings_through(between: SocketAddr) -> Vec<String> {
        let endpoint = format!("http://{between}");
        let options = [
            format!("aws_endpoint={endpoint}"),
            "aws_region=us-east-1".to_owned(),
            format!("aws_access_key_id={}", KEY.0),
            format!("aws_secret_access_key={}", KEY.1),
        ];
        vec![
            "remote.storage.url=s3://lab/tier".to_owned(),
            format!("remote.storage.options={}", options.join(",")),
        ]
    }

    /// The server answers nobody any more.
    pub(crate) fn freeze(&self) {
        let frozen = Command::new("kill").args(["-STOP", &self.server.id().to_string()]).status();
        assert!(frozen.expect("kill runs").success());
    }

    /// A command of ours that looks at the server.
    pub(crate) fn ours(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(words);
        self.told(command)
    }

    /// Commands of the shell that find the server by their environment.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        self.told(command)
    }

    fn told(&self, mut command: Command) -> Command {
        command
            .envs([("AWS_ENDPOINT", self.endpoint.as_str()), ("AWS_REGION", "us-east-1")])
            .envs([("AWS_ACCESS_KEY_ID", KEY.0), ("AWS_SECRET_ACCESS_KEY", KEY.1)]);
        command
    }

    fn check(&self, bucket: &str, (key, secret): (&str, &str)) -> Output {
        let mut command = self.ours(&["tier", "check", &format!("s3://{bucket}/some/where")]);
        finish(command.envs([("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)]))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_bucket_is_proven_before_anything_is_trusted_to_it_and_a_wrong_one_is_refused_with_the_reason()
{
    let (folder, _) = folder();
    let s3 = S3::start(folder.path());
    let good = s3.check("lab", KEY);
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success(), "{said}{}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(said.matches(" ok").count(), 9, "{said}");
    // Parts of uploads would lie in a folder of the server's own, in the bucket's.
    let bucket = folder.path().join("data/lab");
    let files = Command::new("find").arg(bucket).args(["-type", "f"]).output();
    let files = String::from_utf8(files.expect("find runs").stdout).expect("text");
    assert_eq!(files, "", "objects or parts of them are left");

    let denied = s3.check("lab", (KEY.0, "wrong"));
    let said = String::from_utf8_lossy(&denied.stdout).into_owned();
    assert!(!denied.status.success() && said.contains("rights"), "{said}");
    let missing = s3.check("nowhere", KEY);
    assert!(!missing.status.success(), "{}", String::from_utf8_lossy(&missing.stdout));

    let tier = format!("file:{}", folder.path().join("tier").display());
    assert!(run(&["tier", "check", &tier]).status.success());
    let unknown = run(&["tier", "check", "ftp://somewhere/else"]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("s3, gs, az, file, memory"));
}
