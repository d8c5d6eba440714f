//! Nodes in cluster mode: what an agent does to a node, without the cluster that it would know its peers from.

use anyhow::{Context, Result};
use beeline::cni;
use beeline::net::with_netlink;
use beeline::node::cluster::{self, Cluster, ClusterPeer};
use beeline::node::{Lock, Plan, Record, Store};
use serde_json::Value;

use crate::config::Config;
use crate::node::Node;

/// The configuration that an agent would write: the node's default, without peers.
pub fn config(node: &Node) -> Config<'_> {
    node.config().with(|plugin| {
        let datapath = plugin["datapath"].as_object_mut();
        datapath.map(|datapath| datapath.remove("peers"));
    })
}

/// The cluster as a node would know it; its peers are named after their addresses.
pub fn seen_by(node: &Node, backend: &str) -> Cluster {
    let peers = node.peers().iter().map(|peer| ClusterPeer {
        name: format!("node-{}", peer.node),
        cidr: peer.cidr,
        node: peer.node,
    });
    Cluster {
        backend: backend.to_owned(),
        node: format!("node-{}", node.address()),
        peers: peers.collect(),
        problems: Vec::new(),
    }
}

/// Sets a node up for a cluster as an agent does: the node first, then its configuration.
pub fn join(node: &Node, config: &Config<'_>, cluster: &Cluster) -> Result<Record> {
    let plan = plan(&config.stdin())?;
    let store = Store::new(&plan);
    let reconcile =
        || with_netlink(async |netlink| cluster::reconcile(netlink, &plan, &store, cluster).await);
    let record = node.netns().within(reconcile);
    let record = record.with_context(|| format!("{}: reconcile", node.name()))?;
    config.install()?;
    Ok(record)
}

/// Stands for an agent that runs on the node, as long as it is held.
pub fn agent(node: &Node) -> Result<Lock> {
    let store = Store::new(&plan(&config(node).stdin())?);
    store.lock_agent()?.context("an agent runs")
}

fn plan(plugin: &Value) -> Result<Plan> {
    cni::plan_of(plugin).context("the node's configuration")
}
