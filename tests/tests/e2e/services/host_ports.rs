//! Host ports, as the reference `portmap` plugin keeps them when it is chained.

use std::net::IpAddr;
use std::sync::Arc;

use beeline_tests::config::Config;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::plan::{Families, Family};
use beeline_tests::pod::Pod;
use beeline_tests::services::Protocol;
use beeline_tests::topology::Topology;
use serde_json::json;

use super::{Served, Server, Services, assert_direct_is_fast, combinations};
use crate::fixture::nodes_with;

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
