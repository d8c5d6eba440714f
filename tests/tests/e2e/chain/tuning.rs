//! `tuning`, which changes a pod's interface after beeline's ADD: above all its MAC, by which the fast path knows it.

use std::fs;
use std::sync::Arc;

use beeline_tests::cli;
use beeline_tests::datapath::{FROM_UPLINK, TO_PEER, TO_POD, growth};
use beeline_tests::exec;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::traffic::tcp_echo;
use serde_json::{Value, json};

use super::{add_chained, tuning, wait_until};
use crate::fixture::{fast_nodes, fast_pair, one_node};

const MAC: &str = "02:11:22:33:44:55";

/// A pod whose MAC `tuning` changes.
fn tuned_pod(node: &Arc<Node>, anti_spoof: bool) -> Pod {
    let change = |plugin: &mut Value| plugin["datapath"]["antiSpoof"] = json!(anti_spoof);
    let pod = add_chained(
        node,
        "tuned",
        change,
        &[tuning(node, json!({ "mac": MAC }))],
    );
    assert_eq!(pod.mac(), MAC);
    assert_eq!(mac_in(pod.namespace()), MAC);
    // Debian's plugin sets the interface down for it, which loses its routes; newer ones do not.
    let gateway = pod.gateway();
    let routes = [format!("route replace default via {gateway} dev eth0")];
    exec::ip_batch(pod.namespace(), &routes).expect("ip");
    let config = node.config().with(change);
    config.install().expect("install");
    pod
}

fn mac_in(namespace: &Namespace) -> String {
    let link: Vec<Value> = exec::json(
        namespace
            .command("ip")
            .args(["-json", "link", "show", "eth0"]),
    )
    .expect("ip");
    link[0]["address"].as_str().expect("a MAC").to_owned()
}

/// The pod's counters of the fast path grow while it talks to another, both ways, and the other to it.
#[track_caller]
fn assert_fast(node: &Node, pod: &Pod, other: &Pod, counters: &[&str]) {
    let all_grow = || {
        let before = node.counters().expect("counters");
        let answered = pod.ping(other.ip(), 3).received() + other.ping(pod.ip(), 3).received();
        let grown = growth(&before, &node.counters().expect("counters"));
        let grows = |counter: &str| grown.get(counter).is_some_and(|packets| *packets >= 6);
        answered == 6 && counters.iter().all(|counter| grows(counter))
    };
    wait_until("the fast path knows the new MAC", all_grow);
    let before = node.counters().expect("counters");
    for (client, server) in [(pod, other), (other, pod)] {
        let (from, to) = (client.namespace(), server.namespace());
        let seen = tcp_echo(from, to, server.ip(), b"hello").expect("TCP");
        assert_eq!(seen.ip(), client.ip());
    }
    let grown = growth(&before, &node.counters().expect("counters"));
    for counter in counters {
        assert!(grown.contains_key(*counter), "{counter}: {grown:?}");
    }
}

#[test]
fn a_pod_whose_mac_tuning_changes_is_fast_on_its_node() {
    for anti_spoof in [false, true] {
        let (_topology, [node]) = fast_nodes(Families::V4);
        let other = add_chained(
            &node,
            "other",
            |plugin| plugin["datapath"]["antiSpoof"] = json!(anti_spoof),
            &[],
        );
        let tuned = tuned_pod(&node, anti_spoof);
        assert_fast(&node, &tuned, &other, &[TO_POD]);
    }
}

#[test]
fn a_pod_whose_mac_tuning_changes_is_fast_across_nodes() {
    for anti_spoof in [false, true] {
        let (_topology, [a, b]) = fast_pair();
        let (tuned, far) = (tuned_pod(&a, anti_spoof), b.add_pod("far"));
        assert_fast(&a, &tuned, &far, &[TO_PEER, FROM_UPLINK]);
    }
}

#[test]
fn nobody_is_helped_to_the_mac_of_another_pod() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    let change = |plugin: &mut Value| plugin["datapath"]["antiSpoof"] = json!(true);
    let (victim, peer) = (
        add_chained(&node, "victim", change, &[]),
        add_chained(&node, "peer", change, &[]),
    );
    let taken = json!({ "mac": victim.mac() });
    let thief = add_chained(&node, "thief", change, &[tuning(&node, taken)]);
    // What the watch would have done by then, it did for another pod that came later.
    let tuned = tuned_pod(&node, true);
    assert_fast(&node, &tuned, &peer, &[TO_POD]);
    assert_eq!(thief.ping(peer.ip(), 1).received(), 0, "dropped as forged");
    victim.ping(peer.ip(), 3).assert_received();
    thief.delete().expect("DEL");
}

#[test]
fn a_mac_that_changed_is_kept_when_the_fast_path_goes_and_comes_back() {
    let (_topology, [node]) = fast_nodes(Families::V4);
    let (tuned, other) = (tuned_pod(&node, false), node.add_pod("other"));
    assert_fast(&node, &tuned, &other, &[TO_POD]);
    cli::unload(&node).expect("unload");
    cli::load(&node, &[]).expect("load");
    assert_fast(&node, &tuned, &other, &[TO_POD]);
}

#[test]
fn what_tuning_sets_holds_and_a_check_succeeds() {
    let (_topology, node) = one_node();
    let sysctl = "net/ipv4/conf/eth0/log_martians";
    let settings = json!({
        "mac": MAC, "mtu": 1400, "promisc": true, "allmulti": true,
        "sysctl": { "net.ipv4.conf.eth0.log_martians": "1" },
    });
    let other = node.add_pod("other");
    let tuned = add_chained(&node, "tuned", |_| {}, &[tuning(&node, settings)]);
    let namespace = tuned.namespace();
    let link = exec::stdout(namespace.command("ip").args(["link", "show", "eth0"])).expect("ip");
    for set in [MAC, "mtu 1400", "PROMISC", "ALLMULTI"] {
        assert!(link.contains(set), "{set}: {link}");
    }
    let value = namespace.within(|| fs::read_to_string(format!("/proc/sys/{sysctl}")));
    assert_eq!(value.expect("sysctl").trim(), "1");
    let gateway = tuned.gateway();
    let routes = [format!("route replace default via {gateway} dev eth0")];
    exec::ip_batch(namespace, &routes).expect("ip");
    tuned.check().expect("executed").expect_success();
    tuned.ping(other.ip(), 2).assert_received();
    tuned.delete().expect("DEL");
    assert_eq!(node.reserved(), [other.ip()]);
}
