//! Proof, independent of the datapath's own counters, of which packets took the slow path.

use std::fmt;
use std::ops::Sub;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::exec;
use crate::node::{BRIDGE, Node};
use crate::plan::{Family, cluster_cidr};

const TABLE: &str = "beeline-proof";

/// Counts, in netfilter's forward hooks, packets from pods to pods on one node.
///
/// To be removed before anything is timed, as the hooks themselves cost time.
#[derive(Debug)]
pub struct Proof<'a> {
    node: &'a Node,
}

/// Packets that took the slow path of a node since the proof began.
///
/// Noise is what no pod's program sent: ARP and neighbour discovery, as a stale neighbour may be asked again at any time,
/// router solicitations, and reports of multicast groups (IGMP, MLD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowPath {
    /// Pod-to-pod IP packets that the bridge forwarded from port to port.
    pub bridged: u64,
    /// Pod-to-pod IP packets that the IP stack forwarded.
    pub routed: u64,
    /// Packets that the bridge device received, other than noise: those from pods to the host and beyond.
    pub bridge_rx: u64,
    /// Packets that the bridge device sent, other than noise.
    pub bridge_tx: u64,
    /// Packets that host veths sent to their pods, other than noise.
    pub to_pods: u64,
}

impl SlowPath {
    /// Pod-to-pod IP packets, whoever forwarded them.
    pub fn pod_to_pod(&self) -> u64 {
        self.bridged + self.routed
    }

    /// Whether nothing at all went through the bridge and the host veths.
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }
}

impl Sub for SlowPath {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            bridged: self.bridged - before.bridged,
            routed: self.routed - before.routed,
            bridge_rx: self.bridge_rx.saturating_sub(before.bridge_rx),
            bridge_tx: self.bridge_tx.saturating_sub(before.bridge_tx),
            // Deleted pods take their counters along.
            to_pods: self.to_pods.saturating_sub(before.to_pods),
        }
    }
}

impl fmt::Display for SlowPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bridged,
            routed,
            bridge_rx,
            bridge_tx,
            to_pods,
        } = self;
        write!(
            f,
            "bridged {bridged}, routed {routed}, bridge rx {bridge_rx} tx {bridge_tx}, to pods {to_pods}"
        )
    }
}

impl<'a> Proof<'a> {
    /// Begins to count on a node.
    pub fn begin(node: &'a Node) -> Result<Self> {
        exec::nft(node.netns(), &script()).context("proof")?;
        Ok(Self { node })
    }

    /// Reads what was counted so far.
    pub fn read(&self) -> Result<SlowPath> {
        let (counters, links) = self.consistent()?;
        let packets = |family: &str, name: &str| {
            let entries = counters["nftables"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|entry| &entry["counter"]);
            let ours =
                |c: &&Value| c["family"] == family && c["table"] == TABLE && c["name"] == name;
            entries
                .filter(ours)
                .filter_map(|c| c["packets"].as_u64())
                .sum()
        };
        let count = |link: &Value, direction: &str| {
            link["stats64"][direction]["packets"].as_u64().unwrap_or(0)
        };
        let bridge = links.iter().find(|link| link["ifname"] == BRIDGE);
        let bridge = |direction| bridge.map_or(0, |link| count(link, direction));
        let ports = links.iter().filter(|link| link["master"] == BRIDGE);
        let to_pods: u64 = ports.map(|link| count(link, "tx")).sum();
        Ok(SlowPath {
            bridged: packets("bridge", "pod-to-pod"),
            routed: packets("inet", "pod-to-pod"),
            bridge_rx: bridge("rx").saturating_sub(packets("bridge", "noise-in")),
            bridge_tx: bridge("tx").saturating_sub(packets("bridge", "noise-out")),
            to_pods: to_pods.saturating_sub(packets("bridge", "noise-to-pods")),
        })
    }

    /// Reads hooks and links as of one moment, unless packets keep coming.
    fn consistent(&self) -> Result<(Value, Vec<Value>)> {
        let netns = self.node.netns();
        let hooks = || -> Result<Value> {
            exec::json(netns.command("nft").args(["-j", "list", "counters"]))
        };
        let links = || exec::json(netns.command("ip").args(["-json", "-stats", "link"]));
        let mut before = hooks()?;
        for _ in 0..5 {
            let (links, after) = (links()?, hooks()?);
            if before == after {
                return Ok((after, links));
            }
            before = after;
        }
        Ok((before, links()?))
    }

    /// Stops counting and removes the hooks.
    pub fn end(self) -> Result<()> {
        exec::nft(
            self.node.netns(),
            &format!("delete table bridge {TABLE}\ndelete table inet {TABLE}\n"),
        )
    }
}

fn script() -> String {
    let [v4, v6] = [Family::V4, Family::V6].map(cluster_cidr);
    let noise = |name: &str| {
        format!(
            r#"ether type arp counter name "{name}"
        ip protocol igmp counter name "{name}"
        icmpv6 type @noise counter name "{name}""#
        )
    };
    let pods = format!(
        r#"ip saddr {v4} ip daddr {v4} counter name "pod-to-pod"
        icmpv6 type @noise accept
        ip6 saddr {v6} ip6 daddr {v6} counter name "pod-to-pod""#
    );
    let set = r#"set noise {
        type icmpv6_type
        elements = { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report,
                     nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }
    }"#;
    // With br_netfilter, bridged packets pass the inet hook as well: those are counted already.
    format!(
        r#"
table bridge {TABLE} {{
    {set}
    counter pod-to-pod {{}}
    chain forward {{
        type filter hook forward priority 0;
        {pods}
    }}
    counter noise-in {{}}
    chain input {{
        type filter hook input priority 0;
        {in_}
    }}
    counter noise-out {{}}
    chain output {{
        type filter hook output priority 0;
        {out}
    }}
    counter noise-to-pods {{}}
    chain postrouting {{
        type filter hook postrouting priority 0;
        {to_pods}
    }}
}}
table inet {TABLE} {{
    {set}
    counter pod-to-pod {{}}
    chain forward {{
        type filter hook forward priority 0;
        iifname "{BRIDGE}" oifname "{BRIDGE}" accept
        {pods}
    }}
}}
"#,
        in_ = noise("noise-in"),
        out = noise("noise-out"),
        to_pods = noise("noise-to-pods"),
    )
}
