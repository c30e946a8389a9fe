//! How commands connect: plainly, or with TLS as a file of Kafka's client settings says (`--command-config`).
//!
//! Invariants: a setting that would change nothing here is refused, since whoever wrote it counts on it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};

use crate::config::properties;
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
    let _ = DIALER.set(dialer);
    Ok(())
}

fn read(text: &str) -> anyhow::Result<Dialer> {
    let mut files = TlsFiles { key_store: None, trust_store: None };
    let mut has_tls = false;
    for setting in properties(text)? {
        match setting {
            ("security.protocol", "SSL") => has_tls = true,
            ("security.protocol", "PLAINTEXT")
            | ("ssl.truststore.type" | "ssl.keystore.type", "PEM") => {}
            ("ssl.truststore.location", path) => files.trust_store = Some(PathBuf::from(path)),
            ("ssl.keystore.location", path) => files.key_store = Some(PathBuf::from(path)),
            (key, value) => bail!(
                "{key}={value} is not known here: security.protocol (PLAINTEXT, SSL), ssl.truststore.location and \
                 ssl.keystore.location (both PEM)"
            ),
        }
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
    fn a_setting_that_nothing_heeds_is_refused() {
        assert!(read("# plain\nsecurity.protocol=PLAINTEXT\n").is_ok());
        let refused = |text| format!("{:#}", read(text).expect_err("refused"));
        assert!(refused("security.protocol=SASL_SSL").contains("PLAINTEXT, SSL"));
        assert!(refused("ssl.key.password=x").contains("ssl.key.password"));
        assert!(refused("ssl").contains("key=value"));
        let text = "security.protocol=SSL\nssl.truststore.location=/no/such.pem";
        assert!(refused(text).contains("/no/such.pem"));
    }
}
