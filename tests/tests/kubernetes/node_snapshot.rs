//! What a pod network may leave on a node, as lines to compare.

use anyhow::Result;
use beeline_tests::snapshot::{self, Snapshot};
use serde_json::Value;

use crate::node::Node;

/// Everything that is listed by a line each: where it is, and the command that lists it.
const LISTS: [(&str, &str); 7] = [
    ("route", "ip route show table all"),
    ("route6", "ip -6 route show table all"),
    ("rule", "ip rule; ip -6 rule"),
    // kube-proxy's rules change with the Services, within tables that stay.
    ("nft", "nft list tables"),
    ("pin", "find /sys/fs/bpf -mindepth 1"),
    ("state", "find /run/beeline -mindepth 1 2>/dev/null || true"),
    (
        "file",
        "find /etc/cni/net.d /opt/cni/bin -type f -exec sha256sum {} +",
    ),
];

/// Takes a snapshot of a node.
pub(crate) fn take(node: &Node) -> Result<Snapshot> {
    let links: Vec<Value> = serde_json::from_str(&node.shell("ip -json -details address")?)?;
    let mut lines: Vec<String> = links.iter().flat_map(snapshot::link).collect();
    for (kind, command) in LISTS {
        let listed = node.shell(command)?;
        // Reachable time and the like move by themselves.
        let listed = listed
            .lines()
            .map(|line| line.split(" expires ").next().unwrap_or(line));
        lines.extend(listed.map(|line| format!("{kind} {}", line.trim())));
    }
    Ok(lines.into_iter().collect())
}
