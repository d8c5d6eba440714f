//! `beeline load --adopt`: taking over a node from the reference `bridge` plugin under running pods.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use beeline_tests::cli;
use beeline_tests::config::{Config, NETWORK};
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::steady::{self, Tally};
use serde_json::json;

use crate::fixture::fast_pair;

fn cache(node: &Node) -> PathBuf {
    node.directory().join("results")
}

/// What libcni writes after an ADD (`cacheAdd` in libcni/api.go).
pub(crate) fn remember(node: &Node, pod: &Pod) {
    let attachment = pod.attachment();
    let (id, ifname) = (&attachment.container_id, &attachment.ifname);
    let cached = json!({
        "kind": "cniCacheV1",
        "containerId": id,
        // The configuration in base64, of which nothing is read.
        "config": "e30=",
        "ifName": ifname,
        "networkName": NETWORK,
        "netns": attachment.netns,
        "result": pod.result(),
    });
    let directory = cache(node);
    fs::create_dir_all(&directory).expect("create");
    let path = directory.join(format!("{NETWORK}-{id}-{ifname}"));
    fs::write(path, cached.to_string()).expect("write");
}

/// A pod that the reference plugin made on the node.
fn reference_pod(node: &Arc<Node>, name: &str, masquerade: bool) -> Pod {
    let config = Config::reference(node).with(|plugin| plugin["ipMasq"] = json!(masquerade));
    config.install().expect("install");
    let pod = node.add_pod(name);
    node.config().install().expect("install");
    remember(node, &pod);
    pod
}

pub(crate) fn adopt(node: &Node) -> String {
    let directory = cache(node).display().to_string();
    cli::load(node, &["--adopt", "--cache-dir", &directory]).expect("load")
}

/// Has the node route to its peers, as an administrator of the reference plugin does.
pub(crate) fn route_to_peers(node: &Node) {
    let routes = node.peers().iter();
    let routes = routes.map(|peer| format!("route replace {} via {}", peer.cidr, peer.node));
    exec::ip_batch(node.netns(), &routes.collect::<Vec<_>>()).expect("ip");
}

#[test]
fn pods_of_the_reference_plugin_become_fast_under_connections_and_none_of_them_notices() {
    let (_topology, [a, b]) = fast_pair();
    route_to_peers(&a);
    let (client, near) = (
        reference_pod(&a, "client", false),
        reference_pod(&a, "near", false),
    );
    let far = b.add_pod("far");
    let pairs = [(&client, &near), (&client, &far), (&far, &near)];
    let (said, tallies) = steady::during(&pairs, || adopt(&a)).expect("traffic");
    assert!(said.contains("pods 2, 2 on the fast path"), "{said}");
    tallies.iter().for_each(Tally::assert_unbroken);
    let before = a.counters().expect("counters");
    client.ping(near.ip(), 2).assert_received();
    client.ping(far.ip(), 2).assert_received();
    let after = a.counters().expect("counters");
    for name in ["from_pod/to_pod", "from_pod/to_peer", "from_uplink/to_pod"] {
        assert!(after[name] >= before[name] + 2, "{name}: {after:?}");
    }
    for pod in [&client, &near] {
        pod.check().expect("executed").expect_success();
    }
    // Once more changes nothing.
    let snapshot = Snapshot::of(&a);
    adopt(&a);
    snapshot.assert_unchanged(&a);
}

#[test]
fn connections_that_the_reference_plugin_masquerades_go_on_in_the_stack() {
    let (_topology, [a, b]) = fast_pair();
    route_to_peers(&a);
    // To that plugin, pods of other nodes are the outside.
    let (client, far) = (reference_pod(&a, "client", true), b.add_pod("far"));
    let (_, tallies) = steady::during(&[(&client, &far)], || adopt(&a)).expect("traffic");
    tallies.iter().for_each(Tally::assert_unbroken);
    let before = a.counters().expect("counters");
    client.ping(far.ip(), 2).assert_received();
    assert!(a.counters().expect("counters")["from_pod/to_peer"] >= before["from_pod/to_peer"] + 2);
}

#[test]
fn a_del_of_an_adopted_pod_leaves_nothing_of_it() {
    let (_topology, [a, _b]) = fast_pair();
    route_to_peers(&a);
    let stays = reference_pod(&a, "stays", true);
    adopt(&a);
    // Beeline's own pod has the bridge and the address files in the state that they are to come back to.
    let before = Snapshot::of(&a);
    let goes = reference_pod(&a, "goes", true);
    adopt(&a);
    goes.ping(stays.ip(), 1).assert_received();
    let mut goes = goes;
    goes.detach().expect("executed").expect_success();
    before.assert_unchanged(&a);
    assert_eq!(a.reserved(), [stays.ip()]);
    let new = a.add_pod("new");
    new.ping(stays.ip(), 1).assert_received();
}

#[test]
fn a_cache_that_cannot_be_read_or_is_of_others_adopts_nobody() {
    let (_topology, [a, _b]) = fast_pair();
    let pod = a.add_pod("pod");
    let directory = cache(&a);
    fs::create_dir_all(&directory).expect("create");
    fs::write(directory.join("garbage"), "{").expect("write");
    let gone = json!({
        "kind": "cniCacheV1", "containerId": "gone", "ifName": "eth0", "networkName": NETWORK,
        "result": {
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "v-net-0"}, {"name": "vethgone"},
                {"name": "eth0", "sandbox": "/run/netns/bl-never-there"},
            ],
            "ips": [{"address": "10.244.1.99/24", "interface": 2}],
        },
    });
    fs::write(directory.join("pods-gone-eth0"), gone.to_string()).expect("write");
    let before = Snapshot::of(&a);
    let said = adopt(&a);
    assert!(said.contains("pods 1, 1 on the fast path"), "{said}");
    before.assert_unchanged(&a);
    pod.check().expect("executed").expect_success();
}
