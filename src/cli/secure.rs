//! How commands connect: plainly, or with TLS as a file of Kafka's client settings says (`--command-config`).
//!
//! Invariants: a setting that would change nothing here is refused, since whoever wrote it counts on it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};

use crate::config::{not_built, properties, shown_value};
use crate::network::{Dialer, TcpDialer, Tls, TlsDialer, TlsFiles};
use crate::system::{OsDisk, SharedDisk};

/// One command talks to one kind of cluster.
static DIALER: OnceLock<Dialer> = OnceLock::new();

/// Opens this command's connections.
pub(super) fn dialer() -> Dialer {
    Arc::clone(DIALER.get_or_init(|| Arc::new(TcpDialer)))
}

/// Takes the file's settings for this command.
pub(super) fn configure(file: Option<&Path>) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let dialer = read(&super::read_text(file)?).with_context(|| file.display().to_string())?;
    if DIALER.set(dialer).is_err() {
        bail!("{} is read too late: this command has connected already", file.display());
    }
    Ok(())
}

fn read(text: &str) -> anyhow::Result<Dialer> {
    let mut files = TlsFiles { key_store: None, trust_store: None };
    let mut has_tls = false;
    let mut before: Vec<&str> = Vec::new();
    for (key, value) in properties(text)? {
        if before.contains(&key) {
            bail!("{key} is there twice: which one counts?");
        }
        before.push(key);
        match (key, value) {
            ("security.protocol", "SSL") => has_tls = true,
            ("security.protocol", "PLAINTEXT")
            | ("ssl.truststore.type" | "ssl.keystore.type", "PEM") => {}
            ("ssl.truststore.location", path) => files.trust_store = Some(PathBuf::from(path)),
            ("ssl.keystore.location", path) => files.key_store = Some(PathBuf::from(path)),
            (key, value) => bail!(
                "{key}={} is not known here{}: there are security.protocol (PLAINTEXT, SSL), ssl.truststore.location and \
                 ssl.keystore.location (both PEM)",
                shown_value(key, value),
                not_built(key).map(|way_out| format!(" ({way_out})")).unwrap_or_default()
            ),
        }
    }
    if let Some(key) = before.iter().find(|key| !has_tls && key.starts_with("ssl.")) {
        bail!("{key} asks for TLS, but security.protocol does not: add security.protocol=SSL");
    }
    if !has_tls {
        return Ok(Arc::new(TcpDialer));
    }
    let disk: SharedDisk = Arc::new(OsDisk);
    Ok(Arc::new(TlsDialer(Tls::open(disk, files)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_connects_with_less_than_its_file_says() {
        assert!(read("# plain\nsecurity.protocol=PLAINTEXT\n").is_ok());
        assert!(read("").is_ok());
        let refused: &[(&str, &str)] = &[
            ("security.protocol=SASL_SSL", "PLAINTEXT, SSL"),
            ("security.protocol=SASL_PLAINTEXT", "PLAINTEXT, SSL"),
            ("security.protocol=ssl", "PLAINTEXT, SSL"),
            ("security.protocol=", "PLAINTEXT, SSL"),
            ("security.protocol=TLS", "PLAINTEXT, SSL"),
            ("security.protocol=PLAINTEXT\nsecurity.protocol=SSL", "twice"),
            ("security.protocol=SSL\nsecurity.protocol=PLAINTEXT", "twice"),
            // TLS is asked for, and would not be spoken.
            ("ssl.truststore.location=/t.pem", "security.protocol=SSL"),
            (
                "security.protocol=PLAINTEXT\nssl.truststore.location=/t.pem",
                "security.protocol=SSL",
            ),
            ("ssl.keystore.location=/k.pem", "security.protocol=SSL"),
            ("ssl.truststore.type=PEM", "security.protocol=SSL"),
            ("sasl.jaas.config=x required password=\"hush\";", "sasl.jaas.config=[hidden]"),
            ("sasl.mechanism=PLAIN", "SASL is not built"),
            ("sasl.username=a", "sasl.username=a"),
            ("ssl.key.password=hush", "ssl.key.password=[hidden]"),
            ("ssl.keystore.password=hush", "ssl.keystore.password=[hidden]"),
            ("ssl.truststore.type=JKS", "PEM"),
            ("ssl.keystore.type=PKCS12", "PEM"),
            ("ssl.endpoint.identification.algorithm=https", "always checks the name"),
            ("ssl.endpoint.identification.algorithm=", "always checks the name"),
            ("ssl.enabled.protocols=TLSv1.3", "TLS 1.2 and 1.3"),
            ("ssl.cipher.suites=TLS_AES_256_GCM_SHA384", "rustls"),
            ("ssl.truststore.certificates=hush", "ssl.truststore.location"),
            ("security.providers=a.B", "security.providers=a.B"),
            ("enable.idempotence=true", "enable.idempotence"),
            ("ssl", "key=value"),
            ("security.protocol: SSL", "key=value"),
            ("security.protocol=SSL\nssl.truststore.location=/no/such.pem", "/no/such.pem"),
            ("security.protocol=SSL\nssl.keystore.location=/no/such.pem", "/no/such.pem"),
        ];
        for (text, why) in refused {
            let error = read(text).map(drop).expect_err(text);
            let error = format!("{error:#}");
            assert!(error.contains(why) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
