//! Two nodes with overlay devices, in namespaces of their own. Needs root.

use std::{
    io::Read,
    net::UdpSocket,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::*;
use crate::net::{
    Netlink,
    address::Dad,
    link::{PortFlags, VethSpec, VxlanSpec},
    neighbour::Neighbour,
    netns::Netns,
    route::{Filter, PROTOCOL, Route, Tunnel},
    testing::{self, PATIENCE, echo, isolated, new_netns},
    with_netlink,
};

const PORT: u16 = 8472;
const MTU: u32 = 1300;

/// Addresses of a node: its own, and those of its pods.
struct Node {
    own: [&'static str; 2],
    pods: [&'static str; 2],
}

const NODES: [Node; 2] = [
    Node {
        own: ["192.168.1.11", "fd01::11"],
        pods: ["10.244.1.2", "fd00:1::2"],
    },
    Node {
        own: ["192.168.1.12", "fd01::12"],
        pods: ["10.244.2.2", "fd00:2::2"],
    },
];

/// Gives a link an address, and waits until it can be used.
async fn give(netlink: &Netlink, link: &str, address: &str, prefix: u8) -> Result<()> {
    let index = netlink.link(link).await?.context("link")?.index;
    netlink.set_up(index).await?;
    let ip: IpAddr = address.parse()?;
    let network = IpNetwork::new(ip, prefix)?;
    netlink.add_address(index, network, Dad::Off).await?;
    // The kernel makes the route of an IPv6 address later; what is sent before is lost.
    while netlink.route_to(ip).await?.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Sets a node up, with the other as its peer that it reaches by the address of this family.
async fn join(netlink: &Netlink, uplink: &str, this: usize, family: usize) -> Result<u32> {
    let (node, peer) = (&NODES[this], &NODES[1 - this]);
    for (family, prefix) in [(0, 24), (1, 64)] {
        give(netlink, uplink, node.own[family], prefix).await?;
        give(netlink, "lo", node.pods[family], [32, 128][family]).await?;
    }
    let spec = VxlanSpec {
        name: "overlay",
        mac: overlay_mac(node.own[family].parse()?),
        mtu: MTU,
        port: PORT,
    };
    assert!(netlink.create_vxlan(&spec).await?.1);
    let index = netlink.link("overlay").await?.context("overlay")?.index;
    let tunnel = Tunnel {
        id: 7,
        node: peer.own[family].parse()?,
    };
    for (pods, prefix) in peer.pods.into_iter().zip([24, 64]) {
        let pods = IpNetwork::new(pods.parse()?, prefix)?;
        let hop = overlay_hop(pods, tunnel.node);
        let mac = overlay_mac(tunnel.node);
        netlink
            .replace_neighbour(index, Neighbour { ip: hop, mac })
            .await?;
        netlink
            .replace_route(&Route::overlay(pods, tunnel, index))
            .await?;
    }
    Ok(index)
}

/// Runs `f` in the first of two nodes, whose tunnel is between their addresses of one family.
fn with_nodes(family: usize, f: impl AsyncFnOnce(&Netns) -> Result<()> + Send) {
    let second = new_netns();
    testing::netlink(async |netlink| {
        netlink.create_bridge("br0", Mac::random(), None).await?;
        let underlay = VethSpec {
            host_name: "veth1",
            host_mac: Mac::random(),
            container_name: "eth0",
            container_mac: Mac::random(),
            netns: second.as_fd(),
            controller: netlink.link("br0").await?.context("br0")?.index,
            mtu: None,
            port: PortFlags::default(),
            vlans: None,
        };
        netlink.create_veth(&underlay).await?;
        second.within(|| with_netlink(async |netlink| join(netlink, "eth0", 1, family).await))?;
        join(netlink, "br0", 0, family).await?;
        f(&second).await
    });
}

#[test]
fn pods_reach_each_other_through_tunnels_of_either_family() {
    for family in [0, 1] {
        with_nodes(family, async |second| {
            let [here, there] = NODES.each_ref().map(|node| node.pods);
            for (here, there) in here.into_iter().zip(there) {
                let (here, there) = (here.parse()?, there.parse()?);
                echo(here, there)?;
                second.within(|| echo(there, here))?;
            }
            Ok(())
        });
    }
}

/// The UDP headers and lengths of the tunnel's packets that came to the calling thread's namespace.
fn received(capture: &mut impl Read, header: usize) -> Result<Vec<(u16, usize)>> {
    let mut packets = Vec::new();
    let mut packet = [0; 2048];
    loop {
        match capture.read(&mut packet) {
            Ok(length) => {
                let udp = packet.get(header..length).context("header")?;
                let field = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
                if field(2) == PORT {
                    packets.push((field(6), udp.len()));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(packets),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A raw socket that sees UDP packets of a family.
fn capture(family: usize) -> Result<std::fs::File> {
    let family = [AddressFamily::Inet, AddressFamily::Inet6][family];
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw: OwnedFd = socket(family, SockType::Raw, flags, SockProtocol::Udp)?;
    Ok(raw.into())
}

#[test]
fn tunnelled_packets_have_no_checksum_and_fit_the_mtu() {
    const VXLAN: usize = 8 + 8 + 14;
    for family in [0, 1] {
        with_nodes(family, async |second| {
            for (here, there) in NODES[0].pods.into_iter().zip(NODES[1].pods) {
                echo(here.parse()?, there.parse()?)?;
                let (mut capture, server) = second.within(|| {
                    let server = UdpSocket::bind((there.parse::<IpAddr>()?, 5000))?;
                    server.set_read_timeout(Some(PATIENCE))?;
                    Ok((capture(family)?, server))
                })?;
                let client = UdpSocket::bind((here.parse::<IpAddr>()?, 0))?;
                client.send_to(&[7; 3000], (there.parse::<IpAddr>()?, 5000))?;
                let mut message = [0; 4000];
                assert_eq!(server.recv(&mut message)?, 3000);
                // Only raw IPv4 sockets show the header before.
                let packets = received(&mut capture, [20, 0][family])?;
                assert!(packets.len() >= 3, "{packets:?}");
                for (checksum, length) in packets {
                    assert_eq!(checksum, 0);
                    assert!(length <= VXLAN + MTU as usize, "{length}");
                }
            }
            Ok(())
        });
    }
}

#[test]
fn routes_and_neighbours_come_back_as_they_were_given() {
    let own = Filter {
        protocol: Some(PROTOCOL),
        ..Filter::default()
    };
    for family in [0, 1] {
        testing::netlink(async |netlink| {
            netlink.create_bridge("br0", Mac::random(), None).await?;
            let index = join(netlink, "br0", 0, family).await?;
            let tunnel = Tunnel {
                id: 7,
                node: NODES[1].own[family].parse()?,
            };
            let [v4, v6] = ["10.244.2.0/24", "fd00:2::/64"].map(|pods| pods.parse().unwrap());
            let mut listed = netlink.routes(own).await?;
            let expected = [
                Route {
                    scope: Some(0),
                    ..Route::overlay(v4, tunnel, index)
                },
                Route {
                    scope: Some(0),
                    priority: Some(1024),
                    ..Route::overlay(v6, tunnel, index)
                },
            ];
            assert_eq!(listed, expected);
            // Another VNI replaces the route rather than joining it.
            let moved = Tunnel { id: 8, ..tunnel };
            for route in &mut listed {
                route.tunnel = Some(moved);
                netlink.replace_route(route).await?;
            }
            assert_eq!(netlink.routes(own).await?, listed);
            for route in &listed {
                netlink.delete_route(route).await?;
                netlink.delete_route(route).await?;
            }
            assert_eq!(netlink.routes(own).await?, []);
            let hops = [v4, v6].map(|pods| overlay_hop(pods, tunnel.node));
            let neighbours = netlink.neighbours(index).await?;
            assert!(
                neighbours
                    .iter()
                    .all(|one| one.mac == overlay_mac(tunnel.node))
            );
            assert!(
                hops.iter()
                    .all(|hop| neighbours.iter().any(|one| one.ip == *hop))
            );
            Ok(())
        });
    }
}

#[test]
fn a_node_knows_what_it_sends_from_to_a_peer() {
    isolated(|| {
        with_netlink(async |netlink| {
            netlink.create_bridge("br0", Mac::random(), None).await?;
            for (family, prefix) in [(0, 24), (1, 64)] {
                let (own, peer) = (NODES[0].own[family], NODES[1].own[family].parse()?);
                assert_eq!(netlink.source_to(peer).await?, None);
                give(netlink, "br0", own, prefix).await?;
                assert_eq!(netlink.source_to(peer).await?, Some(own.parse()?));
            }
            Ok(())
        })
    });
}
