//! Nodes that know nothing of each other, and an etcd that all of them reach.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use beeline::datapath::Datapath;
use beeline_tests::cli;
use beeline_tests::config::{CONFLIST, NETWORK};
use beeline_tests::datapath::{attached_as_pinned, growth};
use beeline_tests::etcd::Cluster;
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::topology::{Topology, TopologySpec};
use beeline_tests::wait::{seconds, wait_for};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::process::{Agent, PORT, release};
use crate::fixture::{build, spec};

/// Echo requests from one pod to another.
const PINGS: usize = 10;

/// Nodes and an etcd; keep it as long as they are used.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) etcd: Cluster,
    topology: Topology,
}

/// What stands for `/opt/cni/bin` on a node.
pub(super) fn bin_dir(node: &Node) -> PathBuf {
    node.directory().join("opt-cni-bin")
}

/// What is the same on all nodes, but for the paths.
pub(super) fn template(node: &Node) -> PathBuf {
    node.directory().join("template.conflist")
}

/// The node's configuration, which the agent writes.
pub(super) fn conflist(node: &Node) -> PathBuf {
    node.conf_dir().join(CONFLIST)
}

/// Writes a node's template, changed from the usual one.
#[track_caller]
pub(super) fn write_template(node: &Node, change: impl FnOnce(&mut Value)) {
    let config = node.config().mode("auto").with(|plugin| {
        plugin["ipam"] = json!({"type": "host-local", "dataDir": node.data_dir()});
        let datapath = plugin["datapath"].as_object_mut().expect("an object");
        // The agent knows the peers, and finds out which links lead to them.
        datapath.remove("peers");
        datapath.remove("uplinks");
    });
    let mut list = config.conflist();
    change(&mut list);
    fs::write(template(node), list.to_string()).expect("write");
}

impl Lab {
    /// Neighbours with IPv4 only, and an etcd of so many members.
    #[track_caller]
    pub(super) fn new<const N: usize>(members: u8) -> (Self, [Arc<Node>; N]) {
        Self::of(members, &spec(N))
    }

    /// The nodes of a topology, and an etcd of so many members.
    #[track_caller]
    pub(super) fn of<const N: usize>(
        members: u8,
        topology: &TopologySpec,
    ) -> (Self, [Arc<Node>; N]) {
        let topology = build(topology);
        for node in topology.nodes() {
            fs::remove_file(conflist(node)).expect("remove");
            fs::create_dir_all(bin_dir(node)).expect("create");
            let plugin = bin_dir(node).join("beeline");
            fs::copy(node.plugin().path(), plugin).expect("copy");
            write_template(node, |_| {});
        }
        let etcd = Cluster::start(members);
        etcd.join(&topology).expect("join");
        let nodes = topology.take();
        (Self { etcd, topology }, nodes)
    }

    /// The options that all agents have.
    fn options(&self) -> Vec<String> {
        let families = self.topology.nodes()[0].families();
        let cidrs = ["10.244.0.0/16", "fd00:244::/48"];
        let cidrs: Vec<_> = families.list().iter().map(|f| cidrs[*f as usize]).collect();
        let endpoints = self.etcd.endpoints();
        let options = [
            "--endpoints",
            &endpoints,
            "--cluster-cidr",
            &cidrs.join(","),
        ];
        let options = options.into_iter().chain(["--resync", "1"]);
        options.map(str::to_owned).collect()
    }

    /// Starts an agent on a node.
    #[track_caller]
    pub(super) fn agent(&self, node: &Arc<Node>) -> Agent {
        self.agent_with(node, PORT, &[])
    }

