//! `portIsolation`, with the fast path and without.

use std::sync::Arc;
use std::time::Duration;

use beeline_common::testing::{Transport, packet};
use beeline_tests::datapath::{TO_POD, growth};
use beeline_tests::icmp::Echo;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::wire::Wire;
use serde_json::json;

use crate::fixture::{configure, fast_node, fast_pair};
use crate::spoofing::{bridge_mac, mac};

fn add(node: &Arc<Node>, mode: &str, name: &str, isolated: bool) -> Pod {
    configure(node, |plugin| {
        plugin["datapath"]["mode"] = json!(mode);
        plugin["portIsolation"] = json!(isolated);
    });
    node.add_pod(name)
}

fn unanswered(from: &Pod, to: &Pod) -> bool {
    let echo = Echo {
        timeout: Duration::from_millis(200),
        ..Echo::to(to.ip())
    };
    from.echo(&echo).received() == 0
}

/// Whether an echo request that names the gateway's MAC, as if the pods had a /32 each, reaches the other pod.
fn reaches_by_the_gateway(from: &Pod, to: &Pod) -> bool {
    let macs = (mac(from.mac()), bridge_mac(from.node()));
    let request = packet(from.ip(), to.ip()).macs(macs.0, macs.1);
    let request = request.transport(Transport::Icmp { kind: 8 }).frame().bytes;
    let there = Wire::open(to.namespace(), "eth0").expect("wire");
    let wire = Wire::open(from.namespace(), "eth0").expect("wire");
    wire.send(&request).expect("send");
    let arrived = |frame: &[u8]| frame.len() > 34 && frame[26..34] == request[26..34];
    let arrived = there
        .find(Duration::from_millis(500), arrived)
        .expect("wire");
    arrived.is_some()
}

#[test]
fn isolated_pods_do_not_reach_each_other_and_what_the_gateway_forwards_is_as_on_the_plain_bridge() {
    let by_the_gateway = ["bridge", "auto"].map(|mode| {
        let (_topology, node) = fast_node();
        let (one, two) = (add(&node, mode, "one", true), add(&node, mode, "two", true));
        assert!(
            unanswered(&one, &two) && unanswered(&two, &one),
            "mode {mode}"
        );
        let reached = reaches_by_the_gateway(&one, &two);
        if mode == "auto" {
            assert_eq!(node.counters().expect("counters")[TO_POD], 0);
        }
        reached
    });
    let [bridge, auto] = by_the_gateway;
    assert_eq!(
        bridge, auto,
        "the plain bridge says whether the gateway forwards"
    );
}

#[test]
fn an_isolated_pod_and_others_reach_each_other_by_the_fast_path() {
    let (_topology, [a, b]) = fast_pair();
    let isolated = add(&a, "auto", "isolated", true);
    let (plain, far) = (
        add(&a, "auto", "plain", false),
        add(&b, "auto", "far", true),
    );
    isolated.ping(plain.ip(), 1).assert_received();
    let before = a.counters().expect("counters");
    isolated.ping(plain.ip(), 3).assert_received();
    plain.ping(isolated.ip(), 3).assert_received();
    // Isolation is between the ports of one bridge.
    isolated.ping(far.ip(), 3).assert_received();
    let grown = growth(&before, &a.counters().expect("counters"));
    assert_eq!(grown[TO_POD], 12, "{grown:?}");
    assert!(
        grown["from_pod/to_peer"] >= 3 && grown["from_uplink/to_pod"] >= 3,
        "{grown:?}"
    );
}
