//! What all tests start from.
//!
//! `BEELINE_MODE` is the `datapath.mode` of the nodes, `auto` by default: what works on the plain bridge (`bridge`) must
//! work with the fast path. Tests of the fast path itself always have it.

use std::sync::Arc;

use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::topology::{Plugin, Topology, TopologySpec, unique_prefix};
use serde_json::Value;

/// A topology of this test's own, each node configured as by default.
#[track_caller]
pub(crate) fn topology(nodes: usize) -> Topology {
    build(&spec(nodes))
}

/// What [`topology`] builds, to change.
#[track_caller]
pub(crate) fn spec(nodes: usize) -> TopologySpec {
    let plugin = Plugin::from_env().unwrap_or_else(|error| panic!("{error:#}"));
    TopologySpec {
        mode: std::env::var("BEELINE_MODE").unwrap_or_else(|_| "auto".to_owned()),
        ..TopologySpec::new(unique_prefix(), nodes, plugin)
    }
}

/// Builds a topology; panics if that fails.
#[track_caller]
pub(crate) fn build(spec: &TopologySpec) -> Topology {
    Topology::new(spec).unwrap_or_else(|error| panic!("topology: {error:#}"))
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

/// As many nodes, with addresses of these families.
#[track_caller]
pub(crate) fn nodes_with<const N: usize>(families: Families) -> (Topology, [Arc<Node>; N]) {
    let topology = build(&TopologySpec {
        families,
        ..spec(N)
    });
    let nodes = topology.take();
    (topology, nodes)
}

/// The same in mode `auto` whatever `BEELINE_MODE` says: for tests of the fast path itself.
#[track_caller]
pub(crate) fn fast_nodes<const N: usize>(families: Families) -> (Topology, [Arc<Node>; N]) {
    let topology = build(&TopologySpec {
        families,
        mode: "auto".to_owned(),
        ..spec(N)
    });
    let nodes = topology.take();
    (topology, nodes)
}

/// A single node whose pods take the fast path.
#[track_caller]
pub(crate) fn fast_node() -> (Topology, Arc<Node>) {
    let (topology, [node]) = fast_nodes(Families::V4);
    (topology, node)
}

/// Two nodes whose pods take the fast path.
#[track_caller]
pub(crate) fn fast_pair() -> (Topology, [Arc<Node>; 2]) {
    fast_nodes(Families::V4)
}

/// Whether a node's pods shall be on the fast path.
pub(crate) fn is_fast(node: &Node) -> bool {
    node.mode() != "bridge" && !node.plugin().is_reference()
}

/// Changes the plugin's configuration on a node, from the default one.
#[track_caller]
pub(crate) fn configure(node: &Node, change: impl FnOnce(&mut Value)) {
    let config = node.config().with(change);
    config.install().expect("install a configuration");
}