    /// Starts an agent on a node that listens on this port, with more options.
    #[track_caller]
    pub(super) fn agent_with(&self, node: &Arc<Node>, port: u16, more: &[&str]) -> Agent {
        let options = self.options();
        let options = options
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied());
        Agent::start(node, port, &options.collect::<Vec<_>>())
    }

    /// Starts agents and waits until they are ready and know each other.
    #[track_caller]
    pub(super) fn agents<const N: usize>(&self, nodes: [&Arc<Node>; N]) -> [Agent; N] {
        let agents = nodes.map(|node| self.agent(node));
        agents.iter().for_each(Agent::wait_until_ready);
        wait_until_known(&nodes);
        agents
    }

    /// Has a node whose agent has ended leave the cluster.
    #[track_caller]
    pub(super) fn release(&self, node: &Node) {
        let options = self.options();
        release(
            node,
            &options.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
}

/// The pod CIDRs that a node has leased.
pub(super) fn pod_cidrs(node: &Node) -> Result<Vec<IpNetwork>> {
    let text = fs::read_to_string(conflist(node)).context("no conflist")?;
    let list: Value = serde_json::from_str(&text)?;
    let ranges = list["plugins"][0]["ipam"]["ranges"].as_array();
    let subnet = |range: &Value| -> Result<IpNetwork> {
        Ok(range[0]["subnet"].as_str().context("no subnet")?.parse()?)
    };
    ranges.context("no ranges")?.iter().map(subnet).collect()
}

/// The pod CIDRs of others that a node's fast path leads to.
pub(super) fn peers(node: &Node) -> Result<Vec<IpNetwork>> {
    let datapath = Datapath::open(&node.bpffs_dir(), NETWORK).context("no datapath")?;
    let peers = datapath.peers()?.into_iter();
    let mut cidrs: Vec<IpNetwork> = peers.map(|(cidr, _)| cidr).collect();
    cidrs.sort();
    Ok(cidrs)
}

/// The destinations of beeline's routes to peers on a node.
pub(super) fn routes(node: &Node) -> Result<Vec<IpNetwork>> {
    let mut destinations = Vec::new();
    for family in node.families().list() {
        let family = ["-4", "-6"][*family as usize];
        let mut show = node.netns().command("ip");
        let show = exec::stdout(show.args([family, "route", "show", "proto", "190"]))?;
        // In its JSON, the destination of a tunnel is another "dst" in the same object.
        let first = show.lines().filter_map(|line| line.split(' ').next());
        for destination in first {
            destinations.push(destination.parse()?);
        }
    }
    destinations.sort();
    Ok(destinations)
}

/// Waits until each of these nodes leads to exactly the pod CIDRs of the others.
#[track_caller]
pub(super) fn wait_until_known(nodes: &[&Arc<Node>]) {
    let known = wait_for("nodes know each other", seconds(60), || {
        for node in nodes {
            let mut wanted = Vec::new();
            for other in nodes.iter().filter(|other| other.name() != node.name()) {
                wanted.extend(pod_cidrs(other)?);
            }
            wanted.sort();
            for (what, held) in [("PEERS", peers(node)?), ("routes", routes(node)?)] {
                ensure!(
                    held == wanted,
                    "{}: {what}: {held:?}, not {wanted:?}",
                    node.name()
                );
            }
        }
        Ok(())
    });
    known.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Asserts that all pods of a node are on the fast path, by the programs that were loaded last.
#[track_caller]
pub(super) fn assert_in_place(node: &Node) {
    let status = cli::status(node).expect("status");
    let pods = status["pods"].as_array().expect("pods");
    assert!(pods.iter().all(|pod| pod["path"] == "fast"), "{status}");
    let attached = attached_as_pinned(node).expect("programs");
    assert!(
        !attached.is_empty() && attached.iter().all(|pinned| *pinned),
        "{attached:?}"
    );
}

/// Has one pod ask another on another node, by the programs of both alone: by these counters of what pods send, and of
/// what comes for them.
#[track_caller]
pub(super) fn assert_fast(from: &Pod, to: &Pod, [sent, arrived]: [&str; 2]) {
    for (target, source) in to.ips().iter().zip(from.ips()) {
        assert_eq!(target.is_ipv4(), source.is_ipv4());
        let nodes = [from.node(), to.node()];
        let before = nodes.map(|node| node.counters().expect("counters"));
        from.ping(*target, PINGS).assert_received();
        for (node, before) in nodes.into_iter().zip(&before) {
            let grown = growth(before, &node.counters().expect("counters"));
            for counter in [sent, arrived] {
                let packets = grown.get(counter).copied().unwrap_or_default();
                // What asks for neighbours of IPv6 is no pod's packet, but may be counted.
                assert!(
                    packets >= PINGS as u64,
                    "{}: {counter}: {grown:?}",
                    node.name()
                );
            }
        }
    }
}
