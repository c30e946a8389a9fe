//! Every setting: the table, the checked configuration of a broker, the resolved configuration of a topic.
//!
//! Invariants: a key that is accepted acts; values are checked once, where they enter; the last origin wins
//! (default, file, environment, command line, dynamic).
//! Left to others: storing dynamic values (`metadata`), answering DescribeConfigs (`api`).

mod broker;
mod describe;
mod listener;
mod table;
mod topic;

pub use broker::{Config, ConfigError, Origin, read_environment, read_file_text};
pub use describe::{Described, Synonym, broker_entries, reference_page, topic_entries};
pub use listener::{Endpoint, parse_endpoints};
pub use table::{BROKER_ROWS, Kind, Row, TOPIC_ROWS, TopicRow};
pub use topic::{TimestampType, TopicConfig, check_topic_override, edit_list, effective};
