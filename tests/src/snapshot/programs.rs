//! The fast path in a snapshot: what its maps say, and how many programs are at which hook.

use anyhow::Result;
use aya::programs::{SchedClassifier, TcAttachType};
use beeline::datapath::Datapath;

use crate::config::NETWORK;
use crate::datapath::known;
use crate::node::Node;

/// Entries of pods, of what they may send from, and of peers, without what a pod's change of path changes.
pub(super) fn maps(node: &Node) -> Result<Vec<String>> {
    let Some(datapath) = Datapath::open(&node.bpffs_dir(), NETWORK) else {
        return Ok(Vec::new());
    };
    let pods = datapath.pods()?;
    let pods = pods
        .into_iter()
        .map(|(ip, pod)| format!("map pod {ip} at {} {:?}", pod.ifindex, pod.mac));
    let peers = datapath.peers()?;
    let peers = peers
        .into_iter()
        .map(|(cidr, peer)| format!("map peer {cidr} {:?} vni {}", peer.node, peer.vni));
    let ports = known(node)?.ports.into_iter();
    let ports = ports.map(|ifindex| format!("map port {ifindex}"));
    Ok(pods.chain(peers).chain(ports).collect())
}

/// How many programs are attached to these interfaces by tcx, whosever they are; none where the kernel has no tcx.
pub(super) fn hooks(node: &Node, interfaces: &[String]) -> Vec<String> {
    let hooks = [
        ("ingress", TcAttachType::Ingress),
        ("egress", TcAttachType::Egress),
    ];
    let query = |interface: &String| {
        hooks.map(|(name, hook)| {
            let found = SchedClassifier::query_tcx(interface, hook);
            let count = found.map_or(0, |(_, programs)| programs.len());
            (count > 0).then(|| format!("program {interface} {name}: {count}"))
        })
    };
    let found = node
        .netns()
        .within(|| interfaces.iter().map(query).collect::<Vec<_>>());
    found.into_iter().flatten().flatten().collect()
}
