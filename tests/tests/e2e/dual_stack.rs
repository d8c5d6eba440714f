//! IPv6, alone and beside IPv4.

use std::net::IpAddr;

use beeline_tests::datapath::{FROM_UPLINK, TO_PEER, TO_POD};
use beeline_tests::exec;
use beeline_tests::icmp::{self, Echo};
use beeline_tests::netns::Namespace;
use beeline_tests::node::BRIDGE;
use beeline_tests::plan::{self, Families, Family};
use beeline_tests::pod::Pod;
use beeline_tests::slowpath::Proof;
use beeline_tests::traffic::{tcp_echo, tcp_transfer, udp_echo};
use serde_json::Value;

use crate::datapath::assert_no_slow_path;
use crate::fixture::nodes_with;
use crate::refusals::sandbox;

/// All combinations of families that have IPv6.
const WITH_V6: [Families; 2] = [Families::V6, Families::Dual];

/// Everything that a pod shall be able to do with another; the other sees the pod's own address.
#[track_caller]
fn assert_reaches(client: &Pod, server: &Pod) {
    for ip in server.ips() {
        let own = client.ip_of(plan::family(*ip));
        client.ping(*ip, 2).assert_received();
        let (from, to) = (client.namespace(), server.namespace());
        let seen = tcp_echo(from, to, *ip, b"hello").expect("TCP");
        assert_eq!(seen.ip(), own, "TCP");
        let seen = udp_echo(from, to, *ip, b"hello").expect("UDP");
        assert_eq!(seen.ip(), own, "UDP");
        tcp_transfer(from, to, *ip, 4 << 20).expect("transfer");
    }
}

fn ip_json(namespace: &Namespace, arguments: &[&str]) -> Vec<Value> {
    let mut command = namespace.command("ip");
    exec::json(command.arg("-json").args(arguments)).expect("ip")
}

#[test]
fn pods_of_one_node_reach_each_other_by_all_families() {
    for families in WITH_V6 {
        let (_topology, [node]) = nodes_with(families);
        let (client, server) = (node.add_pod("client"), node.add_pod("server"));
        assert_eq!(client.ips().len(), families.list().len());
        assert_reaches(&client, &server);
        assert_reaches(&server, &client);
    }
}

#[test]
fn pods_of_two_nodes_reach_each_other_by_all_families() {
    for families in WITH_V6 {
        let (_topology, [a, b]) = nodes_with(families);
        let (client, server) = (a.add_pod("client"), b.add_pod("server"));
        assert_reaches(&client, &server);
        assert_reaches(&server, &client);
    }
}

#[test]
fn a_node_and_its_pods_reach_each_other_by_all_families() {
    let (_topology, [node, other]) = nodes_with(Families::Dual);
    let (pod, far) = (node.add_pod("pod"), other.add_pod("far"));
    for family in Families::Dual.list() {
        let (ip, address) = (pod.ip_of(*family), node.address_of(*family));
        pod.ping(pod.gateway_of(*family), 2).assert_received();
        pod.ping(address, 2).assert_received();
        icmp::ping(node.netns(), &Echo::to(ip)).assert_received();
        tcp_echo(pod.namespace(), node.netns(), address, b"to the node").expect("TCP");
        tcp_echo(node.netns(), pod.namespace(), ip, b"to the pod").expect("TCP");
        udp_echo(node.netns(), pod.namespace(), ip, b"to the pod").expect("UDP");
        icmp::ping(node.netns(), &Echo::to(far.ip_of(*family))).assert_received();
    }
}

#[test]
fn the_outside_sees_the_nodes_address_of_all_families() {
    let (topology, [node]) = nodes_with(Families::Dual);
    let pod = node.add_pod("pod");
    for family in Families::Dual.list() {
        let outside = plan::outside(*family);
        pod.ping(outside, 2).assert_received();
        let seen = tcp_echo(pod.namespace(), topology.outside(), outside, b"hello").expect("TCP");
        assert_eq!(seen.ip(), node.address_of(*family));
        let seen = udp_echo(pod.namespace(), topology.outside(), outside, b"hello").expect("UDP");
        assert_eq!(seen.ip(), node.address_of(*family));
    }
}

#[test]
fn no_address_is_tentative_after_add() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let pod = node.add_pod("pod");
    for (namespace, link) in [(pod.namespace(), "eth0"), (node.netns(), BRIDGE)] {
        let links = ip_json(namespace, &["address", "show", "dev", link]);
        let addresses = links[0]["addr_info"].as_array().expect("addresses");
        let of_family = |family: &str| addresses.iter().any(|a| a["family"] == family);
        assert!(of_family("inet") && of_family("inet6"), "{addresses:?}");
        let tentative: Vec<_> = addresses
            .iter()
            .filter(|a| a["tentative"] == true)
            .collect();
        assert!(tentative.is_empty(), "{link}: {tentative:?}");
    }
}

#[test]
fn the_first_packet_from_another_node_arrives() {
    let (_topology, [a, b]) = nodes_with(Families::V6);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    // No neighbour knows another yet, and nothing is sent twice.
    client.ping(server.ip(), 1).assert_received();
}

