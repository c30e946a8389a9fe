//! Every setting: the table, the checked configuration of a broker, the resolved configuration of a topic.
//!
//! Invariants: a key that is accepted acts; values are checked once, where they enter; the last origin wins
//! (default, file, environment, command line, dynamic).
//! Left to others: storing dynamic values (`metadata`), answering DescribeConfigs (`api`).

mod broker;
mod describe;
mod elsewhere;
mod listener;
mod origin;
mod table;
mod throttled;
mod topic;
mod value;

pub(crate) use broker::{
    Config, ConfigError, Origin, properties, read_environment, read_file_text,
};
#[cfg(test)]
pub(crate) use describe::reference_page;
pub(crate) use describe::{
    Described, SOURCE_DYNAMIC_BROKER, SOURCE_DYNAMIC_CLUSTER, Synonym, broker_entries, is_secret,
    set_entries, topic_entries,
};
pub(crate) use elsewhere::{is_kafkas, is_without_effect, not_built, shown as shown_value};
pub(crate) use listener::{Endpoint, parse_address, parse_endpoints};
pub(crate) use origin::{MOUNT, MOUNT_EPOCH, MOUNT_URLS, Mount, RESTORE, Restore, mount_urls};
pub(crate) use table::{BROKER_ROWS, Row, TOPIC_ROWS};
pub(crate) use topic::{
    TimestampType, TopicConfig, canonical_override, check_broker, check_topic, edit_list, effective,
};
