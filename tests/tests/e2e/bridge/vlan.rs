//! `vlan`, `vlanTrunk`, `preserveDefaultVlan`: where the kernel's bridges filter by VLAN, what they do; elsewhere, that
//! they are refused without a trace.

use std::sync::Arc;
use std::time::Duration;

use beeline_tests::cli;
use beeline_tests::datapath::TO_POD;
use beeline_tests::exec;
use beeline_tests::icmp::Echo;
use beeline_tests::node::{BRIDGE, Node};
use beeline_tests::pod::Pod;
use beeline_tests::skip::skip;
use beeline_tests::topology::Topology;
use serde_json::{Value, json};

use super::{addresses, call, interface, layer_2, links, run_ip};
use crate::fixture::{configure, fast_node, one_node};
use crate::refusals::{refused, sandbox};

/// Whether this kernel's bridges filter by VLAN, by asking for one that does.
fn filters(node: &Node) -> bool {
    let ask = "link add asks-for-vlans type bridge vlan_filtering 1".to_owned();
    match exec::ip_batch(node.netns(), &[ask]) {
        Ok(()) => {
            run_ip(node.netns(), &["link del asks-for-vlans"]);
            true
        }
        Err(error) => {
            let text = format!("{error:#}");
            assert!(text.contains("Operation not supported"), "{text}");
            false
        }
    }
}

/// A node whose kernel has what these tests are about.
fn filtering_node() -> Option<(Topology, Arc<Node>)> {
    let (topology, node) = fast_node();
    if filters(&node) {
        return Some((topology, node));
    }
    skip("this kernel's bridges cannot filter by VLAN (asked for one: Operation not supported)");
    None
}

/// The VLANs of a port as `bridge vlan` says, each with its flags.
fn vlans_of(node: &Node, port: &str) -> Vec<(u64, bool)> {
    let mut command = node.netns().command("bridge");
    let command = command.args(["-json", "vlan", "show", "dev", port]);
    let found: Vec<Value> = exec::json(command).expect("bridge");
    let entries = found[0]["vlans"].as_array().expect("VLANs").iter();
    let id = |entry: &Value| entry["vlan"].as_u64().expect("VLAN");
    let native = |entry: &Value| entry["flags"].to_string().contains("PVID");
    entries.map(|entry| (id(entry), native(entry))).collect()
}

fn unanswered(from: &Pod, to: &Pod) -> bool {
    let timeout = Duration::from_millis(300);
    let echo = Echo {
        timeout,
        ..Echo::to(to.ip())
    };
    from.echo(&echo).received() == 0
}

fn pod_in(node: &Arc<Node>, name: &str, vlan: u16) -> Pod {
    configure(node, |plugin| plugin["vlan"] = json!(vlan));
    node.add_pod(name)
}

#[test]
fn a_kernel_without_vlans_refuses_them_by_their_key_and_nothing_is_left() {
    let (_topology, node) = one_node();
    if filters(&node) {
        return skip("this kernel's bridges filter by VLAN, so that they are not refused");
    }
    let (namespace, attachment) = sandbox(&node);
    let trunk = json!([{"id": 5}, {"minID": 10, "maxID": 20}]);
    for bridge_is_there in [false, true] {
        if bridge_is_there {
            run_ip(
                node.netns(),
                &[&format!("link add {BRIDGE} up type bridge")],
            );
        }
        for (key, value) in [("vlan", json!(100)), ("vlanTrunk", trunk.clone())] {
            let config = node.config().with(|plugin| plugin[key] = value.clone());
            let message = refused(&node, &attachment, &config.stdin().to_string(), &[2]);
            assert!(message.starts_with(&format!("{key} ")), "{message}");
            assert!(
                message.contains("CONFIG_BRIDGE_VLAN_FILTERING"),
                "{message}"
            );
            assert_eq!(links(&namespace), ["lo"]);
            assert_eq!(node.reserved().len(), 0);
        }
    }
}

