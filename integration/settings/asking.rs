//! What is asked of a broker about settings, and how an answer is written down: one line for each question.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use crate::probe::client::{C, s, topic};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// What is done to a setting, as IncrementalAlterConfigs numbers it.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Step {
    pub(super) fn number(self) -> i8 {
        match self {
            Step::Set => 0,
            Step::Delete => 1,
            Step::Append => 2,
            Step::Subtract => 3,
        }
    }
}

/// Changes of one resource.
pub(super) type Steps<'a> = Vec<Change<'a>>;

/// What is done to a setting.
pub(super) type Change<'a> = (&'a str, Step, Option<&'a str>);

/// A connection, and what was answered on it.
pub(super) struct Asking {
    pub(super) c: C,
    pub(super) out: String,
    /// The broker's id.
    pub(super) broker: i32,
    /// How long after the answer a change may be seen (Apache Kafka's broker learns it from the controller's log).
    pub(super) settle: Duration,
}

fn value(value: Option<&StrBytes>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("{:?}", value.as_str()))
}

fn error(code: i16, message: Option<&StrBytes>) -> String {
    format!("error {code} {:?}", message.map_or("", |message| message))
}

impl Asking {
    pub(super) fn new(settle: Duration) -> Result<Self> {
        let mut c = C::new();
        let cluster = c.call(0, DescribeClusterRequest::default())?;
        let broker = cluster.brokers.first().map_or(-1, |broker| broker.broker_id.0);
        Ok(Self { c, out: String::new(), broker, settle })
    }

    pub(super) fn settle(&self) {
        std::thread::sleep(self.settle);
    }

    pub(super) fn say(&mut self, question: &str, answer: &str) {
        let _ = writeln!(self.out, "{question} => {answer}");
    }

    /// Makes topics, each with a setting; what became of each, and how its setting is shown.
    pub(super) fn create(
        &mut self,
        topics: &[(String, &str, &str)],
        validate_only: bool,
    ) -> Result<Vec<String>> {
        use create_topics_request::*;
        let one = |(name, key, value): &(String, &str, &str)| {
            let config = CreatableTopicConfig::default();
            let config = config.with_name(s(key)).with_value(Some(s(value)));
            CreatableTopic::default()
                .with_name(topic(name))
                .with_num_partitions(1)
                .with_replication_factor(1)
                .with_configs(if key.is_empty() { vec![] } else { vec![config] })
        };
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(10_000)
            .with_validate_only(validate_only)
            .with_topics(topics.iter().map(one).collect());
        let answer = self.c.call(7, request)?;
        let outcome = |(name, key, _): &(String, &str, &str)| {
            let Some(made) = answer.topics.iter().find(|made| made.name.0.as_str() == name) else {
                return "no answer".to_owned();
            };
            if made.error_code != 0 {
                return error(made.error_code, made.error_message.as_ref());
            }
            let configs = made.configs.iter().flatten();
            let shown = configs.filter(|config| config.name.as_str() == *key);
            let shown: Vec<String> = shown
                .map(|config| {
                    format!("{} source {}", value(config.value.as_ref()), config.config_source)
                })
                .collect();
            shown.join(" ")
        };
        Ok(topics.iter().map(outcome).collect())
    }

    /// Changes settings of one resource each.
    pub(super) fn alter(
        &mut self,
        kind: i8,
        changes: &[(String, Steps<'_>)],
        validate_only: bool,
    ) -> Result<Vec<String>> {
        use incremental_alter_configs_request::*;
        let one = |(name, steps): &(String, Steps<'_>)| {
            let step = |(key, step, value): &Change<'_>| {
                AlterableConfig::default()
                    .with_name(s(key))
                    .with_config_operation(step.number())
                    .with_value(value.map(s))
            };
            AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(s(name))
                .with_configs(steps.iter().map(step).collect())
        };
        let request = IncrementalAlterConfigsRequest::default()
            .with_validate_only(validate_only)
            .with_resources(changes.iter().map(one).collect());
        let answer = self.c.call(1, request)?;
        let outcome = |(name, _): &(String, Steps<'_>)| {
            let found = answer.responses.iter().find(|r| r.resource_name.as_str() == name);
            match found {
                None => "no answer".to_owned(),
                Some(done) if done.error_code == 0 => "ok".to_owned(),
                Some(done) => error(done.error_code, done.error_message.as_ref()),
            }
        };
        Ok(changes.iter().map(outcome).collect())
    }

    /// Sets all of what is set, as AlterConfigs did before KIP-339.
    pub(super) fn replace(
        &mut self,
        kind: i8,
        name: &str,
        values: &[(&str, Option<&str>)],
    ) -> Result<String> {
        use alter_configs_request::*;
        let value = |(key, value): &(&str, Option<&str>)| {
            AlterableConfig::default().with_name(s(key)).with_value(value.map(s))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(s(name))
            .with_configs(values.iter().map(value).collect());
        let answer =
            self.c.call(2, AlterConfigsRequest::default().with_resources(vec![resource]))?;
        let done = &answer.responses[0];
        Ok(match done.error_code {
            0 => "ok".to_owned(),
            code => error(code, done.error_message.as_ref()),
        })
    }

    /// How one setting of each resource is shown.
    pub(super) fn describe(
        &mut self,
        kind: i8,
        names: &[String],
        key: &str,
        with_synonyms: bool,
    ) -> Result<Vec<String>> {
        use describe_configs_request::*;
        let one = |name: &String| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(s(name))
                .with_configuration_keys(Some(vec![s(key)]))
        };
        let request = DescribeConfigsRequest::default()
            .with_include_synonyms(with_synonyms)
            .with_resources(names.iter().map(one).collect());
        let answer = self.c.call(4, request)?;
        let shown = |name: &String| {
            let found = answer.results.iter().find(|r| r.resource_name.as_str() == name);
            let Some(found) = found else { return "no answer".to_owned() };
            if found.error_code != 0 {
                return error(found.error_code, found.error_message.as_ref());
            }
            let Some(config) = found.configs.first() else { return "not shown".to_owned() };
            let synonyms: Vec<String> = config
                .synonyms
                .iter()
                .map(|other| {
                    format!(
                        "{}={} {}",
                        other.name.as_str(),
                        value(other.value.as_ref()),
                        other.source
                    )
                })
                .collect();
            let from = if with_synonyms {
                format!(" from [{}]", synonyms.join(", "))
            } else {
                String::new()
            };
            format!(
                "{} type {} source {}{}{}{from}",
                value(config.value.as_ref()),
                config.config_type,
                config.config_source,
                if config.read_only { " read only" } else { "" },
                if config.is_sensitive { " sensitive" } else { "" },
            )
        };
        Ok(names.iter().map(shown).collect())
    }

    /// The names of all settings of a resource.
    pub(super) fn names(&mut self, kind: i8, name: &str) -> Result<Vec<String>> {
        use describe_configs_request::*;
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(s(name))
            .with_configuration_keys(None);
        let answer =
            self.c.call(4, DescribeConfigsRequest::default().with_resources(vec![resource]))?;
        let configs = answer.results.iter().flat_map(|result| &result.configs);
        let mut names: Vec<String> = configs.map(|config| config.name.to_string()).collect();
        names.sort();
        Ok(names)
    }
}
