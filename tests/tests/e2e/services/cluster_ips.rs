//! Services by their cluster IPs, translated on the client's node.

use std::thread;
use std::time::Duration;

use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::sockopt::path_mtu;
use beeline_tests::topology::TopologySpec;
use beeline_tests::traffic::{accept, any, connect, transfer, udp_echo_by, udp_socket};

use super::{Served, Server, Services, assert_direct_is_fast, with_hairpin};
use crate::fixture::{build, nodes_with, spec};

/// Asserts that the client reaches the servers by their cluster IPs, and that they see the client itself.
#[track_caller]
fn assert_served(client: &Pod, served: &[Served]) {
    for one in served {
        let seen = one.by_portal(client.namespace());
        assert_eq!(seen, client.ip_of(one.family()));
    }
}

#[test]
fn a_service_is_served_by_a_pod_of_the_same_node() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    let (client, server) = (node.add_pod("client"), node.add_pod("server"));
    let mut services = Services::default();
    let served = services.serve_in(&server, None);
    services.install(&[&node]);
    assert_served(&client, &served);
    assert_direct_is_fast(&client, &server, &served);
    assert_served(&client, &served);
}

#[test]
fn a_service_is_served_by_a_pod_of_another_node() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let mut services = Services::default();
    let served = services.serve_in(&server, None);
    services.install(&[&a, &b]);
    assert_served(&client, &served);
    assert_direct_is_fast(&client, &server, &served);
    assert_served(&client, &served);
}

#[test]
fn pods_serve_each_other_at_once() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let pods = [a.add_pod("one"), a.add_pod("two"), b.add_pod("three")];
    let mut services = Services::default();
    let served: Vec<_> = pods
        .iter()
        .map(|pod| services.serve_in(pod, None))
        .collect();
    services.install(&[&a, &b]);
    for client in &pods {
        let others = pods.iter().zip(&served);
        for (server, served) in others.filter(|(server, _)| server.ip() != client.ip()) {
            assert_served(client, served);
            assert_direct_is_fast(client, server, served);
        }
    }
}

#[test]
fn a_pod_reaches_itself_by_its_service() {
    let (_topology, [node]) = nodes_with(Families::Dual);
    with_hairpin(&node);
    let pod = node.add_pod("pod");
    let mut services = Services::default();
    let served = services.serve_in(&pod, None);
    services.install(&[&node]);
    for one in &served {
        let seen = one.by_portal(pod.namespace());
        assert_eq!(seen, node.gateway_of(one.family()), "masqueraded");
    }
}

#[test]
fn a_service_is_served_by_a_node() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let (near, far) = (a.add_pod("near"), b.add_pod("far"));
    let mut services = Services::default();
    let served = services.serve(a.netns(), |family| a.address_of(family), None);
    services.install(&[&a, &b]);
    for one in &served {
        let seen = one.by_portal(near.namespace());
        assert_eq!(seen, near.ip_of(one.family()));
        let seen = one.by_portal(far.namespace());
        assert_eq!(seen, b.address_of(one.family()), "masqueraded");
    }
}

#[test]
fn a_node_is_served_by_pods() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let pods = [a.add_pod("near"), b.add_pod("far")];
    let mut services = Services::default();
    let served: Vec<_> = pods
        .iter()
        .map(|pod| services.serve_in(pod, None))
        .collect();
    services.install(&[&a, &b]);
    for one in served.iter().flatten() {
        one.by_portal(a.netns());
    }
}

#[test]
fn one_socket_asks_by_a_service_and_directly() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let client = a.add_pod("client");
    let servers = [a.add_pod("near"), b.add_pod("far")];
    let mut services = Services::default();
    let served = servers.each_ref().map(|pod| services.serve_in(pod, None));
    services.install(&[&a, &b]);
    for Served { server, service } in served.iter().flatten() {
        let Server::Udp(server) = server else {
            continue;
        };
        let (direct, portal) = (server.local_addr().expect("address"), service.portal);
        // The server sees one client, but the client two servers.
        let socket = udp_socket(client.namespace(), any(portal.ip())).expect("socket");
        for to in [portal, direct, portal, portal, direct, direct] {
            let mut buffer = [0; 8];
            socket.send_to(b"hello", to).expect("send");
            let (_, asked) = server.recv_from(&mut buffer).expect("request");
            server.send_to(b"hello", asked).expect("send");
            let (_, from) = socket.recv_from(&mut buffer).expect("reply");
            assert_eq!(from, to);
        }
    }
}

#[test]
fn a_large_datagram_goes_to_a_service_and_back() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let client = a.add_pod("client");
    let servers = [a.add_pod("near"), b.add_pod("far")];
    let mut services = Services::default();
    let served = servers.each_ref().map(|pod| services.serve_in(pod, None));
    services.install(&[&a, &b]);
    let payload: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
    for Served { server, service } in served.iter().flatten() {
        if let Server::Udp(server) = server {
            udp_echo_by(client.namespace(), server, service.portal, &payload).expect("UDP");
        }
    }
}

#[test]
fn a_connection_to_a_service_finds_the_mtu_of_its_path() {
    let topology = build(&TopologySpec {
        families: Families::Dual,
        mtus: vec![1400, 1400],
        ..spec(2)
    });
    let [a, b] = topology.take();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    let mut services = Services::default();
    let served = services.serve_in(&server, None);
    services.install(&[&a, &b]);
    for Served { server, service } in &served {
        if let Server::Tcp(listener) = server {
            let end = connect(client.namespace(), service.portal).expect("connect");
            let other = accept(listener).expect("accept");
            transfer(&end, &other, 4 << 20).expect("request");
            transfer(&other, &end, 4 << 20).expect("reply");
            for end in [&end, &other] {
                assert_eq!(path_mtu(end).expect("path MTU"), 1400);
            }
        }
    }
}

#[test]
fn a_connection_to_a_service_lives_on_when_it_was_idle() {
    let (_topology, [a, b]) = nodes_with(Families::Dual);
    let client = a.add_pod("client");
    let servers = [a.add_pod("near"), b.add_pod("far")];
    let mut services = Services::default();
    let served: Vec<_> = servers
        .iter()
        .flat_map(|pod| services.serve_in(pod, None))
        .collect();
    services.install(&[&a, &b]);
    let mut connections = Vec::new();
    for Served { server, service } in &served {
        if let Server::Tcp(listener) = server {
            let end = connect(client.namespace(), service.portal).expect("connect");
            connections.push((end, accept(listener).expect("accept")));
        }
    }
    assert_eq!(connections.len(), 4, "near and far, of both families");
    for (from, to) in &connections {
        transfer(from, to, 1 << 20).expect("request");
    }
    thread::sleep(Duration::from_secs(1));
    for (to, from) in &connections {
        transfer(from, to, 1 << 20).expect("the server first");
        transfer(to, from, 1 << 20).expect("then the client");
    }
}
