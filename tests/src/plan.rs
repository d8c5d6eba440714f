//! Who has which address: the users' own 192.168.1.11… and 10.244.N.0/24, carried on for large clusters, and the like
//! of IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use beeline_common::Family;
use ipnetwork::IpNetwork;

use crate::netns::Ipv6;
use crate::node::Peer;

/// The families that nodes and pods have addresses of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only; IPv6 is off, so that its multicast moves no packet counter.
    #[default]
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    Dual,
}

impl Families {
    /// The families, in the order of a pod's addresses.
    pub const fn list(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &[Family::V4, Family::V6],
        }
    }

    /// Whether namespaces speak IPv6.
    pub(crate) fn ipv6(self) -> Ipv6 {
        if self == Self::V4 {
            Ipv6::Disabled
        } else {
            Ipv6::Enabled
        }
    }
}

/// What is between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underlay {
    /// A switch: all nodes are neighbours.
    #[default]
    Switch,
    /// A router: each node is in a subnet of its own, and no route of the underlay leads to pods.
    Router,
}

/// All pod CIDRs of a family lie in here.
pub const fn cluster_cidr(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.0.0/14",
        Family::V6 => "fd00:244::/32",
    }
}

/// An address of the outside host that nodes reach only by their default route.
pub const fn outside(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
    }
}

/// The family of an address.
pub const fn family(ip: IpAddr) -> Family {
    match ip {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// A host of the underlay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    Node(usize),
    Outside,
}

/// The addresses of one topology.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) families: Families,
    pub(crate) underlay: Underlay,
}

impl Plan {
    /// The address of a host on the underlay, with the length of its prefix.
    pub(crate) fn address(&self, family: Family, host: Host) -> IpNetwork {
        let routed = self.underlay == Underlay::Router;
        match (family, host) {
            (Family::V4, Host::Node(index)) if routed => self.v4([index, 11]),
            (Family::V4, Host::Node(index)) => {
                let first = u32::from(Ipv4Addr::new(192, 168, 1, 10));
                let address = Ipv4Addr::from(first + index as u32);
                network(address.into(), self.v4_length())
            }
            (Family::V4, Host::Outside) if routed => self.v4([254, 1]),
            (Family::V4, Host::Outside) if self.is_large() => self.v4([0, 254]),
            (Family::V4, Host::Outside) => self.v4([1, 254]),
            (Family::V6, Host::Node(index)) if routed => v6(index, 0x11),
            (Family::V6, Host::Node(index)) => v6(1, 0x10 + index),
            (Family::V6, Host::Outside) if routed => v6(254, 1),
            (Family::V6, Host::Outside) => v6(1, 0xfffe),
        }
    }

    /// The router's address in the subnet of a host.
    pub(crate) fn router(&self, family: Family, host: Host) -> IpNetwork {
        let subnet = match host {
            Host::Node(index) => index,
            Host::Outside => 254,
        };
        match family {
            Family::V4 => self.v4([subnet, 254]),
            Family::V6 => v6(subnet, 0xfffe),
        }
    }

    /// Whom a node sends to what is not on its own subnet.
    pub(crate) fn gateway(&self, family: Family, node: usize) -> IpAddr {
        match self.underlay {
            Underlay::Switch => self.address(family, Host::Outside).ip(),
            Underlay::Router => self.router(family, Host::Node(node)).ip(),
        }
    }

    /// Where the addresses of a node's pods come from.
    pub(crate) fn pod_cidr(&self, family: Family, node: usize) -> IpNetwork {
        match family {
            Family::V4 => {
                let first = u32::from(Ipv4Addr::new(10, 244, 0, 0));
                network(Ipv4Addr::from(first + node as u32 * 256).into(), 24)
            }
            Family::V6 => {
                let ip = Ipv6Addr::new(0xfd00, 0x244, node as u16, 0, 0, 0, 0, 0);
                network(ip.into(), 64)
            }
        }
    }

    /// The other nodes, as a node sees them.
    pub(crate) fn peers_of(&self, node: usize) -> Vec<Peer> {
        let others = (1..=self.nodes).filter(|other| *other != node);
        let peer = |other: usize, family| Peer {
            cidr: self.pod_cidr(family, other),
            node: self.address(family, Host::Node(other)).ip(),
        };
        let of_families = |other| self.families.list().iter().map(move |f| peer(other, *f));
        others.flat_map(of_families).collect()
    }

    fn is_large(&self) -> bool {
        self.nodes > 240
    }

    fn v4_length(&self) -> u8 {
        if self.is_large() { 16 } else { 24 }
    }

    fn v4(&self, [subnet, host]: [usize; 2]) -> IpNetwork {
        let ip = Ipv4Addr::new(192, 168, subnet as u8, host as u8);
        network(ip.into(), self.v4_length())
    }
}

fn v6(subnet: usize, host: usize) -> IpNetwork {
    let ip = Ipv6Addr::new(0xfd00, subnet as u16, 0, 0, 0, 0, 0, host as u16);
    network(ip.into(), 64)
}

fn network(ip: IpAddr, length: u8) -> IpNetwork {
    IpNetwork::new(ip, length).expect("a prefix length of the family")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: usize, underlay: Underlay) -> Plan {
        Plan {
            nodes,
            families: Families::Dual,
            underlay,
        }
    }

    #[test]
    fn a_plan_gives_the_users_own_addresses_and_carries_on_for_a_thousand_nodes() {
        let small = plan(3, Underlay::Switch);
        let address =
            |plan: &Plan, family, node| plan.address(family, Host::Node(node)).to_string();
        assert_eq!(address(&small, Family::V4, 1), "192.168.1.11/24");
        assert_eq!(address(&small, Family::V6, 1), "fd00:1::11/64");
        assert_eq!(small.pod_cidr(Family::V4, 3).to_string(), "10.244.3.0/24");
        assert_eq!(small.pod_cidr(Family::V6, 3).to_string(), "fd00:244:3::/64");
        assert_eq!(small.peers_of(2).len(), 4, "two peers of both families");
        let large = plan(1000, Underlay::Switch);
        assert_eq!(address(&large, Family::V4, 1000), "192.168.4.242/16");
        for family in Families::Dual.list() {
            let cluster: IpNetwork = cluster_cidr(*family).parse().unwrap();
            assert!(cluster.contains(large.pod_cidr(*family, 1000).ip()));
        }
    }

    #[test]
    fn behind_routers_each_node_has_a_subnet_of_its_own() {
        let plan = plan(2, Underlay::Router);
        for family in Families::Dual.list() {
            let [one, two] = [1, 2].map(|node| plan.address(*family, Host::Node(node)));
            assert!(!one.contains(two.ip()), "{one} {two}");
            assert!(one.contains(plan.gateway(*family, 1)), "{one}");
        }
    }
}
