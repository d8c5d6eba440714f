//! Firewalls in the way of pods (design rule 10).

use std::sync::Arc;
use std::time::{Duration, Instant};

use beeline_tests::bench::kube_proxy;
use beeline_tests::datapath::{TO_PEER, TO_POD, growth};
use beeline_tests::kernel::is_since;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::skip::skip;
use beeline_tests::wait;
use beeline_tests::{cli, exec, slowpath};

use crate::fixture::{fast_node, one_node, two_nodes};

fn iptables(node: &Node, arguments: &str) {
    let mut iptables = node.netns().command("iptables");
    exec::stdout(iptables.args(arguments.split(' '))).expect("iptables");
}

fn status(node: &Node) -> String {
    let mut status = node.netns().command(node.plugin().path());
    status
        .arg("status")
        .arg("--state-dir")
        .arg(node.state_dir());
    exec::stdout(&mut status).expect("status")
}

/// Whether the client's packets to the server take the fast path.
fn is_fast(node: &Arc<Node>, client: &Pod, server: &Pod) -> bool {
    let before = node.counters().expect("counters");
    client.ping(server.ip(), 3).assert_received();
    let grown = growth(&before, &node.counters().expect("counters"));
    [TO_POD, TO_PEER]
        .iter()
        .any(|counter| grown.get(*counter).is_some_and(|packets| *packets >= 3))
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = wait::deadline(Duration::from_secs(8));
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_iptables_rule_that_drops_a_pods_packets_is_honoured() {
    let (_topology, [a, b]) = two_nodes();
    iptables(&a, "-A FORWARD -s 10.244.1.2 -j DROP");
    let (dropped, allowed, far) = (a.add_pod("dropped"), a.add_pod("allowed"), b.add_pod("far"));
    assert_eq!(dropped.ip().to_string(), "10.244.1.2");
    for text in [dropped.add_stderr(), &status(&a)] {
        assert!(text.contains("FORWARD"), "{text}");
        assert!(text.contains("10.244.1.2"), "{text}");
    }
    assert_eq!(dropped.ping(far.ip(), 1).received(), 0);
    assert!(!is_fast(&a, &allowed, &far));
}

#[test]
fn an_nftables_rule_that_drops_a_pods_packets_is_honoured() {
    let (_topology, [a, b]) = two_nodes();
    let rules = "table inet guard { chain forward { type filter hook forward priority 0; \
                 ip saddr 10.244.1.2 drop; }\n}\n";
    exec::nft(a.netns(), rules).expect("nft");
    let (dropped, allowed, far) = (a.add_pod("dropped"), a.add_pod("allowed"), b.add_pod("far"));
    assert!(
        dropped.add_stderr().contains("guard"),
        "{}",
        dropped.add_stderr()
    );
    assert_eq!(dropped.ping(far.ip(), 1).received(), 0);
    assert!(!is_fast(&a, &allowed, &far));
}

#[test]
fn a_rule_that_comes_and_goes_later_is_followed() {
    let (_topology, [a, b]) = two_nodes();
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    assert!(is_fast(&a, &client, &far));
    iptables(&a, "-A FORWARD -s 10.244.1.2 -j DROP");
    wait_until("the rule is honoured", || {
        client.ping(far.ip(), 1).received() == 0
    });
    assert!(status(&a).contains("FORWARD"), "{}", status(&a));
    iptables(&a, "-D FORWARD -s 10.244.1.2 -j DROP");
    client.ping(far.ip(), 1).assert_received();
    wait_until("the fast path is back", || is_fast(&a, &client, &far));
}

#[test]
fn ipsec_policies_about_pods_are_honoured_as_long_as_they_are_there() {
    let (_topology, [a, b]) = two_nodes();
    let policy = |verb: &str, pods: &str| {
        // No key is agreed on, so the kernel sends nothing rather than plain text.
        let esp = "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel";
        let tail = if verb == "add" { esp } else { "" };
        let text = format!("xfrm policy {verb} {pods} dir out {tail}");
        let mut ip = a.netns().command("ip");
        exec::stdout(ip.args(text.split_whitespace())).expect("ip");
    };
    let (others, pods) = (
        "src 192.168.1.11 dst 192.168.1.12",
        "src 10.244.1.0/24 dst 10.244.2.0/24",
    );
    policy("add", others);
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    assert!(is_fast(&a, &client, &far));
    policy("add", pods);
    wait_until("the policy is honoured", || {
        client.ping(far.ip(), 1).received() == 0
    });
    let named = "ipsec policy src 10.244.1.0/24 dst 10.244.2.0/24 dir out";
    assert!(status(&a).contains(named), "{}", status(&a));
    policy("delete", pods);
    wait_until("the fast path is back", || {
        client.ping(far.ip(), 1).received() == 1 && is_fast(&a, &client, &far)
    });
}

#[test]
fn a_default_of_ipsec_that_drops_what_no_policy_is_about_is_honoured() {
    if !is_since(5, 15) {
        return skip("this kernel is older than 5.15, which brought defaults of IPsec");
    }
    let (_topology, [a, b]) = two_nodes();
    let default = |action: &str| {
        let mut ip = a.netns().command("ip");
        exec::stdout(ip.args(["xfrm", "policy", "setdefault", "fwd", action])).expect("ip");
    };
    let (client, far) = (a.add_pod("client"), b.add_pod("far"));
    assert!(is_fast(&a, &client, &far));
    default("block");
    wait_until("the default is honoured", || {
        client.ping(far.ip(), 1).received() == 0
    });
    let named = "ipsec default policy block";
    assert!(status(&a).contains(named), "{}", status(&a));
    default("accept");
    wait_until("the fast path is back", || {
        client.ping(far.ip(), 1).received() == 1 && is_fast(&a, &client, &far)
    });
}

#[test]
fn a_load_that_finds_a_firewall_says_what_became_of_the_fast_path() {
    let (_topology, node) = fast_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    assert!(is_fast(&node, &client, &server));
    iptables(&node, "-A FORWARD -s 10.244.1.99 -j DROP");
    let error = cli::load_fails(&node, &[]).expect("load");
    assert!(error.contains("FORWARD"), "{error}");
    let text = status(&node);
    for part in ["datapath bridge", "on the plain bridge: ", "firewall: "] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    client.ping(server.ip(), 2).assert_received();
    iptables(&node, "-D FORWARD -s 10.244.1.99 -j DROP");
    cli::load(&node, &[]).expect("load");
    assert!(is_fast(&node, &client, &server));
}

#[test]
fn mode_ebpf_passes_by_a_firewall_knowingly() {
    let (_topology, node) = one_node();
    node.config().mode("ebpf").install().expect("install");
    iptables(&node, "-A FORWARD -s 10.244.1.2 -j DROP");
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    assert!(
        client.add_stderr().contains("FORWARD"),
        "{}",
        client.add_stderr()
    );
    assert!(status(&node).contains("FORWARD"), "{}", status(&node));
    assert!(is_fast(&node, &client, &server));
}

#[test]
fn kube_proxys_rules_keep_the_fast_path() {
    let (_topology, [a, b]) = two_nodes();
    kube_proxy::install(a.netns(), 20).expect("kube-proxy's rules");
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    assert_eq!(client.add_stderr(), "");
    assert!(is_fast(&a, &client, &near));
    assert!(is_fast(&a, &client, &far));
}

#[test]
fn counters_keep_the_fast_path() {
    let (_topology, node) = one_node();
    let _proof = slowpath::Proof::begin(&node).expect("proof");
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    assert!(is_fast(&node, &client, &server));
}
