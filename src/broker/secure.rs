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

/// Kafka's protocols; those with SASL are not built.
const PROTOCOLS: &[&str] = &["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
/// What is of use with TLS only, and what each is where it is not wanted.
const TLS_SETTINGS: &[(&str, &str)] =
    &[("ssl.client.auth", "none"), ("ssl.keystore.location", ""), ("ssl.truststore.location", "")];

/// How connections are wrapped, by listener.
#[derive(Debug)]
pub(super) struct Wrappings {
    /// Those that speak TLS.
    secure: BTreeSet<String>,
    controllers: Vec<String>,
    auth: ClientAuth,
    tls: Option<Arc<Tls>>,
}

/// What `listener.security.protocol.map` says; empty where it says nothing.
fn protocols(config: &Config) -> Result<HashMap<String, String>, ConfigError> {
    let mut map = HashMap::new();
    for item in config.list("listener.security.protocol.map") {
        let pair = item.split_once(':').ok_or_else(|| {
            invalid(format!(
                "listener.security.protocol.map has '{item}', which is not of the form NAME:PROTOCOL"
            ))
        })?;
        let (name, protocol) =
            (pair.0.trim().to_ascii_uppercase(), pair.1.trim().to_ascii_uppercase());
        if !PROTOCOLS.contains(&protocol.as_str()) {
            return Err(invalid(format!(
                "listener.security.protocol.map says {protocol} for {name}: there are PLAINTEXT and SSL"
            )));
        }
        if map.insert(name.clone(), protocol.clone()).is_some_and(|other| other != protocol) {
            return Err(invalid(format!(
                "listener.security.protocol.map says twice what {name} speaks"
            )));
        }
    }
    Ok(map)
}

/// What a listener speaks, by the map; without one it is named by its protocol, and controllers speak plainly where nothing
/// else is spoken.
fn protocol_of(
    name: &str,
    map: &HashMap<String, String>,
    is_controller: bool,
    all_plain: bool,
) -> Result<bool, ConfigError> {
    let protocol = match map.get(name) {
        Some(protocol) => protocol.as_str(),
        None if map.is_empty() && PROTOCOLS.contains(&name) => name,
        None if map.is_empty() && is_controller && all_plain => "PLAINTEXT",
        None => {
            return Err(invalid(format!(
                "listener.security.protocol.map does not say what the listener {name} speaks: add {name}:SSL to it, or \
                 {name}:PLAINTEXT"
            )));
        }
    };
    match protocol {
        "PLAINTEXT" => Ok(false),
        "SSL" => Ok(true),
        other => Err(invalid(format!(
            "the listener {name} is to speak {other}, and SASL is not built: let it speak SSL in listener.security.protocol.map \
             and clients show certificates (ssl.client.auth=required), or speak PLAINTEXT where the network keeps others away"
        ))),
    }
}

fn invalid(why: String) -> ConfigError {
    ConfigError::Invalid(why)
}

/// The settings as they are written, checked without looking at files.
fn read(config: &Config) -> Result<(Wrappings, TlsFiles), ConfigError> {
    let Listeners { listen, controller, .. } = settings::listeners(config)?;
    let controllers = settings::controller_names(config);
    let map = protocols(config)?;
    let mut names: BTreeSet<&String> =
        listen.iter().chain(&controller).map(|endpoint| &endpoint.name).collect();
    // A node that is alone speaks to no controller.
    if !settings::is_alone(config) {
        names.extend(&controllers);
    }
    let all_plain =
        !names.iter().any(|name| *name != "PLAINTEXT" && PROTOCOLS.contains(&name.as_str()));
    let mut secure = BTreeSet::new();
    for name in names {
        if protocol_of(name, &map, controllers.contains(name), all_plain)? {
            secure.insert(name.clone());
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
    if secure.is_empty() {
        let unused = TLS_SETTINGS.iter().find(|(name, without)| config.text(name) != *without);
        if let Some((name, _)) = unused {
            return Err(invalid(format!(
                "{name}={} asks for TLS, but no listener speaks it: name one SSL, say so in listener.security.protocol.map, or \
                 take it out",
                config.text(name)
            )));
        }
    }
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

    /// The certificates, where there are some.
    pub(super) fn certificates(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
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

    /// Why a node with these settings does not start; `None`: it does.
    fn refusal(settings: &[(&str, &str)]) -> Option<String> {
        let mut config = Config::default();
        for (key, value) in settings {
            if let Err(error) = config.set(key, value, Origin::File) {
                return Some(error.to_string());
            }
        }
        let checked = settings::check(&config).and_then(|()| read(&config).map(drop));
        checked.err().map(|error| error.to_string())
    }

    const KEYS: (&str, &str) = ("ssl.keystore.location", "/k.pem");
    const TRUST: (&str, &str) = ("ssl.truststore.location", "/t.pem");
    const MAP: &str = "listener.security.protocol.map";
    const LISTENERS: &str = "listeners";

    #[test]
    fn what_does_not_fit_together_is_refused_with_the_way_out() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[(LISTENERS, "SSL://:9092")], "ssl.keystore.location"),
            (
                &[(LISTENERS, "SSL://:9092"), KEYS, ("ssl.client.auth", "required")],
                "ssl.truststore.location",
            ),
            (&[(MAP, "PLAINTEXT")], "NAME:PROTOCOL"),
            (&[(MAP, "PLAINTEXT:TLS")], "PLAINTEXT and SSL"),
            (
                &[
                    (LISTENERS, "PLAINTEXT://:1,CONTROLLER://:2"),
                    (MAP, "PLAINTEXT:PLAINTEXT,CONTROLLER:SSL"),
                    KEYS,
                ],
                "ssl.truststore.location",
            ),
            (&[("inter.broker.listener.name", "OTHER")], "inter.broker.listener.name is OTHER"),
        ];
        for (settings, way_out) in cases {
            let why = refusal(settings).unwrap_or_default();
            assert!(why.contains(way_out), "{settings:?}: {why}");
        }
    }

    #[test]
    fn no_listener_is_weaker_than_its_name() {
        let refused: &[&[(&str, &str)]] = &[
            &[(LISTENERS, "SASL_SSL://:9092")],
            &[(LISTENERS, "SASL_PLAINTEXT://:9092")],
            &[(LISTENERS, "sasl_ssl://:9092")],
            &[(LISTENERS, "PLAINTEXT://:9092,SASL_SSL://:9093")],
            // Names that say nothing of what is spoken, with and without a map for others.
            &[(LISTENERS, "EXTERNAL://:9092")],
            &[(LISTENERS, "TLS://:9092")],
            &[(LISTENERS, "EXTERNAL://:9092"), (MAP, "EXTERNL:SSL,SSL:SSL"), KEYS],
            &[(LISTENERS, "EXTERNAL://:9092"), (MAP, "EXTERNAL\\:SSL"), KEYS],
            &[(LISTENERS, "SSL://:9092"), (MAP, "OTHER:SSL"), KEYS],
            &[(LISTENERS, "EXTERNAL://:9092"), (MAP, "EXTERNAL:SASL_SSL")],
            &[(LISTENERS, "EXTERNAL://:9092"), (MAP, "EXTERNAL:SSL,EXTERNAL:PLAINTEXT"), KEYS],
            // Controllers, where something better than plain is spoken beside them.
            &[(LISTENERS, "SSL://:9092,CONTROLLER://:9093"), KEYS, TRUST],
            &[(LISTENERS, "SSL://:9092,CONTROLLER://:9093"), (MAP, "SSL:SSL"), KEYS, TRUST],
            &[
                ("controller.listener.names", "SASL_SSL"),
                (LISTENERS, "PLAINTEXT://:9092,SASL_SSL://:9093"),
            ],
            &[
                ("process.roles", "broker"),
                ("controller.quorum.bootstrap.servers", "a:1"),
                (LISTENERS, "SSL://:9092"),
                KEYS,
                TRUST,
            ],
            // TLS that nothing speaks.
            &[("ssl.client.auth", "required")],
            &[KEYS],
            &[TRUST],
        ];
        for settings in refused {
            let why = refusal(settings).unwrap_or_else(|| panic!("{settings:?} is taken"));
            assert!(why.contains("listener"), "{settings:?}: {why}");
        }
        let taken: &[&[(&str, &str)]] = &[
            &[],
            &[(LISTENERS, "SSL://:9092"), KEYS],
            &[(LISTENERS, "PLAINTEXT://:9092,CONTROLLER://:9093")],
            &[(LISTENERS, "A://:9092,B://:9093"), (MAP, "A:SSL,B:PLAINTEXT"), KEYS],
            &[(MAP, "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL")],
            &[
                (LISTENERS, "SSL://:9092,CONTROLLER://:9093"),
                (MAP, "SSL:SSL,CONTROLLER:SSL"),
                KEYS,
                TRUST,
            ],
        ];
        for settings in taken {
            assert_eq!(refusal(settings), None, "{settings:?}");
        }
    }

    /// Every setting of Apache Kafka 4.4 that has to do with safety and is not built, with its own default where it has one: also
    /// whoever writes that counts on it.
    const UNBUILT: &[(&str, &str)] = &[
        ("allow.everyone.if.no.acl.found", "false"),
        ("alter.config.policy.class.name", "a.B"),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("client.quota.callback.class", "a.B"),
        ("connection.failed.authentication.delay.ms", "100"),
        ("connections.max.reauth.ms", "3600000"),
        ("create.topic.policy.class.name", "a.B"),
        ("delegation.token.expiry.time.ms", "86400000"),
        ("delegation.token.max.lifetime.ms", "604800000"),
        ("delegation.token.secret.key", "hush"),
        ("early.start.listeners", "CONTROLLER"),
        ("listener.name.external.sasl.enabled.mechanisms", "SCRAM-SHA-512"),
        ("listener.name.external.scram-sha-512.sasl.jaas.config", "hush"),
        ("listener.name.external.ssl.client.auth", "required"),
        ("listener.name.external.ssl.keystore.location", "/k.pem"),
        ("max.connections.per.ip.overrides", "10.0.0.1:5"),
        ("password.encoder.secret", "hush"),
        ("principal.builder.class", "a.B"),
        ("sasl.client.callback.handler.class", "a.B"),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("sasl.jaas.config", "hush"),
        ("sasl.kerberos.principal.to.local.rules", "DEFAULT"),
        ("sasl.kerberos.service.name", "kafka"),
        ("sasl.login.class", "a.B"),
        ("sasl.mechanism.controller.protocol", "GSSAPI"),
        ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
        ("sasl.oauthbearer.jwks.endpoint.url", "https://a"),
        ("sasl.server.callback.handler.class", "a.B"),
        ("sasl.server.max.receive.size", "524288"),
        ("security.inter.broker.protocol", "SSL"),
        ("security.providers", "a.B"),
        ("ssl.allow.dn.changes", "false"),
        ("ssl.allow.san.changes", "false"),
        ("ssl.cipher.suites", "TLS_AES_256_GCM_SHA384"),
        ("ssl.enabled.protocols", "TLSv1.3"),
        ("ssl.endpoint.identification.algorithm", "https"),
        ("ssl.endpoint.identification.algorithm", ""),
        ("ssl.engine.factory.class", "a.B"),
        ("ssl.key.password", "hush"),
        ("ssl.keymanager.algorithm", "PKIX"),
        ("ssl.keystore.certificate.chain", "hush"),
        ("ssl.keystore.key", "hush"),
        ("ssl.keystore.password", "hush"),
        ("ssl.keystore.type", "JKS"),
        ("ssl.keystore.type", "PKCS12"),
        ("ssl.principal.mapping.rules", "DEFAULT"),
        ("ssl.protocol", "TLSv1.3"),
        ("ssl.provider", "BCFIPS"),
        ("ssl.secure.random.implementation", "SHA1PRNG"),
        ("ssl.trustmanager.algorithm", "PKIX"),
        ("ssl.truststore.certificates", "hush"),
        ("ssl.truststore.password", "hush"),
        ("ssl.truststore.type", "JKS"),
        ("super.users", "User:admin"),
        ("zookeeper.set.acl", "true"),
    ];

    #[test]
    fn a_setting_for_safety_that_is_not_built_is_refused_with_its_value_and_a_way_out() {
        for (name, value) in UNBUILT {
            let why = refusal(&[(LISTENERS, "SSL://:9092"), KEYS, TRUST, (name, value)]);
            let why = why.unwrap_or_else(|| panic!("{name}={value} is taken"));
            let is_named = why.contains(&format!("{name}={value} "))
                || why.contains(&format!("{name}=[hidden] "))
                || why.contains(&format!("Invalid value {value} for configuration {name}"));
            assert!(is_named && why.len() > name.len() + 40, "{why}");
            assert!(!why.contains("hush"), "{why}");
        }
    }
}
