//! Who reaches whom.

use std::time::Duration;

use beeline_tests::icmp::{self, Echo};
use beeline_tests::plan::{self, Families, Underlay};
use beeline_tests::topology::TopologySpec;
use beeline_tests::traffic::{tcp_echo, tcp_transfer, udp_echo};

use crate::fixture::{build, one_node, spec, topology, two_nodes};

#[test]
fn pods_on_one_node_reach_each_other() {
    let (_topology, node) = one_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    client.ping(server.ip(), 3).assert_received();
    server.ping(client.ip(), 3).assert_received();
    let (from, to) = (client.namespace(), server.namespace());
    let seen = tcp_echo(from, to, server.ip(), b"hello").expect("TCP");
    assert_eq!(seen.ip(), client.ip(), "the server sees the pod itself");
    let seen = udp_echo(from, to, server.ip(), b"hello").expect("UDP");
    assert_eq!(seen.ip(), client.ip(), "the server sees the pod itself");
}

#[test]
fn pods_on_two_nodes_reach_each_other() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    client.ping(server.ip(), 3).assert_received();
    server.ping(client.ip(), 3).assert_received();
    tcp_echo(
        client.namespace(),
        server.namespace(),
        server.ip(),
        b"hello",
    )
    .expect("TCP");
    udp_echo(
        client.namespace(),
        server.namespace(),
        server.ip(),
        b"hello",
    )
    .expect("UDP");
}

#[test]
fn all_pods_of_three_nodes_reach_all_others() {
    let topology = topology(3);
    let pods: Vec<_> = topology
        .nodes()
        .iter()
        .flat_map(|n| [n.add_pod("pod1"), n.add_pod("pod2")])
        .collect();
    for from in &pods {
        for to in pods.iter().filter(|to| to.ip() != from.ip()) {
            from.ping(to.ip(), 2).assert_received();
        }
    }
}

#[test]
fn a_node_and_its_pods_reach_each_other() {
    let (_topology, node) = one_node();
    let pod = node.add_pod("pod");
    pod.ping(pod.gateway(), 2).assert_received();
    pod.ping(node.address(), 2).assert_received();
    icmp::ping(node.netns(), &Echo::to(pod.ip())).assert_received();
    tcp_echo(
        pod.namespace(),
        node.netns(),
        node.gateway(),
        b"to the node",
    )
    .expect("TCP to the gateway");
    tcp_echo(
        pod.namespace(),
        node.netns(),
        node.address(),
        b"to the node",
    )
    .expect("TCP to the node address");
    tcp_echo(node.netns(), pod.namespace(), pod.ip(), b"to the pod").expect("TCP to the pod");
    udp_echo(node.netns(), pod.namespace(), pod.ip(), b"to the pod").expect("UDP to the pod");
}

#[test]
fn a_node_reaches_the_pods_of_another() {
    let (_topology, [a, b]) = two_nodes();
    let _local = a.add_pod("local");
    let pod = b.add_pod("pod");
    icmp::ping(a.netns(), &Echo::to(pod.ip())).assert_received();
    tcp_echo(a.netns(), pod.namespace(), pod.ip(), b"to the pod").expect("TCP");
}

#[test]
fn a_large_transfer_arrives_unchanged_on_one_node() {
    let (_topology, node) = one_node();
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    tcp_transfer(
        client.namespace(),
        server.namespace(),
        server.ip(),
        64 << 20,
    )
    .expect("transfer");
}

#[test]
fn a_large_transfer_arrives_unchanged_across_nodes() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    tcp_transfer(
        client.namespace(),
        server.namespace(),
        server.ip(),
        64 << 20,
    )
    .expect("there");
    tcp_transfer(
        server.namespace(),
        client.namespace(),
        client.ip(),
        16 << 20,
    )
    .expect("back");
}

#[test]
fn a_node_behind_a_router_is_reached_but_not_its_pods() {
    let topology = build(&TopologySpec {
        families: Families::Dual,
        underlay: Underlay::Router,
        ..spec(2)
    });
    let [a, b] = topology.take();
    let (pod, far) = (a.add_pod("pod"), b.add_pod("far"));
    assert!(
        pod.add_stderr().contains("behind a router"),
        "stderr says why: {:?}",
        pod.add_stderr()
    );
    for family in Families::Dual.list() {
        let ping = icmp::ping(a.netns(), &Echo::to(b.address_of(*family)));
        assert_eq!(ping.assert_received().ttls, [63], "the router's one less");
        pod.ping(b.address_of(*family), 1).assert_received();
        pod.ping(plan::outside(*family), 1).assert_received();
        let ping = pod.echo(&Echo {
            timeout: Duration::from_millis(300),
            ..Echo::to(far.ip_of(*family))
        });
        assert_eq!(
            ping.received(),
            0,
            "the router has no route to pods: {ping}"
        );
    }
}
