//! Addresses from a DHCP server, through the distribution's `dhcp` plugin and its daemon.

use std::sync::Arc;

use beeline_tests::datapath::TO_POD;
use beeline_tests::dhcp::{Daemon, SERVER, Server};
use beeline_tests::node::Node;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::traffic::tcp_echo;
use serde_json::json;

use crate::datapath::assert_no_slow_path;
use crate::fixture::{configure, fast_node, one_node};
use crate::refusals::{refused, sandbox};

/// A node whose pods get their addresses from a server.
fn with_server(node: &Arc<Node>) -> (Server, Daemon) {
    let server = Server::start(node).expect("server");
    let daemon = Daemon::start(node).expect("daemon");
    configure(node, |plugin| {
        plugin["ipam"] = daemon.ipam();
        // The gateway is elsewhere.
        plugin["isGateway"] = json!(false);
    });
    (server, daemon)
}

#[test]
fn a_lease_is_obtained_kept_and_given_back() {
    let (_topology, node) = one_node();
    let (server, daemon) = with_server(&node);
    let pod = node.add_pod("pod");
    let ip = pod.ip();
    server.wait_for_leases(&[ip]).expect("leased");
    assert_eq!(pod.gateway(), SERVER);
    let expected = json!([{ "dst": "0.0.0.0/0", "gw": SERVER }]);
    assert_eq!(pod.result()["routes"], expected);
    pod.check().expect("executed").expect_success();
    // Neighbours see the pod itself, also where bridged packets pass netfilter and could be masqueraded.
    let seen = tcp_echo(pod.namespace(), server.namespace(), SERVER, b"hello");
    assert_eq!(seen.expect("TCP").ip(), ip);
    // Nothing was said before the interface worked, which the daemon would have waited seconds after.
    assert!(!daemon.log().contains("retrying"), "{}", daemon.log());

    // The first is the reply to the ADD's request.
    server.wait_for("DHCPACK", ip, 3).expect("renewed twice");
    server.wait_for_leases(&[ip]).expect("leased");
    pod.ping(SERVER, 1).assert_received();

    assert_eq!(server.logged("DHCPRELEASE", ip), 0);
    pod.delete().expect("DEL");
    server.wait_for("DHCPRELEASE", ip, 1).expect("released");
    server.wait_for_leases(&[]).expect("no lease");
    let log = daemon.log();
    assert!(!log.contains("failed to release"), "{log}");
}

#[test]
fn pods_with_leases_reach_each_other_by_the_fast_path() {
    let (_topology, node) = fast_node();
    let (server, _daemon) = with_server(&node);
    let (one, two) = (node.add_pod("one"), node.add_pod("two"));
    assert_ne!(one.ip(), two.ip());
    let grown = assert_no_slow_path(&node, &one, two.ip());
    assert!(grown.contains(&TO_POD.to_owned()), "{grown:?}");
    // The server is no pod, and is asked for longer leases all the same.
    one.ping(SERVER, 1).assert_received();
    for pod in [&one, &two] {
        server.wait_for("DHCPACK", pod.ip(), 2).expect("renewed");
    }
    two.ping(one.ip(), 1).assert_received();
}

#[test]
fn a_pod_with_a_lease_leaves_nothing_on_the_node() {
    let (_topology, node) = one_node();
    let (server, _daemon) = with_server(&node);
    let _first = node.add_pod("first");
    let before = Snapshot::of(&node);
    let mut second = node.add_pod("second");
    let ip = second.ip();
    second.detach().expect("executed").expect_success();
    before.assert_unchanged(&node);
    // The daemon has forgotten it by now.
    second.detach().expect("executed").expect_success();
    assert_eq!(server.logged("DHCPRELEASE", ip), 1);
}

#[test]
fn a_del_without_the_namespace_ends_the_lease_without_a_word_to_the_server() {
    let (_topology, node) = one_node();
    let (_server, daemon) = with_server(&node);
    let mut pod = node.add_pod("pod");
    beeline_tests::netns::remove(pod.namespace().name()).expect("remove");
    pod.detach().expect("executed").expect_success();
    assert!(daemon.log().contains("releasing lease"), "{}", daemon.log());
}

#[test]
fn an_add_without_a_daemon_fails_without_a_trace() {
    let (_topology, node) = one_node();
    let (_namespace, attachment) = sandbox(&node);
    let mut stdin = node.config().stdin();
    let socket = node.directory().join("nobody.sock");
    stdin["ipam"] = json!({ "type": "dhcp", "daemonSocketPath": socket });
    let message = refused(&node, &attachment, &stdin.to_string(), &[999]);
    assert!(message.contains("nobody.sock"), "{message}");
}

#[test]
fn an_add_that_fails_after_the_lease_was_obtained_gives_it_back() {
    let (_topology, node) = one_node();
    let (server, daemon) = with_server(&node);
    let config = node.config().with(|plugin| {
        plugin["ipam"] = daemon.ipam();
        // Of the gateway that the server names; it is in use on the bridge by then, with another prefix length.
        plugin["isGateway"] = json!(true);
    });
    let conflict = "address add 10.99.0.2/16 dev v-net-0".to_owned();
    beeline_tests::exec::ip_batch(node.netns(), &[conflict]).expect("ip");
    let (_namespace, attachment) = sandbox(&node);
    let message = refused(&node, &attachment, &config.stdin().to_string(), &[7]);
    assert!(message.contains("already has an IP address"), "{message}");
    server.wait_for_leases(&[]).expect("no lease");
}
