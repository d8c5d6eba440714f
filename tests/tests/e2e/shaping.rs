//! Pods that another plugin shapes after beeline (design rule 6).

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beeline_tests::datapath::{TO_POD, growth};
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::wait;
use beeline_tests::{exec, iperf};
use serde_json::json;

use crate::fixture::{configure, one_node, two_nodes};

/// Mbit/s that the plugin allows.
const LIMIT: f64 = 20.0;

/// Chains the reference `bandwidth` plugin, which shapes every pod made from now on.
fn shape(node: &Node) {
    let rate = (LIMIT * 1e6) as u64;
    node.config()
        .chain(json!({
            "type": "bandwidth",
            "ingressRate": rate, "ingressBurst": 1_000_000,
            "egressRate": rate, "egressBurst": 1_000_000,
        }))
        .install()
        .expect("install");
}

/// How `beeline status` prints the pod's line.
fn status_of(node: &Node, pod: &Pod) -> String {
    let mut status = node.netns().command(node.plugin().path());
    status
        .arg("status")
        .arg("--state-dir")
        .arg(node.state_dir());
    let text = exec::stdout(&mut status).expect("status");
    let line = text.lines().find(|line| line.contains(pod.name()));
    line.unwrap_or_else(|| panic!("{} is not in {text}", pod.name()))
        .to_owned()
}

/// Waits until the pod is on the slow path, as the process that sees to it runs beside the chain.
fn wait_for_slow(node: &Node, pod: &Pod) {
    let deadline = wait::deadline(Duration::from_secs(5));
    while !status_of(node, pod).contains("slow") {
        assert!(Instant::now() < deadline, "{}", status_of(node, pod));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn assert_limited(from: &Pod, to: &Pod) {
    let report =
        iperf::tcp_streams(from.namespace(), to.namespace(), to.ip(), 1, 1, None).expect("iperf3");
    let rate = report.gigabits() * 1000.0;
    // What the bucket holds comes on top, once.
    assert!(rate < 2.5 * LIMIT, "{rate} Mbit/s, limited to {LIMIT}");
    assert!(rate > 0.2 * LIMIT, "{rate} Mbit/s, limited to {LIMIT}");
}

#[track_caller]
fn assert_limited_on(node: &Arc<Node>) {
    let plain = node.add_pod("plain");
    shape(node);
    let shaped = node.add_pod("shaped");
    wait_for_slow(node, &shaped);
    assert_limited(&plain, &shaped);
    assert_limited(&shaped, &plain);
    let line = status_of(node, &shaped);
    assert!(line.contains("tbf") || line.contains("filter"), "{line}");
}

#[test]
fn the_bandwidth_plugin_limits_both_directions_on_one_node() {
    let (_topology, node) = one_node();
    assert_limited_on(&node);
}

#[test]
fn the_bandwidth_plugin_limits_both_directions_beside_classic_filters() {
    let (_topology, node) = one_node();
    configure(&node, |plugin| {
        plugin["datapath"]["attach"] = json!("clsact")
    });
    assert_limited_on(&node);
}

#[test]
fn the_bandwidth_plugin_limits_both_directions_across_nodes() {
    let (_topology, [a, b]) = two_nodes();
    let plain = b.add_pod("plain");
    shape(&a);
    let shaped = a.add_pod("shaped");
    wait_for_slow(&a, &shaped);
    assert_limited(&plain, &shaped);
    assert_limited(&shaped, &plain);
}

fn tc(node: &Arc<Node>, arguments: &str) {
    let mut tc: Command = node.netns().command("tc");
    exec::stdout(tc.args(arguments.split(' '))).expect("tc");
}

#[test]
fn a_pod_is_fast_again_when_nothing_shapes_it_any_more() {
    let (_topology, node) = one_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let host_veth = server.result()["interfaces"][1]["name"].clone();
    let host_veth = host_veth.as_str().expect("a host veth").to_owned();
    tc(
        &node,
        &format!("qdisc add dev {host_veth} root tbf rate 100mbit burst 100kb latency 50ms"),
    );
    wait_for_slow(&node, &server);
    client.ping(server.ip(), 1).assert_received();
    tc(&node, &format!("qdisc del dev {host_veth} root"));
    let deadline = wait::deadline(Duration::from_secs(5));
    while status_of(&node, &server).contains("slow") {
        assert!(Instant::now() < deadline, "{}", status_of(&node, &server));
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = node.counters().expect("counters");
    client.ping(server.ip(), 3).assert_received();
    let grown = growth(&before, &node.counters().expect("counters"));
    assert!(
        grown.get(TO_POD).is_some_and(|packets| *packets >= 6),
        "{grown:?}"
    );
}
