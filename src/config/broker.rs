//! A broker's configuration: values with their origins, checked.
//!
//! Invariants: every stored value passed its row's check, so reading one cannot fail.

use std::collections::BTreeMap;
use std::fmt;

use super::elsewhere::{not_built, shown};
use super::table::{BROKER_ROWS, Row, broker_row};
use super::value::{canonical, fraction};
use crate::model::number::to_usize;

/// Environment variables start with this; the rest is the key in capitals with `_` for `.`.
const ENVIRONMENT_PREFIX: &str = "STRANDLINE_";
/// Other names that Kafka's users know for a row.
const SYNONYMS: &[(&str, &str)] = &[("broker.id", "node.id"), ("log.dir", "log.dirs")];

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Default,
    File,
    Environment,
    CommandLine,
    /// Set while it runs: for all brokers, and for this one.
    DynamicCluster,
    DynamicBroker,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::CommandLine => "command line",
            Origin::DynamicCluster | Origin::DynamicBroker => "dynamic",
        })
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ConfigError {
    #[error("unknown setting '{key}'{}", suggestion.as_ref().map(|s| format!(": did you mean '{s}'?")).unwrap_or_default())]
    Unknown { key: String, suggestion: Option<String> },
    #[error("{key}={value} is a setting of Apache Kafka that nothing here heeds: {way_out}")]
    NotBuilt { key: String, value: String, way_out: &'static str },
    #[error("{0}")]
    Invalid(String),
    #[error("line {line} of the configuration file is not 'key=value': {text}")]
    Syntax { line: usize, text: String },
}

/// The settings of one broker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    set: BTreeMap<&'static str, (String, Origin)>,
}

impl Config {
    /// Sets a value; a later call wins unless its origin is weaker.
    pub(crate) fn set(
        &mut self,
        key: &str,
        value: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let key = SYNONYMS.iter().find(|(other, _)| *other == key).map_or(key, |(_, name)| name);
        let row = broker_row(key).ok_or_else(|| unknown(key, value))?;
        let value =
            canonical(row.name, row.kind, row.bounds, value).map_err(ConfigError::Invalid)?;
        let stronger = self.set.get(row.name).is_some_and(|(_, old)| *old > origin);
        if !stronger {
            self.set.insert(row.name, (value, origin));
        }
        Ok(())
    }

    /// The value of a key and where it comes from; panics on a name that is not in the table (our own mistake).
    pub(crate) fn get(&self, name: &str) -> (&str, Origin) {
        match self.set.get(name) {
            Some((value, origin)) => (value, *origin),
            None => (row(name).default, Origin::Default),
        }
    }

    /// Whether any origin but the default gave a value.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).0
    }

    pub(crate) fn long(&self, name: &str) -> i64 {
        self.text(name).trim().parse().unwrap_or_else(|_| row(name).default.parse().unwrap_or(0))
    }

    pub(crate) fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).unwrap_or(i32::MAX)
    }

    pub(crate) fn size(&self, name: &str) -> usize {
        to_usize(self.long(name))
    }

    pub(crate) fn boolean(&self, name: &str) -> bool {
        self.text(name).trim().eq_ignore_ascii_case("true")
    }

    pub(crate) fn double(&self, name: &str) -> f64 {
        fraction(self.text(name)).unwrap_or(0.0)
    }

    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.text(name).split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
    }

    /// This configuration with dynamic values on top; unknown or wrong ones are left out.
    #[must_use]
    pub(crate) fn with_dynamic(&self, values: &BTreeMap<String, String>, origin: Origin) -> Self {
        let mut config = self.clone();
        for (key, value) in values {
            let dynamic = broker_row(key).is_some_and(|row| row.dynamic);
            if dynamic && let Err(error) = config.set(key, value, origin) {
                tracing::warn!(key, %error, "dynamic setting ignored");
            }
        }
        config
    }

    /// Age limits by Kafka's precedence: ms, then minutes, then hours.
    pub(crate) fn retention_ms(&self) -> i64 {
        if self.is_set("log.retention.ms") {
            return self.long("log.retention.ms").max(-1);
        }
        let scaled =
            |value: i64, unit: i64| if value < 0 { -1 } else { value.saturating_mul(unit) };
        if self.is_set("log.retention.minutes") {
            return scaled(self.long("log.retention.minutes"), 60_000);
        }
        scaled(self.long("log.retention.hours"), 3_600_000)
    }

    /// Age at which segments are rolled: ms, then hours.
    pub(crate) fn roll_ms(&self) -> i64 {
        if self.is_set("log.roll.ms") {
            return self.long("log.roll.ms");
        }
        self.long("log.roll.hours").saturating_mul(3_600_000)
    }
}

