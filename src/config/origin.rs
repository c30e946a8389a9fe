//! Where the records of a topic come from that did not begin here: a bucket, as the topic's own or as another cluster's.
//!
//! Invariants: what stands in a setting was parsed before it was accepted; a topic is mounted only from where the operator allows.

use super::broker::Config;
use crate::model::{LeaderEpoch, TopicId, validate_topic_name};

/// Where a topic comes from that is brought back.
pub(crate) const RESTORE: &str = "remote.storage.restore";

/// A topic that is brought back from a bucket: the id that it has there, and the leader epoch of its new partitions, which is
/// larger than any before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restore {
    pub topic_id: TopicId,
    pub leader_epoch: LeaderEpoch,
}

impl Restore {
    /// Reads `ID@EPOCH`; an empty text means none.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.split_once('@').and_then(|(id, epoch)| {
            Some(Self { topic_id: id.parse().ok()?, leader_epoch: epoch.parse().ok()? })
        });
        let parsed = parsed.filter(|wanted| !wanted.topic_id.is_nil() && wanted.leader_epoch >= 0);
        parsed.map(Some).ok_or_else(|| {
            format!(
                "Invalid value {text} for configuration {RESTORE}: it is not of the form ID@EPOCH"
            )
        })
    }
}

impl std::fmt::Display for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.topic_id, self.leader_epoch)
    }
}

/// Says of a topic that its records are another cluster's.
pub(crate) const MOUNT: &str = "remote.storage.mount";
/// The places that topics may be mounted from.
pub(crate) const MOUNT_URLS: &str = "remote.storage.mount.urls";
/// The leader epoch that mounted partitions begin with: larger than any that the cluster will have that writes their records.
pub(crate) const MOUNT_EPOCH: LeaderEpoch = 1 << 30;

/// A topic of another cluster, in its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub topic_id: TopicId,
    pub topic: String,
    /// The bucket, and the prefix in it.
    pub url: String,
}

impl Mount {
    /// Reads `ID:TOPIC@URL`; an empty text means none.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.split_once('@').and_then(|(topic, url)| {
            let (id, topic) = topic.split_once(':')?;
            let topic_id = id.parse().ok().filter(|id: &TopicId| !id.is_nil())?;
            validate_topic_name(topic).ok()?;
            Some(Self { topic_id, topic: topic.to_owned(), url: same_form(url) })
        });
        parsed.filter(|mount| !mount.url.is_empty()).map(Some).ok_or_else(|| {
            format!(
                "Invalid value {text} for configuration {MOUNT}: it is not of the form ID:TOPIC@URL"
            )
        })
    }

    /// Whether topics may be mounted from there.
    pub(super) fn check(&self, broker: &Config, is_otherwise_tiered: bool) -> Result<(), String> {
        if is_otherwise_tiered {
            return Err(format!(
                "{MOUNT} shows what another cluster writes: remote.storage.enable and remote.storage.restore can't be set beside it."
            ));
        }
        let known = mount_urls(broker);
        if known.contains(&self.url) {
            return Ok(());
        }
        Err(format!(
            "topics can't be mounted from {}: name it in {MOUNT_URLS} of every broker, which is {known:?} now.",
            self.url
        ))
    }
}

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}@{}", self.topic_id, self.topic, self.url)
    }
}

/// The places that topics may be mounted from.
pub(crate) fn mount_urls(broker: &Config) -> Vec<String> {
    broker.list(MOUNT_URLS).iter().map(|url| same_form(url)).collect()
}

/// A place has one name: with and without a slash at its end it is the same.
fn same_form(url: &str) -> String {
    url.trim().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    const ID: &str = "12345678-1234-1234-1234-123456789abc";

    #[test]
    fn a_mount_is_read_as_it_is_written_and_anything_else_is_refused() {
        let text = format!("{ID}:orders@s3://bucket/some/where");
        let mount = Mount::parse(&format!(" {text}/ ")).expect("good").expect("some");
        assert_eq!((mount.to_string(), mount.topic.as_str()), (text, "orders"));
        assert_eq!(Mount::parse(" "), Ok(None));
        for wrong in
            ["orders@s3://b", "x:orders@s3://b", &format!("{ID}:a b@s3://b"), &format!("{ID}:t@")]
        {
            assert!(Mount::parse(wrong).expect_err("refused").contains("ID:TOPIC@URL"), "{wrong}");
        }
    }

    #[test]
    fn a_topic_is_mounted_only_from_where_the_brokers_say() {
        let mount =
            Mount::parse(&format!("{ID}:orders@s3://bucket/a")).expect("good").expect("some");
        let mut broker = Config::default();
        let refused = mount.check(&broker, false).expect_err("refused");
        assert!(refused.contains("s3://bucket/a") && refused.contains(MOUNT_URLS), "{refused}");
        broker.set(MOUNT_URLS, "file:/x, s3://bucket/a/", Origin::File).expect("set");
        assert_eq!(mount.check(&broker, false), Ok(()));
        assert!(mount.check(&broker, true).is_err(), "it is tiered itself");
    }
}
