//! Which path packets take.

use std::net::IpAddr;
use std::sync::Arc;

use beeline_tests::datapath::{FROM_UPLINK, TO_PEER, TO_POD, growth};
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::slowpath::Proof;
use beeline_tests::snapshot::Snapshot;

use crate::fixture::{one_node, two_nodes};

/// Runs traffic after a first exchange; returns which counters of the node grew.
#[track_caller]
pub(crate) fn assert_no_slow_path(node: &Arc<Node>, client: &Pod, server: IpAddr) -> Vec<String> {
    client.ping(server, 2).assert_received();
    let before = node.counters().expect("counters");
    let proof = Proof::begin(node).expect("proof");
    let start = proof.read().expect("proof");
    client.ping(server, 10).assert_received();
    let took = proof.read().expect("proof") - start;
    assert!(
        took.is_untouched(),
        "{}: packets took the slow path: {took}",
        node.name()
    );
    let grown = growth(&before, &node.counters().expect("counters"));
    grown
        .into_iter()
        .filter(|(_, packets)| *packets >= 10)
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn packets_between_pods_of_one_node_take_the_fast_path() {
    let (_topology, node) = one_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let grown = assert_no_slow_path(&node, &client, server.ip());
    assert!(grown.contains(&TO_POD.to_owned()), "{grown:?}");
}

#[test]
fn packets_between_nodes_take_the_fast_path_on_both() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    for node in [&a, &b] {
        let grown = assert_no_slow_path(node, &client, server.ip());
        for counter in [TO_PEER, FROM_UPLINK] {
            assert!(
                grown.contains(&counter.to_owned()),
                "{}: {counter} is not in {grown:?}",
                node.name()
            );
        }
    }
}

#[test]
fn the_proof_sees_every_packet_of_a_plain_bridge() {
    let (_topology, [a, b]) = two_nodes();
    if !a.plugin().is_reference() {
        a.config().mode("bridge").install().expect("install");
        b.config().mode("bridge").install().expect("install");
    }
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    let proof = Proof::begin(&a).expect("proof");
    client.ping(near.ip(), 5).assert_received();
    client.ping(far.ip(), 5).assert_received();
    let took = proof.read().expect("proof");
    assert_eq!((took.bridged, took.routed), (10, 10), "{took}");
    proof.end().expect("proof");
}

#[test]
fn mode_bridge_pins_nothing_and_works() {
    let (_topology, [a, b]) = two_nodes();
    for node in [&a, &b] {
        node.config().mode("bridge").install().expect("install");
    }
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    client.ping(near.ip(), 2).assert_received();
    client.ping(far.ip(), 2).assert_received();
    assert_eq!(Snapshot::of(&a).lines("pin"), Vec::<&str>::new());
}

#[test]
fn mode_auto_without_a_usable_bpffs_falls_back_and_says_why() {
    let (_topology, [a, b]) = two_nodes();
    for node in [&a, &b] {
        let file = node.directory().join("a-file");
        std::fs::write(&file, "").expect("write");
        let pins = file.join("pins").display().to_string();
        node.config()
            .with(|plugin| plugin["datapath"]["bpffsDir"] = pins.into())
            .install()
            .expect("install");
    }
    let client = a.add_pod("client");
    assert!(
        client.add_stderr().contains("a-file"),
        "stderr says why: {:?}",
        client.add_stderr()
    );
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    client.ping(near.ip(), 2).assert_received();
    client.ping(far.ip(), 2).assert_received();
}

#[test]
fn mode_auto_on_a_file_system_that_is_no_bpffs_falls_back() {
    let (_topology, node) = one_node();
    let pins = node.directory().join("pins").display().to_string();
    node.config()
        .with(|plugin| plugin["datapath"]["bpffsDir"] = pins.into())
        .install()
        .expect("install");
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    assert!(!client.add_stderr().is_empty(), "stderr says why");
    client.ping(server.ip(), 2).assert_received();
}

#[test]
fn mode_ebpf_without_a_usable_bpffs_is_refused_without_a_trace() {
    let (_topology, node) = one_node();
    let pins = node.directory().join("pins").display().to_string();
    let config = node
        .config()
        .mode("ebpf")
        .with(|plugin| plugin["datapath"]["bpffsDir"] = pins.into());
    config.install().expect("install");
    let before = Snapshot::of(&node);
    node.try_add_pod("pod")
        .expect_err("there is no eBPF to be had");
    before.assert_unchanged(&node);
}
