//! Which replicas of a topic are throttled while they are not in sync (KIP-73).

use crate::model::{BrokerId, PartitionId};

/// `*`, or pairs of a partition and a broker: `0:1,0:2,1:3`; empty or `none`: no replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ThrottledReplicas {
    are_all: bool,
    replicas: Vec<(PartitionId, BrokerId)>,
}

impl ThrottledReplicas {
    /// `None`: the text is not of that form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("none") {
            return Some(Self::default());
        }
        if text == "*" {
            return Some(Self { are_all: true, replicas: Vec::new() });
        }
        let pair = |item: &str| {
            let (partition, broker) = item.trim().split_once(':')?;
            Some((partition.parse().ok()?, broker.parse().ok()?))
        };
        let replicas = text.split(',').map(pair).collect::<Option<Vec<_>>>()?;
        Some(Self { are_all: false, replicas })
    }

    pub(crate) fn has(&self, partition: PartitionId, broker: BrokerId) -> bool {
        self.are_all || self.replicas.contains(&(partition, broker))
    }
}

#[cfg(test)]
mod tests {
    use super::ThrottledReplicas;

    #[test]
    fn pairs_a_star_and_nothing_are_understood_and_nothing_else() {
        let has = |text: &str, at| ThrottledReplicas::parse(text).map(|all| all.has(at, 7));
        assert_eq!(has("0:1, 2:7", 2), Some(true));
        assert_eq!(has("0:1,2:7", 0), Some(false));
        assert_eq!(has("*", 3), Some(true));
        assert_eq!((has("", 0), has("none", 0)), (Some(false), Some(false)));
        assert_eq!((has("0", 0), has("0:1,", 0), has("a:b", 0)), (None, None, None));
    }
}
