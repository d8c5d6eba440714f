//! Host ports of a runtime's pods, with the reference `portmap` plugin behind beeline.

use std::net::{IpAddr, Ipv4Addr};

use beeline_tests::exec;
use beeline_tests::plan::Families;
use k8s_cri::v1::{PortMapping, Protocol};
use serde_json::json;

use crate::containerd::Containerd;
use crate::fixture::{fetch, nodes};
use crate::pod::{self, Pod};

const HOST_PORT: u16 = 8080;

#[test]
fn a_host_port_leads_to_its_pod_until_that_stops() {
    let (topology, [node, other]) = nodes(Families::V4);
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let config = node
        .config()
        .with(|plugin| plugin["hairpinMode"] = true.into());
    config.chain(portmap).install().expect("install");
    let containerd = Containerd::start(&node);
    let mut config = pod::config(&containerd, "server");
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: 80,
        host_port: HOST_PORT.into(),
        host_ip: String::new(),
    }];
    let (server, near) = (
        Pod::with(&containerd, &config),
        Pod::run(&containerd, "near"),
    );
    let on_other = Containerd::start(&other);
    let far = Pod::run(&on_other, "far");

    let by = node.address();
    for from in [topology.outside(), other.netns(), node.netns()] {
        fetch(from, (by, HOST_PORT).into()).unwrap_or_else(|error| panic!("{error:#}"));
    }
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    fetch(node.netns(), (localhost, HOST_PORT).into()).expect("by 127.0.0.1");
    for pod in [&near, &far, &server] {
        pod.fetch(by, HOST_PORT);
    }
    // Direct flows of the same pods are none of the stack's.
    near.fetch(server.ip(), 80);
    far.fetch(server.ip(), 80);

    server.delete();
    let refused = fetch(topology.outside(), (by, HOST_PORT).into());
    assert!(refused.is_err(), "the port leads somewhere still");
    let rules = exec::stdout(&mut node.netns().command("iptables-save")).expect("iptables-save");
    assert!(!rules.contains(&format!("--dport {HOST_PORT}")), "{rules}");
    near.ping(far.ip(), 2);
}
