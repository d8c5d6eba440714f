//! What the plugin makes of the kernel that it runs on: nothing less than that kernel can do.
//!
//! `cargo xtask vm` runs these on several, and shows what they note.

use std::sync::Arc;

use aya::programs::TcAttachType::{Egress, Ingress};
use beeline_tests::datapath::{FROM_UPLINK, TO_OVERLAY, TO_PEER, TO_POD, growth};
use beeline_tests::foreign::tcx_programs;
use beeline_tests::kernel::{has_tcx, note};
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::skip::skip;
use beeline_tests::{cli, exec};
use serde_json::{Value, json};

use crate::fixture::{configure, fast_node, fast_pair};
use crate::foreign::host_veth;
use crate::overlay;

const PINGS: usize = 5;

fn status(node: &Node) -> Value {
    let mut status = node.netns().command(node.plugin().path());
    status
        .arg("status")
        .arg("--state-dir")
        .arg(node.state_dir());
    let text = exec::stdout(status.args(["--output", "json"])).expect("status");
    let mut status: Value = serde_json::from_str(&text).expect("JSON");
    status["networks"][0].take()
}

/// How each program is attached, wherever it is.
fn attached_by(node: &Node) -> Vec<String> {
    let network = status(node);
    let programs = network["pinned"]["programs"].as_array().expect("programs");
    let places = programs
        .iter()
        .flat_map(|program| program["attached"].as_array().expect("places"));
    places
        .map(|place| place["by"].as_str().expect("how").to_owned())
        .collect()
}

#[test]
fn programs_are_attached_by_tcx_where_there_is_tcx_and_else_by_clsact() {
    let (_topology, [a, b]) = fast_pair();
    let (client, _far) = (a.add_pod("client"), b.add_pod("far"));
    let expected = if has_tcx() { "tcx" } else { "clsact" };
    let by = attached_by(&a);
    // A pod's two, the bridge's, and the uplink's two.
    assert!(by.len() >= 4, "{by:?}");
    assert!(by.iter().all(|by| by == expected), "{by:?}");
    let veth = host_veth(&client);
    for (interface, direction) in [(&*veth, Ingress), ("eth0", Ingress), ("eth0", Egress)] {
        let by_tcx = tcx_programs(a.netns(), interface, direction).expect("query");
        assert_eq!(by_tcx.len(), usize::from(has_tcx()), "{interface}");
        let qdiscs = ["qdisc", "show", "dev", interface];
        let qdiscs = exec::stdout(a.netns().command("tc").args(qdiscs)).expect("tc");
        assert_eq!(qdiscs.contains("clsact"), !has_tcx(), "{qdiscs}");
    }
    note("attached by", expected);
}

#[test]
fn an_attachment_that_the_kernel_cannot_do_leaves_pods_on_the_plain_bridge() {
    if has_tcx() {
        return skip("this kernel can do all attachments");
    }
    let (_topology, node) = fast_node();
    configure(&node, |plugin| plugin["datapath"]["attach"] = json!("tcx"));
    let (one, other) = (node.add_pod("one"), node.add_pod("other"));
    one.ping(other.ip(), 2).assert_received();
    let network = status(&node);
    assert_eq!(network["datapath"], "bridge");
    let why = network["degraded"].as_str().expect("a reason");
    assert!(why.contains("attach"), "{why}");
    assert!(one.add_stderr().contains(why), "{}", one.add_stderr());
}

/// Pings both ways, and asserts that each node counted so many packets of these.
#[track_caller]
fn assert_counted(nodes: &[&Arc<Node>], pods: [&Pod; 2], counters: &[&str]) {
    let [one, other] = pods;
    let ip = other.ip();
    one.ping(ip, 1).assert_received();
    let before: Vec<_> = nodes.iter().map(|node| node.counters()).collect();
    one.ping(ip, PINGS).assert_received();
    for (node, before) in nodes.iter().zip(before) {
        let grown = growth(
            &before.expect("counters"),
            &node.counters().expect("counters"),
        );
        for name in counters {
            let packets = grown.get(*name).copied().unwrap_or_default();
            assert!(packets >= PINGS as u64, "{name}: {grown:?}");
        }
    }
}

#[test]
fn every_kernel_that_is_new_enough_carries_pods_by_the_fast_path() {
    let (_topology, [a, b]) = fast_pair();
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    assert_eq!(client.add_stderr(), "", "nothing is lacking");
    assert_counted(&[&a], [&client, &near], &[TO_POD]);
    note("pods of one node", "fast (bpf_redirect_peer)");
    assert_counted(&[&a, &b], [&client, &far], &[TO_PEER, FROM_UPLINK]);
    note("pods of two nodes", "fast (bpf_redirect_neigh)");
    let (_topology, [a, b]) = overlay::nodes(Families::V4);
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    assert_counted(
        &[&a, &b],
        [&client, &far],
        &[TO_OVERLAY, "from_overlay/to_pod"],
    );
    note("by the overlay", "fast (bpf_skb_set_tunnel_key)");
}

#[test]
fn doctor_is_content_with_the_kernel() {
    let (_topology, [a, b]) = fast_pair();
    let _pods = (a.add_pod("client"), b.add_pod("far"));
    let bin_dir = a.plugin().path().parent().expect("a directory");
    let (_well, text) = cli::doctor(&a, bin_dir, "json").expect("doctor");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    let of_kernel: Vec<_> = findings
        .iter()
        .filter(|finding| finding["check"] == "kernel")
        .collect();
    let [finding] = &of_kernel[..] else {
        panic!("more to say: {of_kernel:#?}");
    };
    assert_eq!(finding["severity"], "ok");
    note("doctor", finding["message"].as_str().expect("a message"));
}
