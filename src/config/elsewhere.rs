//! Settings of Apache Kafka that nothing here heeds: what asks for safety, and all others by their families.
//!
//! Invariants: no name of a setting that acts here is refused by this table, since the rows are asked first; values that may
//! be secrets are not repeated.

/// What a value is replaced by where it may be a secret.
const HIDDEN: &str = "[hidden]";

/// Names, or beginnings of names that end with a dot, of what is asked for in the name of safety; and the way out.
const SAFETY: &[(&str, &str)] = &[
    ("allow.everyone.if.no.acl.found", ACLS),
    ("authorizer.class.name", ACLS),
    ("super.users", ACLS),
    ("principal.builder.class", ACLS),
    ("early.start.listeners", ACLS),
    ("delegation.token.", SASL),
    ("connections.max.reauth.ms", SASL),
    ("connection.failed.authentication.delay.ms", SASL),
    ("sasl.", SASL),
    (
        "security.inter.broker.protocol",
        "name the listener that followers fetch from in inter.broker.listener.name, and its protocol in \
         listener.security.protocol.map",
    ),
    ("security.providers", TLS),
    (
        "password.encoder.",
        "no setting that changes while the broker runs is a password: take it out",
    ),
    (
        "listener.name.",
        "settings count for all listeners alike: give it without listener.name.NAME., or run another node with it",
    ),
    (
        "ssl.key.password",
        "keys are read unencrypted: openssl pkey -in KEY -out PLAIN makes one, which only the broker's user may read",
    ),
    (
        "ssl.keystore.password",
        "files are PEM, without a password of their own: take it out, and see ssl.keystore.location",
    ),
    (
        "ssl.truststore.password",
        "files are PEM, without a password of their own: take it out, and see ssl.truststore.location",
    ),
    ("ssl.keystore.key", "put it into the file that ssl.keystore.location names"),
    ("ssl.keystore.certificate.chain", "put it into the file that ssl.keystore.location names"),
    ("ssl.truststore.certificates", "put them into the file that ssl.truststore.location names"),
    ("ssl.enabled.protocols", "TLS 1.2 and 1.3 are spoken, and nothing older: take it out"),
    ("ssl.protocol", "TLS 1.2 and 1.3 are spoken, and nothing older: take it out"),
    (
        "ssl.cipher.suites",
        "the suites are those of rustls with ring, all of them good: take it out",
    ),
    (
        "ssl.endpoint.identification.algorithm",
        "whoever opens a connection always checks the name in the certificate: take it out, and give certificates the names",
    ),
    (
        "ssl.principal.mapping.rules",
        "there are no principals: whoever ssl.client.auth lets in may do everything",
    ),
    ("ssl.", TLS),
    ("create.topic.policy.class.name", PLUGIN),
    ("alter.config.policy.class.name", PLUGIN),
    ("client.quota.callback.class", PLUGIN),
    (
        "max.connections.per.ip.overrides",
        "max.connections.per.ip counts for all addresses alike: take it out",
    ),
    ("zookeeper.", "there is no ZooKeeper: controller.quorum.voters names the controllers"),
];

const SASL: &str = "SASL is not built. Let clients show certificates instead (a listener that speaks SSL, \
                    ssl.client.auth=required), or keep others away by the network";
const ACLS: &str = "there are no ACLs: whoever reaches a listener may do everything. Let only those in that show a \
                    certificate (ssl.client.auth=required), or keep others away by the network";
const TLS: &str = "TLS is that of rustls, with nothing to choose: take it out";
const PLUGIN: &str =
    "no class of Java is loaded here: take it out, and let whoever may do so make topics";

/// The families of Kafka's other settings: what begins so is a setting of Kafka's, or a slip of the pen.
const FAMILIES: &[&str] = &[
    "add.partitions.to.txn.",
    "alter.log.dirs.",
    "auto.",
    "background.threads",
    "broker.",
    "config.providers",
    "controlled.shutdown.",
    "controller.",
    "cordoned.log.dirs",
    "delete.records.",
    "errors.deadletterqueue.",
    "fetch.purgatory.",
    "follower.fetch.",
    "group.",
    "initial.broker.",
    "kafka.metrics.",
    "log.",
    "max.connections.",
    "max.request.",
    "metadata.",
    "metric.reporters",
    "metrics.",
    "node.",
    "num.",
    "offsets.",
    "process.roles",
    "producer.",
    "queued.",
    "quota.",
    "remote.",
    "replica.",
    "replication.quota.",
    "request.timeout.ms",
    "share.",
    "socket.",
    "telemetry.",
    "transaction.",
    "transactional.",
];

/// What a broker that speaks no SASL heeds in Apache Kafka neither: it is kept for whoever sets it.
const WITHOUT_EFFECT: &[&str] = &["sasl.kerberos.", "sasl.login.refresh."];

fn begins(name: &str, entry: &str) -> bool {
    name == entry || (entry.ends_with('.') && name.starts_with(entry))
}

/// Why a setting that asks for safety is refused, with the way out.
pub(crate) fn not_built(name: &str) -> Option<&'static str> {
    SAFETY.iter().find(|(entry, _)| begins(name, entry)).map(|(_, way_out)| *way_out)
}

/// Whether it is a setting of Apache Kafka, whose effect would be missed.
pub(crate) fn is_kafkas(name: &str) -> bool {
    not_built(name).is_some() || FAMILIES.iter().any(|family| begins(name, family))
}

/// Whether Apache Kafka keeps it for a broker without heeding it, too.
pub(crate) fn is_without_effect(name: &str) -> bool {
    WITHOUT_EFFECT.iter().any(|family| name.starts_with(family))
}

/// The value as it may be repeated in a message.
pub(crate) fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    const SECRETS: &[&str] =
        &["password", "passphrase", "secret", "jaas", "key", "chain", "certificates", "token"];
    if SECRETS.iter().any(|word| name.contains(word)) { HIDDEN } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_safety_has_a_way_out_and_secrets_are_not_repeated() {
        for name in ["sasl.jaas.config", "ssl.cipher.suites", "listener.name.x.ssl.client.auth"] {
            assert!(not_built(name).is_some() && is_kafkas(name), "{name}");
        }
        assert!(not_built("num.io.threads").is_none() && is_kafkas("num.io.threads"));
        for name in ["no.such", "retention.ms", "cleanup.policy", "saslx"] {
            assert!(!is_kafkas(name), "{name}");
        }
        assert_eq!(shown("ssl.key.password", "x"), HIDDEN);
        assert_eq!(shown("sasl.jaas.config", "x"), HIDDEN);
        assert_eq!(shown("super.users", "User:a"), "User:a");
        assert!(is_without_effect("sasl.kerberos.kinit.cmd"));
        assert!(!is_without_effect("sasl.enabled.mechanisms"));
    }
}
