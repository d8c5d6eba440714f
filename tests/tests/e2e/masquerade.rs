//! Whose address the other side sees.

use beeline_tests::topology::OUTSIDE;
use beeline_tests::traffic::{tcp_echo, udp_echo};

use crate::fixture::{one_node, two_nodes};

#[test]
fn the_outside_sees_the_nodes_address() {
    let (topology, node) = one_node();
    let pod = node.add_pod("pod");
    pod.ping(OUTSIDE, 2).assert_received();
    let seen = tcp_echo(pod.namespace(), topology.outside(), OUTSIDE, b"hello").expect("TCP");
    assert_eq!(seen.ip(), node.address());
    let seen = udp_echo(pod.namespace(), topology.outside(), OUTSIDE, b"hello").expect("UDP");
    assert_eq!(seen.ip(), node.address());
}

#[test]
fn a_pod_on_another_node_sees_the_pods_own_address() {
    let (_topology, [a, b]) = two_nodes();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let seen = tcp_echo(
        client.namespace(),
        server.namespace(),
        server.ip(),
        b"hello",
    )
    .expect("TCP");
    assert_eq!(seen.ip(), client.ip());
    let seen = udp_echo(
        client.namespace(),
        server.namespace(),
        server.ip(),
        b"hello",
    )
    .expect("UDP");
    assert_eq!(seen.ip(), client.ip());
}

#[test]
fn without_ip_masq_nothing_is_translated() {
    let (_topology, node) = one_node();
    node.config()
        .with(|plugin| plugin["ipMasq"] = false.into())
        .install()
        .expect("install");
    let pod = node.add_pod("pod");
    // The outside host has no route to pods: a reply would prove a translation.
    assert_eq!(pod.ping(OUTSIDE, 1).received(), 0);
}
