//! What others change on a node is put right.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use beeline::datapath::Datapath;
use beeline_common::Hook;
use beeline_tests::config::NETWORK;
use beeline_tests::datapath::{FROM_UPLINK, TO_PEER};
use beeline_tests::exec;
use beeline_tests::node::Node;

use super::lab::{Lab, assert_fast, assert_in_place, peers, pod_cidrs, routes};
use super::process::Agent;

fn datapath(node: &Node) -> Result<Datapath> {
    Datapath::open(&node.bpffs_dir(), NETWORK).context("no datapath")
}

fn run(node: &Node, program: &str, arguments: &str) -> Result<String> {
    exec::stdout(node.netns().command(program).args(arguments.split(' ')))
}

/// Does damage, and waits until it is counted as this kind and is gone.
#[track_caller]
fn assert_mended(
    agent: &Agent,
    kind: &str,
    damage: impl FnOnce() -> Result<()>,
    is_whole: impl Fn() -> Result<bool>,
) {
    assert!(is_whole().expect("a look"), "{kind}: not whole before");
    let before = agent.repairs(kind).expect("metrics");
    damage().unwrap_or_else(|error| panic!("{kind}: {error:#}"));
    agent.wait(&format!("repair of a {kind}"), || {
        let counted = agent.repairs(kind)?;
        ensure!(counted > before, "{counted} counted as before");
        ensure!(is_whole()?, "counted, but not whole");
        Ok(())
    });
    // A round counts what it has found before it mends it, and would mend the next damage without counting it.
    agent.wait_for_rounds(1);
}

fn mend_peers(agent: &Agent, node: &Node, peer: ipnetwork::IpNetwork) {
    let has_route = || Ok(routes(node)?.contains(&peer));
    let delete = || run(node, "ip", &format!("route del {peer} proto 190")).map(drop);
    assert_mended(agent, "route", delete, has_route);
    let stray = "10.99.7.0/24";
    let add = || {
        run(
            node,
            "ip",
            &format!("route add {stray} via 192.168.1.99 proto 190"),
        )
    };
    let is_clean = || Ok(!routes(node)?.contains(&stray.parse()?));
    assert_mended(agent, "route", || add().map(drop), is_clean);
    let has_entry = || Ok(peers(node)?.contains(&peer));
    let delete = || datapath(node)?.change_peers(&[], &[peer]);
    assert_mended(agent, "map", delete, has_entry);
}

fn mend_programs(agent: &Agent, node: &Node) {
    let pods = datapath(node).expect("open").pods().expect("PODS");
    let ifindex = pods[0].1.ifindex;
    for (kind, hook, ifindex) in [
        ("pod", Hook::FromPod, ifindex),
        ("program", Hook::FromUplink, uplink(node).expect("eth0")),
    ] {
        let detach = || {
            node.netns()
                .within(|| datapath(node)?.detach(hook, ifindex))
        };
        let is_attached = || Ok(datapath(node)?.is_attached(hook, ifindex));
        assert_mended(agent, kind, detach, is_attached);
    }
}

fn uplink(node: &Node) -> Result<u32> {
    let index = node
        .netns()
        .within(|| nix::net::if_::if_nametoindex("eth0"));
    Ok(index?)
}

fn mend_masquerade(agent: &Agent, node: &Arc<Node>) {
    let table = format!("inet beeline-{NETWORK}");
    let delete = || run(node, "nft", &format!("delete table {table}")).map(drop);
    let is_there = || Ok(run(node, "nft", "list tables")?.contains(&table));
    assert_mended(agent, "node", delete, is_there);
}

#[test]
fn what_others_change_on_a_node_is_put_right_and_counted_by_kind() {
    let (lab, [a, b]) = Lab::new(1);
    let [agent, _other] = lab.agents([&a, &b]);
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    let peer = pod_cidrs(&b).expect("subnets")[0];
    mend_peers(&agent, &a, peer);
    mend_programs(&agent, &a);
    mend_masquerade(&agent, &a);
    assert_in_place(&a);
    for (from, to) in [(&near, &far), (&far, &near)] {
        assert_fast(from, to, [TO_PEER, FROM_UPLINK]);
    }
    agent.wait_until_ready();
}
