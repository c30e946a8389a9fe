//! What DescribeConfigs shows, and the reference page.
//!
//! Invariants: every key is shown; source and synonyms follow KIP-226 and KIP-569.

use std::borrow::Cow;
use std::collections::BTreeMap;
#[cfg(test)]
use std::fmt::Write;

use super::broker::{Config, Origin};
use super::table::{BROKER_ROWS, Kind, TOPIC_ROWS, broker_row};
use super::topic::{broker_default, effective};

const SOURCE_TOPIC: i8 = 1;
pub(crate) const SOURCE_DYNAMIC_BROKER: i8 = 2;
pub(crate) const SOURCE_DYNAMIC_CLUSTER: i8 = 3;
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// Settings that may hold keys.
const SECRETS: &[&str] = &["remote.storage.options"];

/// Whether its value is told to nobody.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
}

/// Where else a value would come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synonym {
    pub name: Cow<'static, str>,
    pub value: String,
    pub source: i8,
}

/// One key as it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub name: Cow<'static, str>,
    /// `None`: a number, or a name, that nothing says.
    pub value: Option<String>,
    pub is_read_only: bool,
    /// Its value is told to nobody.
    pub is_secret: bool,
    pub source: i8,
    pub kind: i8,
    pub synonyms: Vec<Synonym>,
    pub text: &'static str,
}

/// Every topic key with its value in force.
pub(crate) fn topic_entries(
    broker: &Config,
    overrides: &BTreeMap<String, String>,
) -> Vec<Described> {
    let describe = |row: &super::table::TopicRow| {
        let mut synonyms = Vec::new();
        if let Some(value) = overrides.get(row.name) {
            synonyms.push(Synonym {
                name: row.name.into(),
                value: value.clone(),
                source: SOURCE_TOPIC,
            });
        }
        if let Some(key) = row.broker {
            let (_, origin) = broker.get(key);
            let value = broker_default(broker, row.name);
            if origin != Origin::Default {
                synonyms.push(Synonym { name: key.into(), value, source: source(origin) });
            }
            // Where the broker's has no default of its own, the value is that of others (log.retention.hours).
            if broker_row(key).is_none_or(|row| !is_unsaid(row.kind, row.default)) {
                let default = row.default.to_owned();
                synonyms.push(Synonym { name: key.into(), value: default, source: SOURCE_DEFAULT });
            }
        }
        let first = synonyms.first();
        Described {
            name: Cow::Borrowed(row.name),
            value: Some(match first {
                Some(synonym) => synonym.value.clone(),
                None => effective(broker, overrides, row.name),
            }),
            is_read_only: false,
            is_secret: false,
            source: first.map_or(SOURCE_DEFAULT, |s| s.source),
            kind: kind_number(row.kind),
            synonyms,
            text: row.text,
        }
    };
    TOPIC_ROWS.iter().map(describe).collect()
}

/// Every broker key with its value in force.
pub(crate) fn broker_entries(config: &Config) -> Vec<Described> {
    let describe = |row: &super::table::Row| {
        let (value, origin) = config.get(row.name);
        let mut synonyms = Vec::new();
        if origin != Origin::Default {
            synonyms.push(Synonym {
                name: row.name.into(),
                value: value.to_owned(),
                source: source(origin),
            });
        }
        if !is_unsaid(row.kind, row.default) {
            let default = row.default.to_owned();
            synonyms.push(Synonym {
                name: row.name.into(),
                value: default,
                source: SOURCE_DEFAULT,
            });
        }
        Described {
            name: Cow::Borrowed(row.name),
            value: (!is_unsaid(row.kind, value)).then(|| value.to_owned()),
            is_read_only: !row.dynamic,
            is_secret: is_secret(row.name),
            source: source(origin),
            kind: kind_number(row.kind),
            synonyms,
            text: row.text,
        }
    };
    BROKER_ROWS.iter().map(describe).collect()
}

