//! Paths that are narrower than the pods' links: what does not fit is reported by the stack, and the pods learn.

use std::sync::Arc;

use beeline_tests::datapath::{TO_PEER, growth};
use beeline_tests::icmp::{Echo, Problem};
use beeline_tests::node::Node;
use beeline_tests::plan::{Families, Family};
use beeline_tests::pod::Pod;
use beeline_tests::sockopt::path_mtu;
use beeline_tests::topology::{Topology, TopologySpec};
use beeline_tests::traffic::{tcp_pair, tcp_transfer, transfer, udp_echo};

use crate::fixture::{build, is_fast, nodes_with, spec};

/// An uplink's, narrower than the 1500 bytes of pods' links.
const NARROW: u32 = 1400;

/// Two nodes with uplinks of these MTUs, and pods of both families.
#[track_caller]
fn nodes(mtus: [u32; 2]) -> (Topology, [Arc<Node>; 2]) {
    let topology = build(&TopologySpec {
        families: Families::Dual,
        mtus: mtus.into(),
        ..spec(2)
    });
    let nodes = topology.take();
    (topology, nodes)
}

#[track_caller]
fn configure_mtu(node: &Node, mtu: u32) {
    let config = node.config().with(|plugin| plugin["mtu"] = mtu.into());
    config.install().expect("install");
}

/// A request whose IP packet has so many bytes.
fn of_size(target: &Pod, family: Family, bytes: u32) -> Echo {
    let headers = match family {
        Family::V4 => 20 + 8,
        Family::V6 => 40 + 8,
    };
    Echo {
        size: bytes as usize - headers,
        ..Echo::to(target.ip_of(family))
    }
}

#[test]
fn what_does_not_fit_the_uplink_is_reported_with_its_mtu() {
    let (_topology, [a, b]) = nodes([NARROW, NARROW]);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    for family in Families::Dual.list() {
        let fits = client.echo(&of_size(&server, *family, NARROW));
        fits.assert_received();
        for bytes in [NARROW + 1, 1500] {
            // Between pods that have not learned yet.
            let (one, other) = (a.add_pod("one"), b.add_pod("other"));
            for (from, to) in [(&one, &other), (&other, &one)] {
                let ping = from.echo(&of_size(to, *family, bytes));
                let expected = [(Problem::TooBig(NARROW), from.gateway_of(*family))];
                assert_eq!(ping.errors, expected, "{bytes} bytes: {ping}");
            }
            // By now they have, and cut into fragments themselves.
            one.echo(&of_size(&other, *family, bytes)).assert_received();
        }
    }
}

#[test]
fn a_connection_finds_the_mtu_of_its_path() {
    let (_topology, [a, b]) = nodes([NARROW, NARROW]);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    for family in Families::Dual.list() {
        let (from, to) = (client.namespace(), server.namespace());
        let ends = tcp_pair(from, to, server.ip_of(*family)).expect("connect");
        let before = a.counters().expect("counters");
        transfer(&ends[0], &ends[1], 16 << 20).expect("there");
        transfer(&ends[1], &ends[0], 16 << 20).expect("back");
        for end in &ends {
            assert_eq!(path_mtu(end).expect("path MTU"), NARROW, "{family:?}");
        }
        let grown = growth(&before, &a.counters().expect("counters"));
        // As packets that will be cut into segments, of up to 64 KiB.
        let direct = grown.get(TO_PEER).copied().unwrap_or_default();
        assert_eq!(direct >= 256, is_fast(&a), "{family:?}: {grown:?}");
    }
}

#[test]
fn large_datagrams_arrive_in_fragments_both_ways_by_all_families() {
    let (_topology, [a, b]) = nodes([NARROW, NARROW]);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let payload: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
    let exchange = |from: &Pod, to: &Pod, family| {
        let ip = to.ip_of(family);
        udp_echo(from.namespace(), to.namespace(), ip, &payload).expect("UDP");
    };
    // An IPv4 router cuts the fragments again.
    exchange(&client, &server, Family::V4);
    exchange(&server, &client, Family::V4);
    // An IPv6 router does not: the senders must have learned.
    client.echo(&of_size(&server, Family::V6, 1500));
    server.echo(&of_size(&client, Family::V6, 1500));
    exchange(&client, &server, Family::V6);
    exchange(&server, &client, Family::V6);
}

#[test]
fn large_datagrams_arrive_in_fragments_on_one_node_by_all_families() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let payload: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
    for ip in server.ips() {
        udp_echo(client.namespace(), server.namespace(), *ip, &payload).expect("UDP");
    }
}

#[test]
fn transfers_between_nodes_of_different_mtus_do_not_stall() {
    let (_topology, [wide, narrow]) = nodes([1500, NARROW]);
    configure_mtu(&narrow, NARROW);
    let (one, other) = (wide.add_pod("one"), narrow.add_pod("other"));
    for family in Families::Dual.list() {
        for (from, to) in [(&one, &other), (&other, &one)] {
            let ip = to.ip_of(*family);
            tcp_transfer(from.namespace(), to.namespace(), ip, 16 << 20)
                .unwrap_or_else(|error| panic!("{} to {ip}: {error:#}", from.name()));
        }
    }
}

#[test]
fn transfers_between_pods_of_different_mtus_on_one_node_do_not_stall() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let wide = node.add_pod("wide");
    configure_mtu(&node, NARROW);
    let narrow = node.add_pod("narrow");
    for family in Families::Dual.list() {
        for (from, to) in [(&wide, &narrow), (&narrow, &wide)] {
            let ip = to.ip_of(*family);
            tcp_transfer(from.namespace(), to.namespace(), ip, 16 << 20)
                .unwrap_or_else(|error| panic!("{} to {ip}: {error:#}", from.name()));
        }
    }
}

#[test]
fn pods_take_the_mtu_of_the_configuration() {
    let (_topology, [a, b]) = nodes([NARROW, NARROW]);
    for node in [&a, &b] {
        configure_mtu(node, NARROW);
    }
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    for family in Families::Dual.list() {
        let (from, to) = (client.namespace(), server.namespace());
        let ends = tcp_pair(from, to, server.ip_of(*family)).expect("connect");
        assert_eq!(path_mtu(&ends[0]).expect("path MTU"), NARROW);
        transfer(&ends[0], &ends[1], 4 << 20).expect("transfer");
    }
}
