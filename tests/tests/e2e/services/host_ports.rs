//! Host ports, as the reference `portmap` plugin keeps them when it is chained.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use beeline_tests::config::Config;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::plan::{Families, Family};
use beeline_tests::pod::Pod;
use beeline_tests::services::Protocol;
use beeline_tests::topology::{OUTSIDE, Topology};
use beeline_tests::traffic::{any, udp_socket};
use serde_json::json;

use super::{Served, Server, Services, assert_direct_is_fast, combinations};
use crate::fixture::{nodes_with, two_nodes};

/// The port of the node, and that of the pod.
const PORTS: (u16, u16) = (8080, 80);

/// Two nodes whose pods may have host ports, and kube-proxy's rules without Services.
fn nodes() -> (Topology, [Arc<Node>; 2]) {
    let (topology, nodes) = nodes_with(Families::Dual);
    for node in &nodes {
        configure(node.config());
    }
    Services::default().install(&nodes.each_ref());
    (topology, nodes)
}

/// Installs a configuration with `portmap` behind the plugin.
#[track_caller]
fn configure(config: Config<'_>) {
    let portmap = json!({
        "type": "portmap", "snat": true, "capabilities": { "portMappings": true },
    });
    config.chain(portmap).install().expect("install");
}

/// A pod behind the node's ports of all protocols.
fn add_server(node: &Arc<Node>) -> Pod {
    let (host, container) = PORTS;
    let mapping = |protocol: Protocol| json!({ "hostPort": host, "containerPort": container, "protocol": protocol.name() });
    let mappings = Protocol::ALL.map(mapping);
    node.add_pod_with("server", json!({ "portMappings": mappings }))
}

/// Has servers in the pod asked by the node's ports; returns what they saw.
#[track_caller]
fn asked(server: &Pod, client: &Namespace) -> Vec<(Family, IpAddr)> {
    let (host, container) = PORTS;
    let ask = |(family, protocol)| {
        let at = (server.ip_of(family), container).into();
        let started = Server::start(server.namespace(), protocol, at);
        let by = (server.node().address_of(family), host).into();
        (family, started.asked(client, by))
    };
    combinations().map(ask).collect()
}

#[test]
fn another_pod_of_the_node_reaches_a_host_port() {
    let (_topology, [node, _]) = nodes();
    let (client, server) = (node.add_pod("client"), add_server(&node));
    for (family, seen) in asked(&server, client.namespace()) {
        // The plugin takes all pods of the subnet for the server itself.
        assert_eq!(seen, node.gateway_of(family), "masqueraded");
    }
    let direct: Vec<Served> = Services::default().serve_in(&server, None);
    assert_direct_is_fast(&client, &server, &direct);
}

#[test]
fn a_pod_reaches_its_own_host_port() {
    let (_topology, [node, _]) = nodes();
    let config = node.config();
    configure(config.with(|plugin| plugin["hairpinMode"] = true.into()));
    let server = add_server(&node);
    for (family, seen) in asked(&server, server.namespace()) {
        assert_eq!(seen, node.gateway_of(family), "masqueraded");
    }
}

#[test]
fn a_pod_of_another_node_reaches_a_host_port() {
    let (_topology, [a, b]) = nodes();
    let (client, server) = (a.add_pod("client"), add_server(&b));
    for (family, seen) in asked(&server, client.namespace()) {
        assert_eq!(seen, a.address_of(family), "masqueraded");
    }
    let direct: Vec<Served> = Services::default().serve_in(&server, None);
    assert_direct_is_fast(&client, &server, &direct);
}

#[test]
fn a_pod_of_another_node_that_does_not_masquerade_reaches_a_host_port() {
    let (_topology, [a, b]) = nodes();
    let config = a.config();
    configure(config.with(|plugin| plugin["ipMasq"] = false.into()));
    let (client, server) = (a.add_pod("client"), add_server(&b));
    for (family, seen) in asked(&server, client.namespace()) {
        assert_eq!(seen, client.ip_of(family));
    }
    let direct: Vec<Served> = Services::default().serve_in(&server, None);
    assert_direct_is_fast(&client, &server, &direct);
}

#[test]
fn nodes_and_the_outside_reach_a_host_port() {
    let (topology, [a, b]) = nodes();
    let server = add_server(&b);
    for client in [a.netns(), b.netns(), topology.outside()] {
        asked(&server, client);
    }
}

