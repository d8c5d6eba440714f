//! Nodes that are no neighbours: packets between their pods take the overlay.

use std::sync::Arc;

use beeline_tests::datapath::{TO_OVERLAY, growth};
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::plan::{Families, Family, Underlay};
use beeline_tests::pod::Pod;
use beeline_tests::snapshot::Snapshot;
use beeline_tests::topology::{Topology, TopologySpec};
use beeline_tests::traffic::{tcp_echo, tcp_transfer, udp_echo};
use serde_json::json;

use crate::fixture::{build, spec};

const FROM_OVERLAY: &str = "from_overlay/to_pod";

/// Two nodes with a router between them, and an overlay.
pub(crate) fn nodes(families: Families) -> (Topology, [Arc<Node>; 2]) {
    let topology = build(&TopologySpec {
        families,
        underlay: Underlay::Router,
        ..spec(2)
    });
    let nodes: [Arc<Node>; 2] = topology.take();
    for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        configure(node, other, 7, "auto");
    }
    (topology, nodes)
}

/// Tunnels join nodes by their addresses of one family, which is the first of those that they have.
fn configure(node: &Node, other: &Node, vni: u32, mode: &str) {
    let cidrs = other.pod_cidrs().iter();
    let peers = cidrs.map(|cidr| json!({"cidr": cidr, "node": other.address()}));
    let peers: Vec<_> = peers.collect();
    let config = node.config().mode(mode).with(|plugin| {
        plugin["datapath"]["overlay"] = json!({"type": "vxlan", "vni": vni});
        plugin["datapath"]["peers"] = json!(peers);
    });
    config.install().expect("install");
}

/// All kinds of traffic, both ways.
#[track_caller]
fn assert_reach(one: &Pod, other: &Pod, family: Family) {
    for (from, to) in [(one, other), (other, one)] {
        let (client, server, ip) = (from.namespace(), to.namespace(), to.ip_of(family));
        from.ping(ip, 2).assert_received();
        let seen = tcp_echo(client, server, ip, b"hello").expect("TCP");
        assert_eq!(seen.ip(), from.ip_of(family));
        udp_echo(client, server, ip, b"hello").expect("UDP");
        tcp_transfer(client, server, ip, 4 << 20).expect("transfer");
        let large: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
        udp_echo(client, server, ip, &large).expect("UDP in fragments");
    }
}

#[test]
fn pods_behind_routers_reach_each_other_by_the_fast_path() {
    let (_topology, [a, b]) = nodes(Families::Dual);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    assert_eq!(client.add_stderr(), "");
    for family in Families::Dual.list() {
        let before = [&a, &b].map(|node| node.counters().expect("counters"));
        client.ping(server.ip_of(*family), 5).assert_received();
        for (node, before) in [&a, &b].into_iter().zip(&before) {
            let grown = growth(before, &node.counters().expect("counters"));
            for counter in [TO_OVERLAY, FROM_OVERLAY] {
                let packets = grown.get(counter).copied().unwrap_or_default();
                assert!(packets >= 5, "{counter}: {grown:?}");
            }
        }
        assert_reach(&client, &server, *family);
    }
}

#[test]
fn nodes_of_ipv6_only_have_an_overlay_as_well() {
    let (_topology, [a, b]) = nodes(Families::V6);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    assert_eq!(client.add_stderr(), "");
    let before = a.counters().expect("counters");
    assert_reach(&client, &server, Family::V6);
    let grown = growth(&before, &a.counters().expect("counters"));
    assert!(grown.contains_key(TO_OVERLAY), "{grown:?}");
}

#[test]
fn a_peer_by_an_address_of_the_other_family_is_a_problem_that_is_said() {
    let (_topology, [a, b]) = nodes(Families::Dual);
    let peers = [Family::V4, Family::V6].map(|family| {
        let cidr = b.pod_cidrs()[family as usize];
        json!({"cidr": cidr, "node": b.address_of(family)})
    });
    let config = a.config().with(|plugin| {
        plugin["datapath"]["overlay"] = json!({"type": "vxlan"});
        plugin["datapath"]["peers"] = json!(peers);
    });
    config.install().expect("install");
    let stderr = a.add_pod("pod").add_stderr().to_owned();
    assert!(stderr.contains("of one family"), "{stderr}");
}

