//! What a node's datapath counted: the only place of the harness that knows of beeline's maps.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::node::Node;

/// Counter of packets that went straight to a pod of the same node.
pub const TO_POD: &str = "to_pod";

/// Counter of packets that went straight from a pod to the uplink, for a peer.
pub const TO_PEER: &str = "to_peer";

/// Counter of packets that went straight from the uplink to a pod.
pub const FROM_UPLINK: &str = "from_uplink";

/// Reads the counters of a node by name, summed over CPUs.
///
/// To be read from the `STATS` map pinned below [`Node::bpffs_dir`]; until then no node has counters, as a node in
/// mode `bridge` has none.
pub fn counters(_node: &Node) -> Result<BTreeMap<String, u64>> {
    Ok(BTreeMap::new())
}

/// By how much each counter grew; those that did not are left out.
pub fn growth(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let grown = after
        .iter()
        .map(|(name, now)| (name.clone(), now - before.get(name).unwrap_or(&0).min(now)));
    grown.filter(|(_, growth)| *growth > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_names_only_what_grew() {
        let before = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 5)]);
        let after = BTreeMap::from([
            ("a".to_owned(), 1),
            ("b".to_owned(), 7),
            ("c".to_owned(), 2),
        ]);
        assert_eq!(
            growth(&before, &after),
            BTreeMap::from([("b".to_owned(), 2), ("c".to_owned(), 2)])
        );
    }
}