/// What is set for all brokers, or for one, as it was set; names that are no settings are shown without their value, as Kafka
/// does, since it may be a secret.
pub(crate) fn set_entries(set: &BTreeMap<String, String>, source: i8) -> Vec<Described> {
    let describe = |(name, value): (&String, &String)| {
        let Some(row) = broker_row(name) else {
            return Described {
                name: Cow::Owned(name.clone()),
                value: None,
                is_read_only: true,
                is_secret: true,
                source,
                kind: 0,
                synonyms: vec![Synonym {
                    name: Cow::Owned(name.clone()),
                    value: String::new(),
                    source,
                }],
                text: "",
            };
        };
        Described {
            name: Cow::Borrowed(row.name),
            value: Some(value.clone()),
            is_read_only: !row.dynamic,
            is_secret: is_secret(row.name),
            source,
            kind: kind_number(row.kind),
            synonyms: vec![Synonym { name: row.name.into(), value: value.clone(), source }],
            text: row.text,
        }
    };
    set.iter().map(describe).collect()
}

/// Whether nothing is said: a list may be empty, a number or a name may not.
fn is_unsaid(kind: Kind, value: &str) -> bool {
    value.is_empty() && !matches!(kind, Kind::List | Kind::Words(_) | Kind::Pairs)
}

fn source(origin: Origin) -> i8 {
    match origin {
        Origin::Default => SOURCE_DEFAULT,
        Origin::File | Origin::Environment | Origin::CommandLine => SOURCE_STATIC_BROKER,
        Origin::DynamicCluster => SOURCE_DYNAMIC_CLUSTER,
        Origin::DynamicBroker => SOURCE_DYNAMIC_BROKER,
    }
}

fn kind_number(kind: Kind) -> i8 {
    match kind {
        Kind::Bool => 1,
        Kind::Str | Kind::Word(_) => 2,
        Kind::Int => 3,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List | Kind::Words(_) | Kind::Pairs => 7,
    }
}

#[cfg(test)]
fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Bool => "boolean".to_owned(),
        Kind::Str => "string".to_owned(),
        Kind::Int => "int".to_owned(),
        Kind::Long => "long".to_owned(),
        Kind::Double => "double".to_owned(),
        Kind::List => "list".to_owned(),
        Kind::Pairs => "list of partition:broker, or *".to_owned(),
        Kind::Word(words) => words.join(", "),
        Kind::Words(words) => format!("list of {}", words.join(", ")),
    }
}

/// `docs/reference/config.md`.
#[cfg(test)]
pub(crate) fn reference_page() -> String {
    let mut page = String::from(
        "# Settings\n\nGenerated from `src/config/table.rs`; `UPDATE=1 cargo test tidy` rewrites it.\n\n## Broker\n\n\
         Set in a file (`--config FILE`), by environment (`STRANDLINE_LOG_DIRS`), or by `--set key=value`; the last wins.\n\
         Dynamic settings also change while the broker runs (`kafka-configs`, `strandline topic alter`).\n\n\
         Values are taken, refused and shown as by Apache Kafka 4.4 (`+5` is `5`, `TRUE` is `true`, `delete, compact` is `delete,compact`); \
         what differs stands in `integration/settings/differences.txt`, with its reason. A setting of Kafka's that nothing here heeds is \
         refused, so that nobody misses it; dynamically, names that are no settings, `sasl.kerberos.*` and `sasl.login.refresh.*` are kept \
         and shown without their values, since Kafka takes them and heeds them no more than a broker without SASL.\n\n\
         | name | type | default | dynamic | what it does |\n|---|---|---|---|---|\n",
    );
    for row in BROKER_ROWS {
        let dynamic = if row.dynamic { "yes" } else { "no" };
        let _ = writeln!(
            page,
            "| `{}` | {} | `{}` | {dynamic} | {} |",
            row.name,
            kind_name(row.kind),
            row.default,
            row.text
        );
    }
    page.push_str("\n## Topic\n\n| name | type | default | broker setting | what it does |\n|---|---|---|---|---|\n");
    for row in TOPIC_ROWS {
        let broker = row.broker.map_or_else(|| "-".to_owned(), |name| format!("`{name}`"));
        let _ = writeln!(
            page,
            "| `{}` | {} | `{}` | {broker} | {} |",
            row.name,
            kind_name(row.kind),
            row.default,
            row.text
        );
    }
    page
}