#[test]
fn what_is_no_vlan_is_refused_and_no_bridge_is_made() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    for (key, value, words) in [
        (
            "vlan",
            json!(-1),
            "invalid VLAN ID -1 (must be between 0 and 4094)",
        ),
        (
            "vlan",
            json!(4095),
            "invalid VLAN ID 4095 (must be between 0 and 4094)",
        ),
        (
            "vlanTrunk",
            json!([{"minID": 5}]),
            "minID and maxID should be configured simultaneously, maxID is missing",
        ),
        (
            "vlanTrunk",
            json!([{"maxID": 5}]),
            "minID and maxID should be configured simultaneously, minID is missing",
        ),
        (
            "vlanTrunk",
            json!([{"minID": 0, "maxID": 5}]),
            "incorrect trunk minID parameter",
        ),
        (
            "vlanTrunk",
            json!([{"minID": 1, "maxID": 4095}]),
            "incorrect trunk maxID parameter",
        ),
        (
            "vlanTrunk",
            json!([{"id": 4095}]),
            "incorrect trunk id parameter",
        ),
    ] {
        let config = node.config().with(|plugin| plugin[key] = value);
        let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn mode_ebpf_and_vlans_together_are_refused() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let config = node.config().mode("ebpf");
    let config = config.with(|plugin| plugin["vlan"] = json!(100));
    let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
    assert!(
        message.contains("datapath.mode \"ebpf\": not with vlan"),
        "{message}"
    );
}

#[test]
fn a_pod_in_a_vlan_has_a_gateway_there_and_reaches_only_its_own() {
    let Some((_topology, node)) = filtering_node() else {
        return;
    };
    let (one, two) = (pod_in(&node, "one", 100), pod_in(&node, "two", 100));
    let gateway = format!("{BRIDGE}.100");
    assert_eq!(interface(one.result(), 3), gateway);
    assert_eq!(one.result()["ips"][0]["interface"], 2);
    assert_eq!(
        addresses(node.netns(), &gateway),
        [format!("{}/24", node.gateway())]
    );
    assert_eq!(addresses(node.netns(), BRIDGE), [] as [&str; 0]);
    assert_eq!(vlans_of(&node, interface(one.result(), 1)), [(100, true)]);
    one.ping(node.gateway(), 1).assert_received();
    one.ping(two.ip(), 1).assert_received();
    one.check().expect("executed").expect_success();
    // The bridge, not the fast path, decides who is in which VLAN.
    let counted = node.counters().expect("counters");
    assert_eq!(counted.get(TO_POD), None, "{counted:?}");
    let status = cli::status(&node).expect("status");
    assert!(status["degraded"].to_string().contains("vlan"), "{status}");
    let port = interface(two.result(), 1);
    let mut bridge = node.netns().command("bridge");
    let add = bridge.args(["vlan", "add", "dev", port, "vid", "200", "pvid", "untagged"]);
    exec::stdout(add).expect("bridge");
    exec::stdout(
        node.netns()
            .command("bridge")
            .args(["vlan", "del", "dev", port, "vid", "100"]),
    )
    .expect("bridge");
    assert!(unanswered(&one, &two), "across VLANs");
    for pod in [one, two] {
        pod.delete().expect("DEL");
    }
    let left = links(node.netns());
    assert!(
        left.contains(&gateway) && left.contains(&BRIDGE.to_owned()),
        "{left:?}"
    );
}

#[test]
fn the_default_vlan_goes_unless_it_is_to_stay() {
    let Some((_topology, node)) = filtering_node() else {
        return;
    };
    for (keep, expected) in [
        (false, vec![(100, true)]),
        (true, vec![(1, false), (100, true)]),
    ] {
        let (_namespace, attachment) = sandbox(&node);
        let mut stdin = layer_2(&node);
        stdin["vlan"] = json!(100);
        stdin["preserveDefaultVlan"] = json!(keep);
        let result = call(&node, "ADD", &attachment, &stdin).expect_success();
        assert_eq!(vlans_of(&node, interface(&result, 1)), expected);
        call(&node, "DEL", &attachment, &stdin).expect_success();
    }
}

#[test]
fn a_trunk_has_its_vlans_with_tags_and_vlan_1_or_the_named_one_without() {
    let Some((_topology, node)) = filtering_node() else {
        return;
    };
    for (vlan, native) in [(0, 1), (9, 9)] {
        let (_namespace, attachment) = sandbox(&node);
        let mut stdin = layer_2(&node);
        stdin["vlan"] = json!(vlan);
        stdin["vlanTrunk"] = json!([{"id": 30}, {"minID": 20, "maxID": 22}]);
        let result = call(&node, "ADD", &attachment, &stdin).expect_success();
        let expected = [
            (native, true),
            (20, false),
            (21, false),
            (22, false),
            (30, false),
        ];
        assert_eq!(vlans_of(&node, interface(&result, 1)), expected);
        call(&node, "DEL", &attachment, &stdin).expect_success();
    }
}
