//! What all tests start from.

use std::sync::Arc;

use beeline_tests::node::Node;
use beeline_tests::topology::{Plugin, Topology, TopologySpec, unique_prefix};
use serde_json::Value;

/// A topology of this test's own, each node configured as by default.
#[track_caller]
pub(crate) fn topology(nodes: usize) -> Topology {
    let plugin = Plugin::from_env().unwrap_or_else(|error| panic!("{error:#}"));
    let spec = TopologySpec {
        prefix: unique_prefix(),
        nodes,
        plugin,
        mode: "auto".to_owned(),
    };
    Topology::new(&spec).unwrap_or_else(|error| panic!("topology: {error:#}"))
}

/// A single node; keep the topology as long as it is used.
#[track_caller]
pub(crate) fn one_node() -> (Topology, Arc<Node>) {
    let topology = topology(1);
    let [node] = topology.take();
    (topology, node)
}

/// Two nodes; keep the topology as long as they are used.
#[track_caller]
pub(crate) fn two_nodes() -> (Topology, [Arc<Node>; 2]) {
    let topology = topology(2);
    let nodes = topology.take();
    (topology, nodes)
}

/// A single node whose pods take the fast path.
#[track_caller]
pub(crate) fn fast_node() -> (Topology, Arc<Node>) {
    one_node()
}

/// Two nodes whose pods take the fast path.
#[track_caller]
pub(crate) fn fast_pair() -> (Topology, [Arc<Node>; 2]) {
    two_nodes()
}

/// Changes the plugin's configuration on a node, from the default one.
#[track_caller]
pub(crate) fn configure(node: &Node, change: impl FnOnce(&mut Value)) {
    let config = node.config().with(change);
    config.install().expect("install a configuration");
}
