//! Pods behind translated addresses: flows that the stack translates stay in the stack both ways, and direct flows of the
//! same pods stay on the fast path.
//!
//! Each test goes through all families and protocols, with the rules that kube-proxy keeps and kubelet's settings.

mod cluster_ips;
mod errors;
mod host_ports;
mod node_ports;

use std::io::ErrorKind::AddrInUse;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beeline_tests::datapath::{TO_PEER, TO_POD, growth};
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::plan::{Families, Family, family};
use beeline_tests::pod::Pod;
use beeline_tests::services::{Policy, Protocol, Service, cluster_ip, install};
use beeline_tests::slowpath::Proof;
use beeline_tests::traffic::{ROUNDS, tcp_echo_by, timeout, udp_echo_by};

use crate::fixture::is_fast;

/// All families and protocols.
fn combinations() -> impl Iterator<Item = (Family, Protocol)> {
    let families = Families::Dual.list().iter();
    families.flat_map(|family| Protocol::ALL.map(|protocol| (*family, protocol)))
}

/// A program that answers.
enum Server {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Server {
    /// Starts one inside a namespace; port 0 is any.
    #[track_caller]
    fn start(namespace: &Namespace, protocol: Protocol, at: SocketAddr) -> Self {
        let bind = || match protocol {
            Protocol::Tcp => TcpListener::bind(at).map(Self::Tcp),
            Protocol::Udp => UdpSocket::bind(at).map(Self::Udp),
        };
        let deadline = Instant::now() + timeout();
        let server = loop {
            match namespace.within(bind) {
                // A child of another test may have a former server's socket until it executes its program.
                Err(error) if error.kind() == AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                server => break server,
            }
        };
        let server = server.unwrap_or_else(|e| panic!("{} {at}: {e}", namespace.name()));
        if let Self::Udp(socket) = &server {
            socket.set_read_timeout(Some(timeout())).expect("timeout");
        }
        server
    }

    fn address(&self) -> SocketAddr {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        };
        address.expect("a bound socket has an address")
    }

    /// Has a client ask for it by an address; returns the client's address as the server saw it.
    #[track_caller]
    fn asked(&self, client: &Namespace, by: SocketAddr) -> IpAddr {
        let (seen, protocol) = match self {
            Self::Tcp(listener) => (tcp_echo_by(client, listener, by, b"hello"), "TCP"),
            Self::Udp(socket) => (udp_echo_by(client, socket, by, b"hello"), "UDP"),
        };
        let who = client.name();
        let seen = seen.unwrap_or_else(|error| panic!("{who} asks {by}/{protocol}: {error:#}"));
        seen.ip()
    }
}

/// A server and the Service that leads to it.
struct Served {
    server: Server,
    service: Service,
}

impl Served {
    fn family(&self) -> Family {
        family(self.service.portal.ip())
    }

    /// Asks by the cluster IP.
    #[track_caller]
    fn by_portal(&self, client: &Namespace) -> IpAddr {
        self.server.asked(client, self.service.portal)
    }

    /// Asks by a node's port.
    #[track_caller]
    fn by_port_of(&self, node: &Node, client: &Namespace) -> IpAddr {
        let (port, _) = self.service.node_port.expect("a node port");
        let by = (node.address_of(self.family()), port).into();
        self.server.asked(client, by)
    }
}

/// The Services of a test.
#[derive(Default)]
struct Services(Vec<Service>);

impl Services {
    /// Starts a server for each family and protocol, and names a Service for each.
    #[track_caller]
    fn serve(
        &mut self,
        namespace: &Namespace,
        ip: impl Fn(Family) -> IpAddr,
        node_port: Option<Policy>,
    ) -> Vec<Served> {
        let serve = |(family, protocol): (Family, Protocol)| {
            let server = Server::start(namespace, protocol, (ip(family), 0).into());
            let service = self.name(family, protocol, server.address(), node_port);
            Served { server, service }
        };
        combinations().map(serve).collect()
    }

    /// The same for servers in a pod.
    #[track_caller]
    fn serve_in(&mut self, pod: &Pod, node_port: Option<Policy>) -> Vec<Served> {
        self.serve(pod.namespace(), |family| pod.ip_of(family), node_port)
    }

    fn name(
        &mut self,
        family: Family,
        protocol: Protocol,
        backend: SocketAddr,
        node_port: Option<Policy>,
    ) -> Service {
        let number = self.0.len() as u16;
        let service = Service {
            name: format!("test/s{number}"),
            protocol,
            portal: (cluster_ip(family, number.into()), 80).into(),
            backends: vec![backend],
            node_port: node_port.map(|policy| (30000 + number, policy)),
        };
        self.0.push(service.clone());
        service
    }

    /// Has nodes serve them.
    #[track_caller]
    fn install(&self, nodes: &[&Arc<Node>]) {
        for node in nodes {
            install(node, &self.0).unwrap_or_else(|error| panic!("{}: {error:#}", node.name()));
        }
    }
}

/// Lets the bridge send a packet back to the pod it comes from. A pod reaches itself by its Service only so: bridged
/// packets pass iptables, hence the bridge forwards what they translate, from the pod's port to the same.
#[track_caller]
fn with_hairpin(node: &Node) {
    let config = node.config();
    let config = config.with(|plugin| plugin["hairpinMode"] = true.into());
    config.install().expect("install");
}

/// Asserts that a client and servers in a pod talk directly on the fast path of all nodes between them.
#[track_caller]
fn assert_direct_is_fast(client: &Pod, pod: &Pod, served: &[Served]) {
    let mut nodes = vec![client.node(), pod.node()];
    nodes.dedup_by_key(|node| node.index());
    let counter = if nodes.len() == 1 { TO_POD } else { TO_PEER };
    let proofs: Vec<_> = nodes
        .iter()
        .map(|node| Proof::begin(node).expect("proof"))
        .collect();
    let counters = || client.node().counters().expect("counters");
    let before = counters();
    for Served { server, .. } in served {
        let seen = server.asked(client.namespace(), server.address());
        assert!(client.ips().contains(&seen), "{seen}");
    }
    let direct = growth(&before, &counters()).get(counter).copied();
    for (proof, node) in proofs.into_iter().zip(&nodes) {
        let took = proof.read().expect("proof");
        let name = node.name();
        let slow = took.pod_to_pod();
        assert_eq!(slow == 0, is_fast(node), "{name}: direct, yet {took}");
        proof.end().expect("proof");
    }
    let packets = ROUNDS * served.len() as u64;
    let counted = direct.is_some_and(|direct| direct >= packets);
    assert_eq!(counted, is_fast(client.node()), "{counter}: {direct:?}");
}
