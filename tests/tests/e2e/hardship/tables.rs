//! Tables that are full. Those of pods are in `repair.rs`, those of flows in `tests/bpf/eviction.rs`.

use beeline_tests::datapath::{TO_PEER, TO_POD, growth};
use beeline_tests::topology::OUTSIDE;
use beeline_tests::{cli, conntrack};
use serde_json::json;

use super::*;
use crate::fixture::{fast_node, fast_pair};
use crate::refusals::sandbox;

#[test]
fn pods_reach_each_other_by_the_fast_path_and_come_and_go_while_no_connection_can_be_tracked() {
    let (_topology, [node, other]) = fast_pair();
    let [one, two] = ["one", "two"].map(|name| node.add_pod(name));
    let far = other.add_pod("far");
    one.ping(OUTSIDE, 1).assert_received();
    conntrack::fill(node.netns()).expect("fill");

    assert_eq!(one.ping(OUTSIDE, 1).received(), 0, "as on the plain bridge");
    let before = node.counters().expect("counters");
    one.ping(two.ip(), 3).assert_received();
    one.ping(far.ip(), 3).assert_received();
    let grown = growth(&before, &node.counters().expect("counters"));
    assert!(grown[TO_POD] >= 6 && grown[TO_PEER] >= 3, "{grown:?}");
    let new = node.add_pod("new");
    assert_eq!(cli::path(&node, &new).expect("status").0, "fast");
    new.ping(far.ip(), 1).assert_received();
    new.delete().expect("DEL");

    conntrack::flush(node.netns()).expect("flush");
    one.ping(OUTSIDE, 1).assert_received();
}

#[test]
fn more_lengths_of_peers_cidrs_than_are_looked_up_are_the_plain_bridge_or_refused() {
    let (_topology, node) = fast_node();
    let peers = |lengths: std::ops::Range<u8>| {
        let peer =
            |length| json!({ "cidr": format!("10.{length}.0.0/{length}"), "node": "192.168.1.99" });
        lengths.map(peer).collect::<Vec<_>>()
    };
    let config = |mode: &str, count: u8| {
        let peers = peers(16..16 + count);
        let config = node.config().mode(mode);
        config.with(|plugin| plugin["datapath"]["peers"] = json!(peers))
    };
    let why = "peers: 9 different prefix lengths, at most 8 are possible";
    let plugin = Hardship::by(&node, &[]);
    let message = plugin.refuses(&sandbox(&node), &config("ebpf", 9).stdin(), &[999]);
    assert!(message.contains(why), "{message}");

    config("auto", 9).install().expect("install");
    let pod = node.add_pod("pod");
    assert!(pod.add_stderr().contains(why), "{}", pod.add_stderr());
    let text = cli::status_text(&node).expect("status");
    assert!(text.contains(why), "{text}");
    config("auto", 8).install().expect("install");
    let next = node.add_pod("next");
    assert_eq!(cli::path(&node, &next).expect("status").0, "fast");
}
