//! `macspoofchk`: what a pod sends with a MAC that is not its own reaches nobody.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use beeline::net::mac::Mac;
use beeline_common as abi;
use beeline_common::testing::{Transport, packet};
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::wire::Wire;

use crate::fixture::{one_node, two_nodes};

const FORGED: &str = "02:bb:bb:bb:bb:bb";

/// The port that the testing packets of UDP are for.
const PORT: u16 = 80;

fn install(node: &Node, macspoofchk: bool) {
    let config = node.config().version("1.1.0");
    config
        .with(|plugin| plugin["macspoofchk"] = macspoofchk.into())
        .install()
        .expect("install");
}

fn mac(text: &str) -> abi::Mac {
    let Mac(octets) = text.parse().expect("MAC");
    abi::Mac(octets)
}

/// A server that waits for datagrams.
fn server(pod: &Pod) -> UdpSocket {
    let socket = pod
        .namespace()
        .within(|| UdpSocket::bind((pod.ip(), PORT)).expect("bind"));
    let timeout = Some(Duration::from_millis(500));
    socket.set_read_timeout(timeout).expect("timeout");
    socket
}

/// Whether a datagram from `client`, in a frame between these MACs, arrives.
fn arrives(client: &Pod, source: &str, destination: &str, server: &UdpSocket) -> bool {
    let to = server.local_addr().expect("address").ip();
    let datagram = packet(client.ip(), to).transport(Transport::Udp);
    let frame = datagram.macs(mac(source), mac(destination)).frame();
    let wire = Wire::open(client.namespace(), "eth0").expect("wire");
    wire.send(&frame.bytes).expect("send a frame");
    match server.recv_from(&mut [0; 64]) {
        Ok((_, from)) => {
            assert_eq!(from.ip(), client.ip());
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

fn bridge_mac(pod: &Pod) -> &str {
    pod.result()["interfaces"][0]["mac"].as_str().expect("MAC")
}

/// Whether `client`'s forged frames reach a pod on its node, and one on another; its honest ones shall.
fn forged_frames_arrive(client: &Pod, near: &Pod, far: &Pod) -> [bool; 2] {
    [(near, near.mac()), (far, bridge_mac(client))].map(|(pod, next)| {
        let server = server(pod);
        client.ping(pod.ip(), 1).assert_received();
        let forged = arrives(client, FORGED, next, &server);
        assert!(arrives(client, client.mac(), next, &server), "honest");
        forged
    })
}

#[test]
fn forged_frames_reach_nobody_and_honest_ones_all() {
    let (_topology, [node, other]) = two_nodes();
    let far = other.add_pod("far");
    install(&node, true);
    let (client, near) = (node.add_pod("client"), node.add_pod("near"));
    assert_eq!(forged_frames_arrive(&client, &near, &far), [false; 2]);
    client.check().expect("executed").expect_success();
}

#[test]
fn without_the_check_forged_frames_arrive() {
    let (_topology, [node, other]) = two_nodes();
    let far = other.add_pod("far");
    install(&node, false);
    let (client, near) = (node.add_pod("client"), node.add_pod("near"));
    assert_eq!(forged_frames_arrive(&client, &near, &far), [true; 2]);
}

#[test]
fn check_fails_when_the_rules_are_gone() {
    let (_topology, node) = one_node();
    install(&node, true);
    let pod = node.add_pod("pod");
    exec::nft(node.netns(), "flush chain bridge nat PREROUTING").expect("nft");
    let message = pod.check().expect("executed").expect_error(&[999]);
    assert!(message.contains("macspoofchk"), "{message}");
}

/// A node with a pod, so that what the checks of all pods share is there, and how it looks.
fn with_a_pod() -> (beeline_tests::topology::Topology, Arc<Node>, Pod, Snapshot) {
    let (topology, node) = one_node();
    install(&node, true);
    let first = node.add_pod("first");
    let before = Snapshot::of(&node);
    (topology, node, first, before)
}

#[test]
fn del_removes_the_rules_even_if_the_configuration_does_not_ask_for_them_any_more() {
    let (_topology, node, first, before) = with_a_pod();
    let second = node.add_pod("second");
    assert!(!before.diff(&Snapshot::of(&node)).is_empty());
    install(&node, false);
    second.delete().expect("DEL");
    before.assert_unchanged(&node);
    first.check().expect("executed").expect_success();
}

#[test]
fn del_removes_the_rules_when_the_namespace_is_gone() {
    let (_topology, node, _first, before) = with_a_pod();
    let mut second = node.add_pod("second");
    beeline_tests::netns::remove(second.namespace().name()).expect("remove");
    second.detach().expect("executed").expect_success();
    let left = before.diff(&Snapshot::of(&node));
    assert!(!left.contains("macspoofchk"), "{left}");
}

#[test]
fn gc_removes_the_rules_of_pods_that_are_not_listed() {
    let (_topology, node, first, before) = with_a_pod();
    let _stale = node.add_pod("stale");
    node.runtime()
        .gc(&[first.attachment()])
        .expect("executed")
        .expect_success();
    before.assert_unchanged(&node);
}
