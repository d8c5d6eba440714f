//! Who is compared: each a way to join two ends, on one node and across nodes, built on the harness's own topology.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;

use super::arena::{Arena, prefix};
use super::types::Place;
use crate::netns::{Ipv6, Namespace};
use crate::node::Node;
use crate::topology::{Plugin, Topology, TopologySpec};
use crate::{datapath, exec};

/// A contender, and how to build it.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) places: &'static [Place],
    kind: Kind,
}

enum Kind {
    /// Two namespaces joined by one veth pair.
    Veth,
    /// The nodes themselves.
    Nodes,
    /// Pods.
    Pods(Pods),
}

struct Pods {
    plugin: fn() -> Result<Plugin>,
    /// Changes nodes before the first pod.
    prepare: fn(&Node) -> Result<()>,
    /// Counters that must move on the first node, or it is not this contender that is measured.
    counters: &'static [&'static str],
}

/// Everyone, in the order of charts: limits first.
pub(super) const ALL: &[Contender] = &[
    Contender {
        name: "veth",
        places: &[Place::SameNode],
        kind: Kind::Veth,
    },
    Contender {
        name: "nodes",
        places: &[Place::AcrossNodes],
        kind: Kind::Nodes,
    },
    Contender {
        name: "bridge",
        places: &[Place::SameNode, Place::AcrossNodes],
        kind: Kind::Pods(Pods {
            plugin: reference,
            prepare: |_| Ok(()),
            counters: &[],
        }),
    },
    // On one node it is the bridge contender.
    Contender {
        name: "bridge-vxlan",
        places: &[Place::AcrossNodes],
        kind: Kind::Pods(Pods {
            plugin: reference,
            prepare: vxlan,
            counters: &[],
        }),
    },
    Contender {
        name: "beeline",
        places: &[Place::SameNode, Place::AcrossNodes],
        kind: Kind::Pods(Pods {
            plugin: Plugin::from_env,
            prepare: |_| Ok(()),
            counters: &[datapath::TO_POD, datapath::TO_PEER],
        }),
    },
    // On one node it is the beeline contender.
    Contender {
        name: "beeline-vxlan",
        places: &[Place::AcrossNodes],
        kind: Kind::Pods(Pods {
            plugin: Plugin::from_env,
            prepare: overlay,
            counters: &[datapath::TO_OVERLAY],
        }),
    },
];

/// The names of all.
pub(super) fn names() -> Vec<&'static str> {
    ALL.iter().map(|contender| contender.name).collect()
}

/// The reference plugin, where Debian has it.
pub(super) fn reference() -> Result<Plugin> {
    Plugin::new("/usr/lib/cni/bridge").context("package containernetworking-plugins")
}

impl Contender {
    /// Builds it.
    pub(super) fn build(&self) -> Result<Arena> {
        let arena = match &self.kind {
            Kind::Veth => veth(&prefix(self.name)),
            Kind::Nodes => topology(self.name, reference()?)
                .map(|topology| Arena::of_nodes(self.name, topology)),
            Kind::Pods(pods) => pods.build(self.name),
        };
        let arena = arena.map(|arena| arena.at(self.places));
        arena.with_context(|| format!("contender {}", self.name))
    }
}

impl Pods {
    fn build(&self, name: &'static str) -> Result<Arena> {
        let topology = topology(name, (self.plugin)()?)?;
        for node in topology.nodes() {
            (self.prepare)(node)?;
        }
        let [near, far]: [Arc<Node>; 2] = topology.take();
        let pods = [(&near, "client"), (&near, "server"), (&far, "server")];
        let pods = pods
            .into_iter()
            .map(|(node, name)| node.try_add_pod(name))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arena::of_pods(name, topology, pods, self.counters))
    }
}

fn topology(name: &str, plugin: Plugin) -> Result<Topology> {
    Topology::new(&TopologySpec::new(prefix(name), 2, plugin))
}

/// Two ends with nothing but a veth pair between them.
fn veth(prefix: &str) -> Result<Arena> {
    let ends =
        ["left", "right"].map(|end| Namespace::create(&format!("{prefix}-{end}"), Ipv6::Disabled));
    let [left, right] = ends;
    let (left, right) = (left?, right?);
    let peer = right.name();
    exec::ip_batch(
        &left,
        &[
            format!("link add eth0 type veth peer name eth0 netns {peer}"),
            "address add 10.244.0.1/24 dev eth0".to_owned(),
            "link set eth0 up".to_owned(),
        ],
    )?;
    let commands = ["address add 10.244.0.2/24 dev eth0", "link set eth0 up"];
    exec::ip_batch(&right, &commands.map(str::to_owned))?;
    Ok(Arena::of_veth("veth", left, right))
}

/// Has beeline reach a node's peers by its overlay, neighbours that they are; its pods' MTU follows.
fn overlay(node: &Node) -> Result<()> {
    node.config()
        .with(|plugin| plugin["datapath"]["overlay"] = json!({"type": "vxlan", "always": true}))
        .install()
        .map(drop)
}

/// Replaces a node's routes to its peers by an overlay, as flannel sets one up, and its pods' MTU.
fn vxlan(node: &Node) -> Result<()> {
    let mac = |host: IpAddr| match host {
        IpAddr::V4(host) => format!("02:00:00:00:01:{:02x}", host.octets()[3]),
        IpAddr::V6(host) => format!("02:00:00:00:01:{:02x}", host.octets()[15]),
    };
    let mut commands = vec![
        format!(
            "link add flannel.1 address {} mtu 1450 type vxlan id 1 local {} dev eth0 dstport 8472 nolearning",
            mac(node.address()),
            node.address()
        ),
        format!("address add {}/32 dev flannel.1", node.pod_cidr().network()),
        "link set flannel.1 up".to_owned(),
    ];
    for peer in node.peers() {
        let (gateway, mac) = (peer.cidr.network(), mac(peer.node));
        commands.extend([
            format!("neighbour replace {gateway} lladdr {mac} dev flannel.1 nud permanent"),
            format!(
                "route replace {} via {gateway} dev flannel.1 onlink",
                peer.cidr
            ),
        ]);
    }
    exec::ip_batch(node.netns(), &commands)?;
    for peer in node.peers() {
        let mac = mac(peer.node);
        let entry = ["fdb", "append", &mac, "dev", "flannel.1", "dst"];
        let address = peer.node.to_string();
        exec::stdout(node.netns().command("bridge").args(entry).arg(address))?;
    }
    node.config()
        .with(|plugin| plugin["mtu"] = json!(1450))
        .install()
        .map(drop)
}
