//! An ADD puts right what others broke on the node since the last one.

use std::fs;

use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::topology::OUTSIDE;
use serde_json::json;

use crate::fixture::{fast_nodes, one_node, two_nodes};

fn run(node: &Node, arguments: &[&str]) {
    exec::stdout(node.netns().command(arguments[0]).args(&arguments[1..])).expect("command");
}

#[test]
fn masquerade_comes_back_after_a_flush_of_the_ruleset() {
    let (_topology, node) = one_node();
    let first = node.add_pod("first");
    run(&node, &["nft", "flush", "ruleset"]);
    assert_eq!(first.ping(OUTSIDE, 1).received(), 0);
    let _second = node.add_pod("second");
    first.ping(OUTSIDE, 1).assert_received();
}

#[test]
fn routes_to_peers_come_back_after_the_uplink_went_down() {
    let (_topology, [node, _other]) = two_nodes();
    let _first = node.add_pod("first");
    let before = Snapshot::of(&node);
    run(&node, &["ip", "link", "set", "eth0", "down"]);
    run(&node, &["ip", "link", "set", "eth0", "up"]);
    let lost = before.diff(&Snapshot::of(&node));
    assert!(lost.contains("- route 10.244.2.0/24"), "{lost}");
    node.add_pod("second").delete().expect("DEL");
    let missing = before.diff(&Snapshot::of(&node));
    assert!(!missing.contains("10.244.2.0/24"), "{missing}");
}

#[test]
fn forwarding_comes_back_after_it_was_turned_off() {
    let (_topology, node) = one_node();
    let _first = node.add_pod("first");
    node.netns()
        .write_sysctl("net/ipv4/ip_forward", "0")
        .expect("sysctl");
    let second = node.add_pod("second");
    second.ping(OUTSIDE, 1).assert_received();
}

#[test]
fn the_datapath_is_loaded_again_after_its_pins_were_removed() {
    let (_topology, [node, other]) = fast_nodes(Families::V4);
    let (_first, far) = (node.add_pod("first"), other.add_pod("far"));
    // The file system has no files other than pins, and directories of them.
    fs::remove_dir_all(node.bpffs_dir()).expect("remove pins");
    let (second, third) = (node.add_pod("second"), node.add_pod("third"));
    second.ping(far.ip(), 3).assert_received();
    second.ping(third.ip(), 3).assert_received();
    let counters = node.counters().expect("counters");
    for counter in ["from_pod/to_pod", "from_pod/to_peer", "from_uplink/to_pod"] {
        assert!(counters[counter] >= 2, "{counter}: {counters:?}");
    }
}

#[test]
fn a_problem_that_stays_is_said_once_and_a_peer_that_appears_is_used() {
    let (_topology, node) = one_node();
    let peers = json!([{ "cidr": "10.244.9.0/24", "node": "198.18.0.9" }]);
    node.config()
        .with(|plugin| plugin["datapath"]["peers"] = peers)
        .install()
        .expect("install");
    // The default route leads there, but through a router.
    let first = node.add_pod("first");
    assert!(
        first.add_stderr().contains("198.18.0.9"),
        "{}",
        first.add_stderr()
    );
    let second = node.add_pod("second");
    assert_eq!(second.add_stderr(), "");

    run(
        &node,
        &["ip", "address", "add", "198.18.0.1/24", "dev", "eth0"],
    );
    let third = node.add_pod("third");
    assert_eq!(third.add_stderr(), "");
    let routes = exec::stdout(node.netns().command("ip").args(["route"])).expect("routes");
    assert!(routes.contains("10.244.9.0/24 via 198.18.0.9"), "{routes}");
}