#[test]
fn del_closes_the_host_port() {
    let (_topology, [a, b]) = nodes();
    let (client, server) = (a.add_pod("client"), add_server(&b));
    asked(&server, client.namespace());
    server.delete().expect("DEL");
    let rules = |program: &str| {
        let mut command = b.netns().command(program);
        beeline_tests::exec::stdout(command.args(["-t", "nat"])).expect(program)
    };
    for program in ["iptables-save", "ip6tables-save"] {
        let left = rules(program);
        assert!(!left.contains("--dport 8080"), "{left}");
    }
}

/// Port mappings as containerd hands them over: its structs have no JSON tags (cni.md, section 1).
fn add_server_of_containerd(node: &Arc<Node>) -> Pod {
    let config = node.config().with(|plugin| {
        plugin["hairpinMode"] = true.into();
        // Beeline gets them too.
        plugin["capabilities"] = json!({ "portMappings": true });
    });
    configure(config);
    let (host, container) = PORTS;
    let mapping = |protocol: Protocol| {
        json!({
            "HostPort": host, "ContainerPort": container, "Protocol": protocol.name(), "HostIP": "",
        })
    };
    let mappings = Protocol::ALL.map(mapping);
    node.add_pod_with("server", json!({ "portMappings": mappings }))
}

/// Has IPv4 servers in the pod asked by an address and the node's port.
#[track_caller]
fn asked_by(server: &Pod, client: &Namespace, by: IpAddr) {
    let (host, container) = PORTS;
    for protocol in Protocol::ALL {
        let at = (server.ip_of(Family::V4), container).into();
        let started = Server::start(server.namespace(), protocol, at);
        started.asked(client, (by, host).into());
    }
}

#[test]
fn a_host_port_that_containerd_asks_for_works_from_everywhere() {
    let (topology, [a, b]) = nodes();
    let server = add_server_of_containerd(&b);
    let (near, far) = (b.add_pod("near"), a.add_pod("far"));
    let localhost = Ipv4Addr::LOCALHOST.into();
    asked_by(&server, b.netns(), localhost);
    let clients = [&near, &far, &server].map(Pod::namespace);
    let nodes = [a.netns(), b.netns(), topology.outside()];
    for client in clients.into_iter().chain(nodes) {
        asked_by(&server, client, b.address_of(Family::V4));
    }
}

#[test]
fn a_host_port_leaves_alone_what_is_not_for_the_node() {
    let (topology, [a, b]) = nodes();
    let (_mapped, other, far) = (add_server(&b), b.add_pod("other"), a.add_pod("far"));
    let (port, _) = PORTS;
    for protocol in Protocol::ALL {
        // Another pod listens at the same number; to the node that is no local address.
        let to = SocketAddr::new(other.ip_of(Family::V4), port);
        let started = Server::start(other.namespace(), protocol, to);
        for client in [far.namespace(), a.netns(), b.netns()] {
            started.asked(client, to);
        }
        // So does the outside, for a pod of the node.
        let to = SocketAddr::new(OUTSIDE, port);
        let started = Server::start(topology.outside(), protocol, to);
        started.asked(other.namespace(), to);
    }
}

/// Sends from a socket until the server hears it, and answers.
#[track_caller]
fn heard(client: &UdpSocket, by: SocketAddr, server: &Pod) {
    let (_, container) = PORTS;
    let at = (server.ip(), container).into();
    let started = Server::start(server.namespace(), Protocol::Udp, at);
    let Server::Udp(socket) = &started else {
        unreachable!("a UDP server was started")
    };
    // What a former server left may refuse the socket's next call.
    let _ = client.take_error();
    client.send_to(b"hello", by).expect("send");
    let mut buffer = [0; 16];
    let (length, asked) = socket.recv_from(&mut buffer).expect("heard by the server");
    socket.send_to(&buffer[..length], asked).expect("answer");
    let (length, from) = client.recv_from(&mut buffer).expect("answered");
    assert_eq!((&buffer[..length], from), (&b"hello"[..], by));
}

#[test]
fn a_udp_client_that_goes_on_reaches_each_next_pod_behind_the_host_port() {
    let (topology, [_, node]) = two_nodes();
    configure(node.config());
    let (host, _) = PORTS;
    let by = SocketAddr::new(node.address(), host);
    let client = udp_socket(topology.outside(), any(by.ip())).expect("socket");
    // The node remembers a flow that leads nowhere; portmap has to make it forget.
    client.send_to(b"too early", by).expect("send");
    for _ in 0..2 {
        let server = add_server(&node);
        heard(&client, by, &server);
        server.delete().expect("DEL");
    }
}