#[test]
fn a_pod_has_a_default_route_of_each_family_by_its_gateway() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let pod = node.add_pod("pod");
    for (flag, family) in [("-4", Family::V4), ("-6", Family::V6)] {
        let routes = ip_json(pod.namespace(), &[flag, "route", "show", "default"]);
        let gateways: Vec<_> = routes.iter().map(|route| &route["gateway"]).collect();
        assert_eq!(gateways, [&node.gateway_of(family).to_string()]);
        let on_bridge = ip_json(node.netns(), &[flag, "address", "show", "dev", BRIDGE]);
        let addresses = on_bridge[0]["addr_info"].as_array().expect("addresses");
        let local = node.gateway_of(family).to_string();
        assert!(
            addresses.iter().any(|a| a["local"] == local),
            "{addresses:?}"
        );
    }
}

#[test]
fn the_kernel_has_a_route_to_each_cidr_of_a_peer() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let _pod = a.add_pod("pod");
    for (cidr, family) in b.pod_cidrs().iter().zip(Families::Dual.list()) {
        let flag = if cidr.is_ipv4() { "-4" } else { "-6" };
        let routes = ip_json(a.netns(), &[flag, "route", "show", &cidr.to_string()]);
        assert_eq!(routes.len(), 1, "{cidr}: {routes:?}");
        assert_eq!(routes[0]["gateway"], b.address_of(*family).to_string());
    }
}

#[test]
fn pods_discover_their_neighbours() {
    let (_topology, [node]) = nodes_with(Families::V6);
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    client.ping(server.ip(), 1).assert_received();
    let lladdr = |of: &Pod, ip: IpAddr| {
        let found = ip_json(of.namespace(), &["neighbour", "show", &ip.to_string()]);
        found.first().map(|entry| entry["lladdr"].clone())
    };
    assert_eq!(lladdr(&client, server.ip()), Some(server.mac().into()));
    // Again and unasked: an entry that is stale is probed by unicast.
    let refresh = ["neighbour", "flush", "dev", "eth0"];
    exec::stdout(client.namespace().command("ip").args(refresh)).expect("flush");
    client.ping(server.ip(), 1).assert_received();
}

#[test]
fn packets_between_pods_of_one_node_take_the_fast_path_by_all_families() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    for ip in server.ips() {
        let grown = assert_no_slow_path(&node, &client, *ip);
        assert!(grown.contains(&TO_POD.to_owned()), "{ip}: {grown:?}");
    }
}

#[test]
fn packets_between_nodes_take_the_fast_path_on_both_by_all_families() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    for ip in server.ips() {
        for node in [&a, &b] {
            let grown = assert_no_slow_path(node, &client, *ip);
            for counter in [TO_PEER, FROM_UPLINK] {
                let counted = grown.contains(&counter.to_owned());
                assert!(
                    counted,
                    "{}, {ip}: {counter} is not in {grown:?}",
                    node.name()
                );
            }
        }
    }
}

#[test]
fn the_proof_sees_every_packet_of_a_plain_bridge_by_all_families() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    if !a.plugin().is_reference() {
        a.config().mode("bridge").install().expect("install");
        b.config().mode("bridge").install().expect("install");
    }
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    let proof = Proof::begin(&a).expect("proof");
    for family in Families::Dual.list() {
        let before = proof.read().expect("proof");
        client.ping(near.ip_of(*family), 5).assert_received();
        client.ping(far.ip_of(*family), 5).assert_received();
        let took = proof.read().expect("proof") - before;
        assert_eq!((took.bridged, took.routed), (10, 10), "{family:?}: {took}");
    }
    proof.end().expect("proof");
}

#[test]
fn a_hop_limit_is_kept_on_one_node_and_decremented_by_each_on_the_way() {
    let (_topology, [a, b]) = nodes_with(Families::V6);
    let (client, near, far) = (a.add_pod("client"), a.add_pod("near"), b.add_pod("far"));
    let ping = client.ping(near.ip(), 2);
    assert_eq!(ping.assert_received().ttls, [64, 64]);
    let ping = client.ping(far.ip(), 2);
    assert_eq!(ping.assert_received().ttls, [62, 62]);
    for (ttl, from) in [(1, a.gateway()), (2, b.address())] {
        let ping = client.echo(&Echo {
            ttl,
            ..Echo::to(far.ip())
        });
        assert_eq!(ping.time_exceeded(), [from], "hop limit {ttl}: {ping}");
    }
}

#[test]
fn del_releases_the_addresses_of_all_families() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let pod = node.add_pod("pod");
    assert_eq!(node.reserved().len(), 2);
    pod.check().expect("executed").expect_success();
    pod.delete().expect("DEL");
    assert_eq!(node.reserved(), [] as [IpAddr; 0]);
}

#[test]
fn a_pod_whose_namespace_has_ipv6_off_gets_it() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let neighbour = node.add_pod("neighbour");
    let (namespace, attachment) = sandbox(&node);
    let result = node.runtime().add(&attachment).expect("executed");
    let result = result.expect_success();
    for ip in neighbour.ips() {
        icmp::ping(&namespace, &Echo::to(*ip)).assert_received();
    }
    let del = node.runtime().del(&attachment, Some(&result));
    del.expect("executed").expect_success();
}
