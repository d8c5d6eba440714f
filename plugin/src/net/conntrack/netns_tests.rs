//! Connections in namespaces of their own, which nftables translates. Needs root.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::ensure;

use super::*;
use crate::net::{
    Netlink,
    address::Dad,
    testing::{self, PATIENCE},
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A Service and the address of the pod behind it, in each family.
const SERVICES: [[&str; 2]; 2] = [["10.96.0.1", "10.244.1.2"], ["fd96::1", "fd00:1::2"]];

/// Makes both of a service's addresses the namespace's own, and translates the service to the pod.
async fn serve(netlink: &Netlink) -> Result<()> {
    let loopback = netlink.link("lo").await?.context("lo")?.index;
    netlink.set_up(loopback).await?;
    let mut rules = String::new();
    for [service, pod] in SERVICES {
        let family = if service.contains(':') { "ip6" } else { "ip" };
        rules += &format!("{family} daddr {service} dnat {family} to {pod}; ");
        for address in [service, pod] {
            let ip: IpAddr = address.parse()?;
            netlink.add_address(loopback, ip.into(), Dad::Off).await?;
            // The kernel makes the route of an IPv6 address later; what is sent before is lost.
            while netlink.route_to(ip).await?.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    let chain = format!("chain output {{ type nat hook output priority -100; {rules} }}");
    let status = Command::new("nft")
        .arg(format!("table inet proxy {{ {chain}\n }}"))
        .status()?;
    ensure!(status.success(), "nft");
    Ok(())
}

/// The connection that was begun from this port (or with this identifier) to this address.
fn find(protocol: u8, port: u16, to: IpAddr) -> Result<Connection> {
    let found = connections()?.into_iter().find(|connection| {
        let original = &connection.original;
        (
            original.protocol,
            original.source_port,
            original.destination,
        ) == (protocol, port, to)
    });
    found.with_context(|| format!("connection from port {port} to {to}"))
}

/// Checks that a connection to a service is translated to its pod, and that one to the pod itself is not.
fn check(connection: &Connection, to: IpAddr, service: bool, pod: IpAddr) {
    let (original, reply) = (&connection.original, &connection.reply);
    assert_eq!(original.destination, to);
    assert_eq!(reply.source, pod);
    assert_eq!(reply.destination, original.source);
    assert_eq!(reply.protocol, original.protocol);
    assert_eq!(reply.source_port, original.destination_port);
    assert_eq!(reply.destination_port, original.source_port);
    assert_eq!(connection.translated, service);
}

/// Runs `f` for each service's address and each pod's, which it is told apart by the second argument.
fn each_target(mut f: impl FnMut(IpAddr, bool, IpAddr) -> Result<()> + Send) {
    testing::netlink(async |netlink| {
        serve(netlink).await?;
        for [service, pod] in SERVICES {
            let pod = pod.parse()?;
            f(service.parse()?, true, pod)?;
            f(pod, false, pod)?;
        }
        let known: HashSet<_> = translated()?.iter().map(|one| one.original).collect();
        assert!(!known.is_empty());
        assert!(connections()?.len() > known.len());
        Ok(())
    });
}

#[test]
fn a_tcp_connection_has_its_ports_and_its_state() {
    each_target(|to, service, pod| {
        let listener = TcpListener::bind((pod, 0))?;
        let port = listener.local_addr()?.port();
        let mut client = TcpStream::connect((to, port))?;
        let (mut server, _) = listener.accept()?;
        client.write_all(&[1])?;
        server.read_exact(&mut [0])?;
        let from = client.local_addr()?.port();
        let open = find(TCP, from, to)?;
        assert_eq!(open.original.destination_port, port);
        assert_eq!(open.tcp, Some(TcpState::Established));
        check(&open, to, service, pod);
        client.shutdown(std::net::Shutdown::Write)?;
        server.read_to_end(&mut Vec::new())?;
        assert_eq!(find(TCP, from, to)?.tcp, Some(TcpState::Closing));
        drop(server);
        client.read_to_end(&mut Vec::new())?;
        assert_eq!(find(TCP, from, to)?.tcp, Some(TcpState::Closed));
        Ok(())
    });
}

#[test]
fn a_udp_flow_has_its_ports() {
    each_target(|to, service, pod| {
        let server = UdpSocket::bind((pod, 0))?;
        server.set_read_timeout(Some(PATIENCE))?;
        let client = UdpSocket::bind(SocketAddr::new(pod, 0))?;
        let port = server.local_addr()?.port();
        client.send_to(&[1], (to, port))?;
        server.recv(&mut [0])?;
        let flow = find(UDP, client.local_addr()?.port(), to)?;
        assert_eq!(flow.original.destination_port, port);
        assert_eq!(flow.tcp, None);
        check(&flow, to, service, pod);
        Ok(())
    });
}

#[test]
fn echoes_have_their_identifier() {
    each_target(|to, service, pod| {
        let protocol = if to.is_ipv4() { ICMP } else { ICMPV6 };
        let identifier = testing::echo(pod, to)?;
        let flow = find(protocol, identifier, to)?;
        assert_eq!(flow.original.destination_port, identifier);
        check(&flow, to, service, pod);
        Ok(())
    });
}

#[test]
fn a_table_that_fills_many_datagrams_is_read_to_the_end() {
    const FLOWS: u16 = 10_000;
    testing::netlink(async |netlink| {
        serve(netlink).await?;
        let mut expected = HashSet::new();
        for [service, pod] in SERVICES {
            let client = UdpSocket::bind((pod.parse::<IpAddr>()?, 0))?;
            let service: IpAddr = service.parse()?;
            for port in 1..=FLOWS {
                client.send_to(&[1], (service, port))?;
                expected.insert((service, port));
            }
        }
        let read: HashSet<_> = translated()?
            .iter()
            .map(|flow| (flow.original.destination, flow.original.destination_port))
            .collect();
        assert_eq!(read.len(), expected.len());
        assert!(read == expected);
        Ok(())
    });
}

#[test]
fn a_namespace_without_connections_has_none() {
    testing::isolated(|| {
        assert_eq!(connections()?, []);
        Ok(())
    });
}
