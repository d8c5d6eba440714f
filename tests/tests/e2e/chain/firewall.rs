//! `firewall`, whose rules accept what pods send and receive, before those of an administrator; or drop what comes from
//! other bridges.

use std::path::Path;
use std::sync::Arc;

use beeline_tests::cli;
use beeline_tests::datapath::{TO_PEER, TO_POD, growth};
use beeline_tests::exec;
use beeline_tests::icmp::{self, Echo};
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use serde_json::{Value, json};

use super::{add_chained, wait_until};
use crate::fixture::{fast_node, fast_pair};
use crate::refusals::sandbox;

const PLUGIN: &str = "/usr/lib/cni/firewall";

fn firewall(policy: &str) -> Value {
    json!({ "type": "firewall", "backend": "iptables", "ingressPolicy": policy })
}

fn add(node: &Arc<Node>, name: &str, policy: &str) -> Pod {
    add_chained(node, name, |_| {}, &[firewall(policy)])
}

fn iptables(node: &Node, arguments: &str) {
    let mut iptables = node.netns().command("iptables");
    exec::stdout(iptables.args(arguments.split(' '))).expect("iptables");
}

/// Whether the client's packets to the server take the fast path.
fn is_fast(client: &Pod, server: &Pod) -> bool {
    let node = client.node();
    let before = node.counters().expect("counters");
    client.ping(server.ip(), 3).assert_received();
    let grown = growth(&before, &node.counters().expect("counters"));
    let grows = |counter: &str| grown.get(counter).is_some_and(|packets| *packets >= 3);
    grows(TO_POD) || grows(TO_PEER)
}

/// Looks for firewalls now, as the watch does some time after rules have changed.
fn settle(node: &Node) {
    cli::load(node, &[]).expect("load");
}

#[test]
fn the_rules_of_the_firewall_plugin_keep_the_fast_path() {
    let (_topology, [a, b]) = fast_pair();
    let (one, two, far) = (
        add(&a, "one", "open"),
        add(&a, "two", "open"),
        add(&b, "far", "open"),
    );
    a.config().install().expect("install");
    settle(&a);
    assert!(is_fast(&one, &two));
    assert!(is_fast(&one, &far));
    // A pod that comes when the rules are there.
    let three = add(&a, "three", "open");
    assert_eq!(three.add_stderr(), "");
    assert!(is_fast(&three, &one) && is_fast(&three, &far));
}

#[test]
fn what_an_administrator_drops_in_the_firewall_plugins_chain_is_honoured() {
    let (_topology, node) = fast_node();
    let (one, two) = (add(&node, "one", "open"), add(&node, "two", "open"));
    assert!(is_fast(&one, &two));
    // kubelet's setting, without which bridged packets pass no iptables.
    let filtered = beeline_tests::services::filter_bridged(node.netns(), true).expect("sysctl");
    let rule = format!("CNI-ADMIN -s {} -d {} -j DROP", one.ip(), two.ip());
    iptables(&node, &format!("-A {rule}"));
    wait_until("beeline names the rule", || {
        cli::status_text(&node)
            .expect("status")
            .contains("CNI-ADMIN")
    });
    if filtered {
        assert_eq!(one.ping(two.ip(), 1).received(), 0);
    }
    let three = add(&node, "three", "open");
    assert!(!is_fast(&three, &one));
    iptables(&node, &format!("-D {rule}"));
    wait_until("the fast path is back", || is_fast(&three, &one));
}

/// A pod of another network of the node, on a bridge of its own, with the firewall plugin's `same-bridge` too.
fn stranger(node: &Arc<Node>) -> Namespace {
    let (namespace, attachment) = sandbox(node);
    let mut config = node.config().stdin();
    config["name"] = json!("strangers");
    config["bridge"] = json!("v-net-1");
    config["ipam"]["subnet"] = json!("10.99.0.0/24");
    config["datapath"]["peers"] = json!([]);
    config["datapath"]["uplinks"] = json!([]);
    let runtime = node.runtime();
    let added = runtime.call("ADD", &attachment, config.to_string().as_bytes());
    let result = added.expect("executed").expect_success();
    let mut chained = firewall("same-bridge");
    chained["cniVersion"] = config["cniVersion"].clone();
    chained["name"] = config["name"].clone();
    chained["prevResult"] = result;
    let netns = attachment.netns.display().to_string();
    let environment = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", &*attachment.container_id),
        ("CNI_IFNAME", &*attachment.ifname),
        ("CNI_NETNS", &*netns),
        ("CNI_PATH", "/usr/lib/cni"),
    ];
    let stdin = chained.to_string();
    let added = runtime.exec(Path::new(PLUGIN), &environment, stdin.as_bytes());
    added.expect("executed").expect_success();
    namespace
}

#[test]
fn same_bridge_keeps_pods_of_other_bridges_out_and_the_fast_path_within() {
    let (_topology, [a, b]) = fast_pair();
    let (one, two) = (add(&a, "one", "same-bridge"), add(&a, "two", "same-bridge"));
    let far = b.add_pod("far");
    let stranger = stranger(&a);
    settle(&a);
    assert!(
        is_fast(&one, &two) && is_fast(&one, &far),
        "{:?}",
        cli::status_text(&a)
    );
    let asks = |ip| {
        icmp::ping(
            &stranger,
            &Echo {
                count: 1,
                ..Echo::to(ip)
            },
        )
    };
    assert_eq!(asks(one.ip()).received(), 0, "dropped");
    assert_eq!(asks(a.address()).received(), 1, "its own node");
}
