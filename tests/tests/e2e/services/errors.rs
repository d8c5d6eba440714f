//! Refusals and ICMP errors: they reach who caused them, through translations and past firewalls that drop what belongs
//! to no connection they know.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use beeline_tests::icmp::Echo;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::plan::Families;
use beeline_tests::pod::Pod;
use beeline_tests::services::{Protocol, cluster_ip, translate_all};
use beeline_tests::sockopt::path_mtu;
use beeline_tests::topology::{Topology, TopologySpec};
use beeline_tests::traffic::{any, tcp_pair, timeout, transfer, udp_socket};

use super::{Services, combinations};
use crate::fixture::{build, nodes_with, spec};

/// A client, a pod beside it and one on another node.
fn pods() -> (Topology, [Arc<Node>; 2], [Pod; 3]) {
    let (topology, [a, b]) = nodes_with(Families::Dual);
    let pods = [a.add_pod("client"), a.add_pod("near"), b.add_pod("far")];
    (topology, [a, b], pods)
}

/// Asks where nobody answers; returns how that ended.
fn ask(client: &Namespace, protocol: Protocol, to: SocketAddr) -> io::Result<()> {
    client.within(|| match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&to, timeout()).map(drop),
        Protocol::Udp => {
            let socket = UdpSocket::bind((any(to.ip()), 0))?;
            socket.set_read_timeout(Some(timeout()))?;
            socket.connect(to)?;
            socket.send(b"hello")?;
            socket.recv(&mut [0; 8]).map(drop)
        }
    })
}

#[track_caller]
fn assert_refused(client: &Namespace, protocol: Protocol, to: SocketAddr) {
    let error = ask(client, protocol, to).expect_err("nobody answers");
    let kind = error.kind();
    assert_eq!(
        kind,
        ErrorKind::ConnectionRefused,
        "{to} {protocol:?}: {error}"
    );
}

#[test]
fn a_closed_port_behind_a_service_is_refused_at_once() {
    let (_topology, [a, b], [client, near, far]) = pods();
    let mut services = Services::default();
    // The servers end at once.
    let services_of = |pod, services: &mut Services| {
        let served = services.serve_in(pod, None).into_iter();
        served.map(|one| one.service).collect::<Vec<_>>()
    };
    let closed = [&near, &far].map(|pod| services_of(pod, &mut services));
    services.install(&[&a, &b]);
    for service in closed.iter().flatten() {
        for _ in 0..2 {
            assert_refused(client.namespace(), service.protocol, service.portal);
        }
    }
}

#[test]
fn a_closed_port_of_a_pod_is_refused_at_once() {
    let (_topology, [a, b], [client, near, far]) = pods();
    Services::default().install(&[&a, &b]);
    for (family, protocol) in combinations() {
        for pod in [&near, &far] {
            for port in [81, 82] {
                let to = (pod.ip_of(family), port).into();
                assert_refused(client.namespace(), protocol, to);
            }
        }
    }
}

#[test]
fn a_hop_limit_that_runs_out_on_the_other_node_is_reported() {
    let (_topology, [a, b], [client, _, far]) = pods();
    Services::default().install(&[&a, &b]);
    for family in Families::Dual.list() {
        let echo = Echo::to(far.ip_of(*family));
        client.echo(&echo).assert_received();
        for (ttl, from) in [(1, a.gateway_of(*family)), (2, b.address_of(*family))] {
            let ping = client.echo(&Echo {
                ttl,
                ..echo.clone()
            });
            assert_eq!(ping.time_exceeded(), [from], "hop limit {ttl}: {ping}");
        }
    }
}

#[test]
fn an_echo_to_a_translated_address_is_answered() {
    let (_topology, [a, _], [client, near, far]) = pods();
    for family in Families::Dual.list() {
        for (number, pod) in [&near, &far].into_iter().enumerate() {
            let from = cluster_ip(*family, number as u32);
            translate_all(&a, from, pod.ip_of(*family)).expect("rules");
            client.ping(from, 3).assert_received();
            client.ping(pod.ip_of(*family), 3).assert_received();
            client.ping(from, 3).assert_received();
        }
    }
}

#[test]
fn a_direct_connection_finds_the_mtu_of_its_path() {
    let topology = build(&TopologySpec {
        families: Families::Dual,
        mtus: vec![1400, 1400],
        ..spec(2)
    });
    let [a, b] = topology.take();
    let (client, server) = (a.add_pod("client"), b.add_pod("server"));
    Services::default().install(&[&a, &b]);
    for ip in server.ips() {
        let (from, to) = (client.namespace(), server.namespace());
        let ends = tcp_pair(from, to, *ip).expect("connect");
        transfer(&ends[0], &ends[1], 4 << 20).expect("there");
        transfer(&ends[1], &ends[0], 4 << 20).expect("back");
        for end in &ends {
            assert_eq!(path_mtu(end).expect("path MTU"), 1400);
        }
    }
}

#[test]
fn small_datagrams_and_fragments_of_one_flow_all_arrive() {
    let (_topology, [a, b], [client, near, far]) = pods();
    Services::default().install(&[&a, &b]);
    for ip in near.ips().iter().chain(far.ips()) {
        let pod = if near.ips().contains(ip) { &near } else { &far };
        let server = udp_socket(pod.namespace(), *ip).expect("socket");
        let client = udp_socket(client.namespace(), any(*ip)).expect("socket");
        client
            .connect(server.local_addr().expect("address"))
            .expect("connect");
        let mut buffer = vec![0; 9000];
        for (there, back) in [
            (1, 1),
            (1, 8000),
            (1, 1),
            (8000, 1),
            (1, 1),
            (8000, 8000),
            (1, 1),
        ] {
            client.send(&buffer[..there]).expect("send");
            let (length, asked) = server.recv_from(&mut buffer).expect("request");
            assert_eq!(length, there);
            server.send_to(&buffer[..back], asked).expect("send");
            assert_eq!(client.recv(&mut buffer).expect("reply"), back);
        }
    }
}