#[test]
fn the_slow_path_takes_the_overlay_too() {
    let (_topology, [a, b]) = nodes(Families::Dual);
    // One node with and one without programs.
    configure(&a, &b, 7, "bridge");
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    for family in Families::Dual.list() {
        assert_reach(&client, &server, *family);
    }
}

#[test]
fn nodes_reach_pods_of_others_by_the_overlay() {
    let (_topology, [a, b]) = nodes(Families::V4);
    let (_client, server) = (a.add_pod("client"), b.add_pod("server"));
    tcp_echo(a.netns(), server.namespace(), server.ip(), b"to the pod").expect("TCP");
}

#[test]
fn pods_links_leave_room_for_the_overlays_headers() {
    let (_topology, [a, _b]) = nodes(Families::V4);
    let pod = a.add_pod("pod");
    let mut show = pod.namespace().command("ip");
    let links: serde_json::Value =
        exec::json(show.args(["-json", "link", "show", "eth0"])).expect("links");
    assert_eq!(links[0]["mtu"], 1450);
}

#[test]
fn another_networks_packets_are_dropped() {
    let (_topology, [a, b]) = nodes(Families::V4);
    configure(&b, &a, 8, "auto");
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    assert_eq!(client.ping(server.ip(), 2).received(), 0);
    let counters = b.counters().expect("counters");
    let dropped = counters.get("from_overlay/drop_foreign_vni");
    assert!(dropped.is_some_and(|packets| *packets >= 2), "{counters:?}");
}

#[test]
fn what_the_overlay_sends_meets_the_ipsec_policies_between_nodes() {
    let (_topology, [a, b]) = nodes(Families::V4);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let before = a.counters().expect("counters");
    client.ping(server.ip(), 1).assert_received();
    // No key is agreed on, so the kernel sends nothing rather than plain text.
    let policy = format!(
        "xfrm policy add src {}/32 dst {}/32 dir out tmpl proto esp mode transport",
        a.address(),
        b.address()
    );
    exec::stdout(a.netns().command("ip").args(policy.split(' '))).expect("policy");
    assert_eq!(client.ping(server.ip(), 2).received(), 0);
    // By the fast path nevertheless: it is the tunnel's own packets that are held back.
    let grown = growth(&before, &a.counters().expect("counters"));
    assert!(
        grown.get(TO_OVERLAY).is_some_and(|packets| *packets >= 3),
        "{grown:?}"
    );
}

#[test]
fn neighbours_take_the_overlay_only_if_told_to() {
    let topology = build(&spec(2));
    let [a, b]: [Arc<Node>; 2] = topology.take();
    for (always, counter) in [(false, "from_pod/to_peer"), (true, TO_OVERLAY)] {
        let overlay = json!({"type": "vxlan", "always": always});
        for node in [&a, &b] {
            let config = node
                .config()
                .with(|plugin| plugin["datapath"]["overlay"] = overlay.clone());
            config.install().expect("install");
        }
        // The configuration changes beside a running pod, whose link keeps the MTU that it has.
        let (client, server) = (a.add_pod("client"), b.add_pod("server"));
        let before = a.counters().expect("counters");
        client.ping(server.ip(), 3).assert_received();
        let grown = growth(&before, &a.counters().expect("counters"));
        assert!(
            grown.get(counter).is_some_and(|packets| *packets >= 3),
            "{grown:?}"
        );
        tcp_transfer(client.namespace(), server.namespace(), server.ip(), 1 << 20).expect("TCP");
    }
}

#[test]
fn an_overlay_whose_port_is_taken_fails_the_add_without_a_trace() {
    let (_topology, [a, _b]) = nodes(Families::V4);
    let _holder = a
        .netns()
        .within(|| std::net::UdpSocket::bind("0.0.0.0:8472"))
        .expect("bind");
    let before = Snapshot::of(&a);
    let error = a.try_add_pod("pod").expect_err("the port is taken");
    assert!(format!("{error:#}").contains("8472"), "{error:#}");
    before.assert_unchanged(&a);
}
