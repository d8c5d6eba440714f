//! All of the reference's plugins that are chained in practice, at once.

use std::sync::Arc;

use beeline_tests::config::NETWORK;
use beeline_tests::exec;
use beeline_tests::netns;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use serde_json::{Value, json};

use super::{tuning, wait_until};
use crate::fixture::fast_node;

fn portmap() -> Value {
    json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } })
}

fn install(node: &Node, version: &str, portmap: Option<Value>) {
    let bandwidth = json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } });
    let mut tuning = tuning(node, json!({ "mtu": 1400, "allmulti": true }));
    tuning["capabilities"] = json!({ "mac": true });
    let firewall = json!({ "type": "firewall", "backend": "iptables" });
    let chain = portmap.into_iter().chain([bandwidth, tuning, firewall]);
    let config = node.config().version(version);
    let config = chain.fold(config, |config, plugin| config.chain(plugin));
    config.install().expect("install");
}

fn add(node: &Arc<Node>, name: &str, number: u16) -> Pod {
    let (rate, burst) = (50_000_000, 2_000_000);
    let mappings = ["tcp", "udp"].map(
        |protocol| json!({ "hostPort": 8000 + number, "containerPort": 80, "protocol": protocol }),
    );
    let capabilities = json!({
        "portMappings": mappings,
        "mac": format!("02:aa:bb:cc:dd:{number:02x}"),
        "bandwidth": {
            "ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst,
        },
    });
    let pod = node.add_pod_with(name, capabilities);
    // Debian's `tuning` sets the interface down for a new MAC, which loses its routes; newer ones do not.
    let route = format!("route replace default via {} dev eth0", pod.gateway());
    exec::ip_batch(pod.namespace(), &[route]).expect("ip");
    // The watch finds the new MAC beside the chain.
    let id = &pod.attachment().container_id;
    let found = node.state_dir().join(format!("{NETWORK}/macs/{id}:eth0"));
    wait_until("the MAC is followed", || found.exists());
    pod
}

/// Queueing disciplines that somebody asked for.
fn shapers(node: &Node) -> Vec<String> {
    let listed = exec::stdout(node.netns().command("tc").arg("qdisc")).expect("tc");
    let asked = |line: &&str| line.contains("tbf") || line.contains("ingress");
    listed.lines().filter(asked).map(str::to_owned).collect()
}

/// One pod is shaped both ways, with the burst that was asked for.
#[track_caller]
fn assert_shaped(shaping: &[String]) {
    let limits = |line: &&String| line.contains("rate 50Mbit") && line.contains("burst 25");
    assert_eq!(shaping.iter().filter(limits).count(), 2, "{shaping:?}");
}

#[test]
fn a_pod_behind_all_plugins_is_added_checked_and_deleted_without_a_trace() {
    for version in ["0.4.0", "1.0.0"] {
        let (_topology, node) = fast_node();
        install(&node, version, Some(portmap()));
        // What all pods share stays: tables and chains of portmap's and the firewall's.
        add(&node, "former", 3).delete().expect("DEL");
        let first = add(&node, "first", 1);
        let (before, shaping) = (Snapshot::of(&node), shapers(&node));
        assert_shaped(&shaping);
        let mut second = add(&node, "second", 2);
        second.ping(first.ip(), 3).assert_received();
        // CHECK of Debian's portmap 1.1.1 looks for a pod's IPv4 rules among those of IPv6.
        install(&node, version, None);
        for pod in [&first, &second] {
            pod.check().expect("executed").expect_success();
        }
        install(&node, version, Some(portmap()));
        // A runtime repeats DEL.
        for _ in 0..3 {
            second.detach().expect("executed").expect_success();
        }
        before.assert_unchanged(&node);
        assert_eq!(shapers(&node), shaping);
        install(&node, version, None);
        first.check().expect("executed").expect_success();
        install(&node, version, Some(portmap()));
    }
}

#[test]
fn a_del_of_all_plugins_leaves_no_trace_when_the_namespace_is_gone() {
    let (_topology, node) = fast_node();
    install(&node, "1.0.0", Some(portmap()));
    add(&node, "former", 3).delete().expect("DEL");
    let _first = add(&node, "first", 1);
    let (before, shaping) = (Snapshot::of(&node), shapers(&node));
    let mut second = add(&node, "second", 2);
    netns::remove(second.namespace().name()).expect("remove");
    second.detach().expect("executed").expect_success();
    // The harness holds the namespace open; the kernel removes its links some time after that.
    drop(second);
    wait_until("nothing of the pod is left", || {
        before.diff(&Snapshot::of(&node)).is_empty() && shapers(&node) == shaping
    });
}