fn row(name: &str) -> &'static Row {
    broker_row(name).unwrap_or_else(|| panic!("setting {name} is not in the table"))
}

fn unknown(key: &str, value: &str) -> ConfigError {
    if let Some(way_out) = not_built(key) {
        return ConfigError::NotBuilt {
            key: key.to_owned(),
            value: shown(key, value.trim()).to_owned(),
            way_out,
        };
    }
    let best = BROKER_ROWS.iter().map(|row| (strsim::levenshtein(row.name, key), row.name)).min();
    let suggestion = best
        .filter(|(distance, _)| *distance <= 1 + key.len() / 3)
        .map(|(_, name)| name.to_owned());
    ConfigError::Unknown { key: key.to_owned(), suggestion }
}

/// The `key=value` lines of a text (Java properties without escapes); `#` and `!` start comments.
pub(crate) fn properties(text: &str) -> Result<Vec<(&str, &str)>, ConfigError> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| ConfigError::Syntax { line: index + 1, text: line.to_owned() })?;
        found.push((key.trim(), value.trim()));
    }
    Ok(found)
}

/// Takes the settings of a file's text.
pub(crate) fn read_file_text(config: &mut Config, text: &str) -> Result<(), ConfigError> {
    for (key, value) in properties(text)? {
        config.set(key, value, Origin::File)?;
    }
    Ok(())
}

/// Reads `STRANDLINE_LOG_DIRS` and its like; names that start so but match no setting are refused.
pub(crate) fn read_environment(
    config: &mut Config,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        if is_not_a_setting(rest) {
            continue;
        }
        config.set(&rest.to_ascii_lowercase().replace('_', "."), &value, Origin::Environment)?;
    }
    Ok(())
}

/// Names with our prefix that mean something else: the filter of log lines, the command line's default cluster, and
/// what Kubernetes puts into every container beside a service named `strandline`.
fn is_not_a_setting(rest: &str) -> bool {
    matches!(rest, "LOG" | "BOOTSTRAP" | "COMMAND_CONFIG" | "SERVICE_HOST" | "PORT")
        || rest.starts_with("SERVICE_PORT")
        || rest.starts_with("PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_origin_wins_whatever_the_order() {
        let mut config = Config::default();
        config.set("num.partitions", "7", Origin::CommandLine).expect("set");
        read_file_text(&mut config, "# a comment\nnum.partitions = 3\nlog.dirs=/a,/b\n")
            .expect("file");
        let variables = [
            ("STRANDLINE_LOG_DIRS".to_owned(), "/c".to_owned()),
            ("HOME".to_owned(), "/".to_owned()),
        ];
        read_environment(&mut config, variables.into_iter()).expect("environment");
        assert_eq!(config.get("num.partitions"), ("7", Origin::CommandLine));
        assert_eq!(config.list("log.dirs"), ["/c"]);
        assert_eq!(config.long("message.max.bytes"), 1_048_588);
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_suggestion() {
        let error = Config::default().set("num.partition", "1", Origin::File).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "unknown setting 'num.partition': did you mean 'num.partitions'?"
        );
        let far = Config::default().set("zzzzzzzzzzzz", "1", Origin::File).expect_err("unknown");
        assert_eq!(far.to_string(), "unknown setting 'zzzzzzzzzzzz'");
    }

    #[test]
    fn variables_of_the_shell_and_of_kubernetes_are_not_taken_for_settings() {
        let names = [
            "BOOTSTRAP",
            "COMMAND_CONFIG",
            "LOG",
            "SERVICE_HOST",
            "SERVICE_PORT_KAFKA",
            "PORT",
            "PORT_9092_TCP_ADDR",
        ];
        let variables = names.map(|name| (format!("STRANDLINE_{name}"), "x".to_owned()));
        assert_eq!(read_environment(&mut Config::default(), variables.into_iter()), Ok(()));
        let wrong = [("STRANDLINE_LOG_DIR_S".to_owned(), "x".to_owned())];
        assert!(read_environment(&mut Config::default(), wrong.into_iter()).is_err());
    }

    #[test]
    fn retention_follows_the_finest_unit_that_is_set() {
        let mut config = Config::default();
        assert_eq!(config.retention_ms(), 604_800_000);
        config.set("log.retention.minutes", "2", Origin::File).expect("set");
        assert_eq!(config.retention_ms(), 120_000);
        config.set("log.retention.ms", "-1", Origin::File).expect("set");
        assert_eq!(config.retention_ms(), -1);
    }
}
