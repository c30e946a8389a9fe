//! Which listeners speak TLS, and with what.
//!
//! Invariants: on a controller listener with TLS both sides show certificates, whatever `ssl.client.auth` says: whoever may
//! speak there takes part in decisions.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::error::BrokerError;
use super::settings::{self, Listeners};
use crate::config::{Config, ConfigError};
use crate::network::{ClientAuth, Dialer, TcpDialer, Tls, TlsDialer, TlsFiles, Wrapping};
use crate::system::SharedDisk;

/// How connections are wrapped, by listener.
#[derive(Debug)]
pub(super) struct Wrappings {
    /// Those that speak TLS.
    secure: BTreeSet<String>,
    controllers: Vec<String>,
    auth: ClientAuth,
    tls: Option<Arc<Tls>>,
}

/// The settings as they are written, checked without looking at files.
fn read(config: &Config) -> Result<(Wrappings, TlsFiles), ConfigError> {
    let invalid = |why: String| ConfigError::Invalid(why);
    let Listeners { listen, controller, .. } = settings::listeners(config)?;
    let controllers = settings::controller_names(config);
    let mut map = HashMap::new();
    for item in config.list("listener.security.protocol.map") {
        let pair = item.split_once(':').ok_or_else(|| {
            invalid(format!(
                "listener.security.protocol.map has '{item}', which is not of the form NAME:PROTOCOL"
            ))
        })?;
        map.insert(pair.0.trim().to_ascii_uppercase(), pair.1.trim().to_ascii_uppercase());
    }
    let names = listen.iter().chain(&controller).map(|endpoint| &endpoint.name).chain(&controllers);
    let mut secure = BTreeSet::new();
    for name in names {
        let protocol = map.get(name).map_or(if name == "SSL" { "SSL" } else { "PLAINTEXT" }, |p| p);
        match protocol {
            "PLAINTEXT" => {}
            "SSL" => {
                secure.insert(name.clone());
            }
            other => {
                return Err(invalid(format!(
                    "listener.security.protocol.map says {other} for {name}: there are PLAINTEXT and SSL"
                )));
            }
        }
    }
    let auth = match config.text("ssl.client.auth") {
        "required" => ClientAuth::Required,
        "requested" => ClientAuth::Requested,
        _ => ClientAuth::None,
    };
    let path =
        |name: &str| Some(config.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
    let files = TlsFiles {
        key_store: path("ssl.keystore.location"),
        trust_store: path("ssl.truststore.location"),
    };
    if let Some(name) = secure.first() {
        if files.key_store.is_none() {
            return Err(invalid(format!(
                "{name} speaks TLS, but ssl.keystore.location names no file with a key and certificates in PEM"
            )));
        }
        let is_checked =
            auth != ClientAuth::None || controllers.iter().any(|name| secure.contains(name));
        if is_checked && files.trust_store.is_none() {
            return Err(invalid(
                "ssl.truststore.location has to name the certificates that sign those of clients (ssl.client.auth) and of other nodes"
                    .to_owned(),
            ));
        }
    }
    Ok((Wrappings { secure, controllers, auth, tls: None }, files))
}

/// Checks the settings, and that the files that they name are good.
pub(super) fn check(config: &Config, disk: &SharedDisk) -> Result<(), BrokerError> {
    Wrappings::open(config, disk).map(drop)
}

impl Wrappings {
    /// Reads the certificates, where a listener speaks TLS.
    pub(super) fn open(config: &Config, disk: &SharedDisk) -> Result<Self, BrokerError> {
        let (mut wrappings, files) = read(config)?;
        if !wrappings.secure.is_empty() {
            wrappings.tls = Some(Tls::open(Arc::clone(disk), files)?);
        }
        Ok(wrappings)
    }

    fn tls(&self, listener: &str) -> Option<&Arc<Tls>> {
        self.tls.as_ref().filter(|_| self.secure.contains(listener))
    }

    /// How the connections of a listener of this node are wrapped.
    pub(super) fn of(&self, listener: &str) -> Wrapping {
        let is_controller = self.controllers.iter().any(|name| name == listener);
        let auth = if is_controller { ClientAuth::Required } else { self.auth };
        self.tls(listener).map_or(Wrapping::Plain, |tls| Wrapping::Tls(Arc::clone(tls), auth))
    }

    /// Opens connections to a listener of this name on other nodes.
    pub(super) fn dialer(&self, listener: &str) -> Dialer {
        match self.tls(listener) {
            Some(tls) => Arc::new(TlsDialer(Arc::clone(tls))),
            None => Arc::new(TcpDialer),
        }
    }

    /// Opens connections to controllers.
    pub(super) fn controller_dialer(&self) -> Dialer {
        self.dialer(self.controllers.first().map_or("", String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn refusal(settings: &[(&str, &str)]) -> String {
        let mut config = Config::default();
        for (key, value) in settings {
            config.set(key, value, Origin::File).expect("a setting");
        }
        read(&config).map(|_| ()).expect_err("refused").to_string()
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_way_out() {
        let listener = ("listeners", "SSL://:9092");
        assert!(refusal(&[listener]).contains("ssl.keystore.location"));
        let keys = ("ssl.keystore.location", "/k.pem");
        assert!(
            refusal(&[listener, keys, ("ssl.client.auth", "required")])
                .contains("ssl.truststore.location")
        );
        let map = |text| ("listener.security.protocol.map", text);
        assert!(
            refusal(&[keys, map("CONTROLLER:SSL")]).contains("ssl.truststore.location"),
            "controllers always show certificates"
        );
        assert!(refusal(&[map("PLAINTEXT:SASL_SSL")]).contains("SASL_SSL for PLAINTEXT"));
        assert!(refusal(&[map("PLAINTEXT")]).contains("NAME:PROTOCOL"));
    }
}
