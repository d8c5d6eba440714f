//! Which path the packets of a runtime's pods take.

use std::sync::Arc;

use beeline_tests::cli;
use beeline_tests::datapath::{FROM_UPLINK, TO_PEER, TO_POD, growth};
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::slowpath::Proof;
use serde_json::json;

use crate::containerd::Containerd;
use crate::fixture::{nodes, one_node};
use crate::pod::{self, Pod};

/// Pings from one pod to another; asserts that each of these nodes carried it by the fast path, and counted it so.
#[track_caller]
fn assert_fast(from: &Pod, to: &Pod, nodes: &[&Arc<Node>], counters: &[&str]) {
    const PINGS: usize = 10;
    from.ping(to.ip(), 2);
    let start: Vec<_> = nodes
        .iter()
        .map(|node| {
            let proof = Proof::begin(node).expect("proof");
            (node.counters().expect("counters"), proof)
        })
        .collect();
    from.ping(to.ip(), PINGS);
    for (node, (before, proof)) in nodes.iter().zip(start) {
        let took = proof.read().expect("proof");
        assert_eq!(took.pod_to_pod(), 0, "{}: {took}", node.name());
        let grown = growth(&before, &node.counters().expect("counters"));
        for counter in counters {
            let counted = grown.get(*counter).copied().unwrap_or(0);
            assert!(
                counted >= PINGS as u64,
                "{}: {counter}: {grown:?}",
                node.name()
            );
        }
        proof.end().expect("proof");
    }
}

#[test]
fn pods_on_one_node_reach_each_other_by_the_fast_path() {
    let (_topology, node) = one_node();
    let containerd = Containerd::start(&node);
    let (client, server) = (
        Pod::run(&containerd, "client"),
        Pod::run(&containerd, "server"),
    );
    assert_fast(&client, &server, &[&node], &[TO_POD]);
    client.fetch(server.ip(), 80);
}

#[test]
fn pods_on_two_nodes_reach_each_other_by_the_fast_path() {
    let (_topology, [a, b]) = nodes(Families::V4);
    let (on_a, on_b) = (Containerd::start(&a), Containerd::start(&b));
    let (client, server) = (Pod::run(&on_a, "client"), Pod::run(&on_b, "server"));
    assert_fast(&client, &server, &[&a, &b], &[TO_PEER, FROM_UPLINK]);
    client.fetch(server.ip(), 80);
    server.fetch(client.ip(), 80);
}

#[test]
fn a_pod_that_is_shaped_by_its_annotations_takes_the_slow_path() {
    let (_topology, node) = one_node();
    let bandwidth = json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } });
    node.config().chain(bandwidth).install().expect("install");
    let mut containerd = Containerd::start(&node);
    let mut config = pod::config(&containerd, "shaped");
    let annotation = ("kubernetes.io/ingress-bandwidth", "10M");
    let annotations = [annotation].map(|(key, value)| (key.to_owned(), value.to_owned()));
    config.annotations = annotations.into();
    let (free, shaped) = (
        Pod::run(&containerd, "free"),
        Pod::with(&containerd, &config),
    );
    // The shaper comes after ADD, and beeline's watch hears of it.
    let is_slow = |_: &mut Containerd| {
        let status = cli::status_text(&node)?;
        let line = status.lines().find(|line| line.contains("shaped"));
        Ok(line.is_some_and(|line| line.contains("slow (qdisc tbf)")))
    };
    containerd.wait_for("the slow path", is_slow).expect("slow");
    free.ping(shaped.ip(), 2);
    shaped.fetch(free.ip(), 80);
}
