//! Nodes and clients that speak TLS, and those that may not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::broker::{Broker, folder, run};
use crate::cluster::Cluster;
use crate::devices::sh;
use crate::judges::Judge;
use crate::kit::{eventually, java};

/// The files of somebody who shows certificates of one authority.
pub(crate) struct Party {
    pub(crate) store: PathBuf,
    trust: PathBuf,
    /// Kafka's client settings, for its tools and ours.
    settings: PathBuf,
}

impl Party {
    pub(crate) fn make(folder: &Path, name: &str) -> Self {
        let mut authority = CertificateParams::default();
        // OpenSSL takes a certificate whose signer has its own name for one that signed itself.
        authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, authority_key).expect("signed");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("a key");
        let own = CertificateParams::new(names).expect("names");
        let own = own.signed_by(&key, &authority).expect("signed");
        let party = Self {
            store: folder.join(format!("{name}.pem")),
            trust: folder.join(format!("{name}-trust.pem")),
            settings: folder.join(format!("{name}.properties")),
        };
        std::fs::write(&party.store, key.serialize_pem() + &own.pem()).expect("written");
        std::fs::write(&party.trust, authority.pem()).expect("written");
        let text = format!(
            "security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n",
            party.store.display(),
            party.trust.display()
        );
        std::fs::write(&party.settings, text).expect("written");
        party
    }

    fn settings(&self) -> &str {
        self.settings.to_str().expect("text")
    }
}

#[test]
fn nodes_that_speak_tls_lose_nothing_and_refuse_whoever_shows_no_certificate_of_theirs() {
    let (folder, _) = folder();
    let ours = Party::make(folder.path(), "ours");
    let strangers = Party::make(folder.path(), "strangers");
    let store = format!("ssl.keystore.location={}", ours.store.display());
    let trust = format!("ssl.truststore.location={}", ours.trust.display());
    let map = "listener.security.protocol.map=PLAINTEXT:SSL,CONTROLLER:SSL";
    let settings = [map, &store, &trust, "ssl.client.auth=required"];
    let mut cluster = Cluster::start_with(Cluster::places(folder.path()), &settings);
    let bootstrap = cluster.bootstrap();
    let healthy = || {
        let health = ["cluster", "health", "-b", &bootstrap, "--command-config", ours.settings()];
        run(&health).status.success()
    };
    eventually("the cluster is healthy", healthy);

    let client = serde_json::json!({
        "security.protocol": "ssl",
        "ssl.ca.location": ours.trust,
        "ssl.certificate.location": ours.store,
        "ssl.key.location": ours.store,
    });
    let judge = Judge::start_as(&bootstrap, 8, &client.to_string());
    std::thread::sleep(Duration::from_secs(3));
    cluster.kill(1);
    std::thread::sleep(Duration::from_secs(2));
    cluster.start_missing();
    assert!(judge.verdict() > 3_000);
    eventually("the cluster is healthy again", healthy);
    let listed = java(
        "org.apache.kafka.tools.TopicCommand",
        &["--bootstrap-server", &bootstrap, "--command-config", ours.settings(), "--list"],
    )
    .output()
    .expect("java runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("all"), "{listed:?}");

    // Neither clients nor other nodes get in without a certificate of ours, and each is told what is wrong.
    let controller = format!("127.0.0.1:{}", cluster.places[0].controller);
    for address in [&bootstrap, &controller] {
        for stranger in [Some(&strangers), None] {
            let mut words = vec!["topic", "ls", "-b", address.as_str()];
            words.extend(stranger.iter().flat_map(|s| ["--command-config", s.settings()]));
            let refused = run(&words);
            let why = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success(), "{words:?}");
            assert!(stranger.is_none() || why.contains("certificate"), "{why}");
        }
    }
    // Their trust with our key: it knows us, but shows what we do not know.
    let mixed = folder.path().join("mixed.properties");
    let text = format!(
        "security.protocol=SSL\nssl.keystore.location={}\nssl.truststore.location={}\n",
        strangers.store.display(),
        ours.trust.display()
    );
    std::fs::write(&mixed, text).expect("written");
    let mixed = mixed.to_str().expect("text");
    let refused = run(&["topic", "ls", "-b", &controller, "--command-config", mixed]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("UnknownCA"), "{why}");
}

#[test]
fn a_bad_certificate_is_found_before_anything_starts() {
    let (folder, _) = folder();
    let party = Party::make(folder.path(), "ours");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").expect("written");
    let check = |store: &Path| {
        let store = format!("ssl.keystore.location={}", store.display());
        run(&["serve", "--check-config", "--set", "listeners=SSL://127.0.0.1:0", "--set", &store])
    };
    assert!(check(&party.store).status.success());
    let refused = check(&empty);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("ssl.keystore.location") && why.contains("empty.pem"), "{why}");
    // A certificate for another key.
    let other = Party::make(folder.path(), "other");
    let key = std::fs::read_to_string(&party.store).expect("read");
    let certificate = std::fs::read_to_string(&other.store).expect("read");
    let key = key.split("-----BEGIN CERT").next().expect("a key");
    let at = certificate.find("-----BEGIN CERT").expect("a certificate");
    let mismatched = folder.path().join("mismatched.pem");
    std::fs::write(&mismatched, format!("{key}{}", &certificate[at..])).expect("written");
    assert!(!check(&mismatched).status.success());
}

#[test]
fn certificates_are_read_again_at_a_hang_up_and_wrong_ones_are_not_taken() {
    let (folder, data) = folder();
    let (one, two) = (Party::make(folder.path(), "one"), Party::make(folder.path(), "two"));
    let shown = folder.path().join("shown.pem");
    let show = |from: &Path| assert!(std::fs::copy(from, &shown).expect("copied") > 0);
    show(&one.store);
    let store = format!("ssl.keystore.location={}", shown.display());
    let broker = Broker::start_with(&data, &["listeners=SSL://127.0.0.1:0", &store]);
    let begun = Instant::now();
    let trusts = |party: &Party| {
        let words = ["topic", "ls", "-b", &broker.address, "--command-config", party.settings()];
        run(&words).status.success()
    };
    assert!(trusts(&one) && !trusts(&two));
    let hang_up = || sh(&format!("kill -HUP {}", broker.pid())).expect("sent");
    show(&two.store);
    hang_up();
    eventually("the new certificate is shown", || trusts(&two));
    // Without a signal it takes ten seconds until somebody looks.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    std::fs::write(&shown, "nothing").expect("written");
    hang_up();
    std::thread::sleep(Duration::from_millis(300));
    assert!(trusts(&two));
    assert!(broker.terminate().success());
}
