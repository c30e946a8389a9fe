//! Which replicas of a topic are throttled while they are not in sync (KIP-73).

use crate::model::{BrokerId, PartitionId};

/// `*`, or pairs of a partition and a broker: `0:1,0:2,1:3`; empty: no replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ThrottledReplicas {
    are_all: bool,
    replicas: Vec<(PartitionId, BrokerId)>,
}

impl ThrottledReplicas {
    /// `None`: the text is not of that form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "*" {
            return Some(Self { are_all: true, replicas: Vec::new() });
        }
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let mut replicas = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (partition, broker) = item.split_once(':')?;
            if !is_number(partition) || !is_number(broker) {
                return None;
            }
            // Numbers that no replica can have are none.
            if let (Ok(partition), Ok(broker)) = (partition.parse(), broker.parse()) {
                replicas.push((partition, broker));
            }
        }
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
        assert_eq!((has("", 0), has("3:7,", 3)), (Some(false), Some(true)));
        assert_eq!((has("99999999999:7,3:7", 3), has("none", 0)), (Some(true), None));
        assert_eq!((has("0", 0), has("0:1,*", 0), has("a:b", 0)), (None, None, None));
        assert_eq!((has("+1:7", 1), has("1:2:3", 1)), (None, None));
    }
}
