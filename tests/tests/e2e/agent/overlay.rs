//! Nodes behind a router, whose pods reach each other by the overlay.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use beeline::datapath::Datapath;
use beeline_tests::config::NETWORK;
use beeline_tests::datapath::TO_OVERLAY;
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::plan::Underlay;
use beeline_tests::topology::TopologySpec;
use beeline_tests::traffic::{tcp_echo, tcp_transfer};
use beeline_tests::wait::{seconds, wait_for};
use serde_json::{Value, json};

use super::lab::{Lab, assert_fast, peers, pod_cidrs, routes, wait_until_known, write_template};
use super::process::PORT;
use crate::fixture::spec;

const OVERLAY: [&str; 2] = [TO_OVERLAY, "from_overlay/to_pod"];

/// A lab of three such nodes.
#[track_caller]
fn routed() -> (Lab, [Arc<Node>; 3]) {
    let topology = TopologySpec {
        underlay: Underlay::Router,
        ..spec(3)
    };
    let (lab, nodes) = Lab::of(1, &topology);
    for node in &nodes {
        write_template(node, |list| {
            list["plugins"][0]["datapath"]["overlay"] = json!({"type": "vxlan"});
        });
    }
    (lab, nodes)
}

/// The nodes that the fast path leads to.
fn nodes_of(node: &Node) -> BTreeSet<String> {
    let datapath = Datapath::open(&node.bpffs_dir(), NETWORK).expect("a datapath");
    let peers = datapath.peers().expect("PEERS").into_iter();
    peers
        .map(|(_, peer)| IpAddr::from(peer.node).to_canonical().to_string())
        .collect()
}

/// The addresses that the overlay's neighbour table knows.
fn neighbours(node: &Node) -> Result<usize> {
    let mut show = node.netns().command("ip");
    let links: Vec<Value> = exec::json(show.args(["-json", "link", "show", "type", "vxlan"]))?;
    let device = links[0]["ifname"].as_str().unwrap_or_default();
    let mut show = node.netns().command("ip");
    let all: Vec<Value> = exec::json(show.args(["-json", "neigh", "show", "dev", device]))?;
    Ok(all.len())
}

/// The pod CIDRs that a node's pods are not masqueraded towards.
fn exempt(node: &Node) -> Result<Vec<String>> {
    let table = format!("beeline-{NETWORK}");
    let mut list = node.netns().command("nft");
    let set: Value = exec::json(list.args(["-j", "list", "set", "inet", &table, "cluster4"]))?;
    let elements = set["nftables"][1]["set"]["elem"].as_array();
    let prefix = |element: &Value| element["prefix"]["addr"].as_str().unwrap_or("?").to_owned();
    let mut exempt: Vec<_> = elements.into_iter().flatten().map(prefix).collect();
    exempt.sort();
    Ok(exempt)
}

#[test]
fn pods_behind_routers_reach_each_other_and_a_nodes_new_address_is_followed() {
    let (lab, [a, b, c]) = routed();
    let [_first, agent, _third] = lab.agents([&a, &b, &c]);
    let pods = [&a, &b, &c].map(|node| node.add_pod("pod"));
    let [on_a, on_b, on_c] = &pods;
    for (from, to) in [(on_a, on_b), (on_b, on_c), (on_c, on_a)] {
        assert_fast(from, to, OVERLAY);
        let (client, server) = (from.namespace(), to.namespace());
        tcp_transfer(client, server, to.ip(), 1 << 20).expect("transfer");
    }
    let other = "192.168.2.12";
    assert_eq!(
        nodes_of(&a),
        BTreeSet::from(["192.168.2.11", "192.168.3.11"].map(str::to_owned))
    );
    agent.stop();
    let commands = [
        "address del 192.168.2.11/24 dev eth0",
        &format!("address add {other}/24 dev eth0"),
        "route replace default via 192.168.2.254",
    ];
    exec::ip_batch(b.netns(), &commands.map(str::to_owned)).expect("another address");
    let agent = lab.agent_with(&b, PORT, &["--node-address", other]);
    agent.wait_until_ready();
    for node in [&a, &c] {
        wait_for("the new address", seconds(60), || {
            let nodes = nodes_of(node);
            let followed = nodes.contains(other) && nodes.len() == 2 && neighbours(node)? == 2;
            ensure!(followed, "{}: {nodes:?}", node.name());
            Ok(())
        })
        .expect("followed");
    }
    for (from, to) in [(on_a, on_b), (on_b, on_c), (on_c, on_a)] {
        assert_fast(from, to, OVERLAY);
    }
    // The slow path follows, too: nodes themselves have no other.
    tcp_echo(a.netns(), on_b.namespace(), on_b.ip(), b"from the node").expect("TCP");
    agent.assert_without_drift();
}

#[test]
fn a_node_leaves_and_the_others_forget_all_of_it() {
    let (lab, [a, b, c]) = routed();
    let [first, _second, agent] = lab.agents([&a, &b, &c]);
    let (on_a, on_b) = (a.add_pod("pod"), b.add_pod("pod"));
    c.add_pod("pod").delete().expect("DEL");
    let left = pod_cidrs(&c).expect("subnets");
    agent.stop();
    wait_until_known(&[&a, &b, &c]);
    lab.release(&c);
    wait_until_known(&[&a, &b]);
    for (node, other) in [(&a, &b), (&b, &a)] {
        assert_eq!(
            peers(node).expect("PEERS"),
            pod_cidrs(other).expect("subnets")
        );
        assert!(!routes(node).expect("routes").contains(&left[0]));
        wait_for("the node's neighbours and exemptions", seconds(30), || {
            let (neighbours, exempt) = (neighbours(node)?, exempt(node)?);
            let gone = !exempt.contains(&left[0].ip().to_string());
            ensure!(
                neighbours == 1 && exempt.len() == 2 && gone,
                "{neighbours}, {exempt:?}"
            );
            Ok(())
        })
        .expect("forgotten");
    }
    assert_fast(&on_a, &on_b, OVERLAY);
    first.assert_without_drift();
    // What it had is free, and it can come again.
    let again = lab.agent(&c);
    again.wait_until_ready();
    wait_until_known(&[&a, &b, &c]);
}
