//! Names for the nodes of an overlay network, which every node can work out for every other by itself.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::mac::Mac;
use crate::hash::fnv1a;

#[cfg(test)]
mod netns_tests;

/// The Ethernet address of a node's overlay device.
///
/// They differ, as a VXLAN device drops the frames that come from its own address.
pub fn overlay_mac(node: IpAddr) -> Mac {
    let [a, b, c, d] = match node {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => fnv1a(&ip.octets()).to_be_bytes(),
    };
    Mac([0x02, 0xbe, a, b, c, d])
}

/// The next hop, on the overlay device, to a node's pods.
///
/// For IPv4 it is the node itself. IPv6 refuses that where the node is on the network of another link, so there it is
/// the link-local address that follows from the node's Ethernet address (RFC 4291, appendix A).
pub fn overlay_hop(pods: IpNetwork, node: IpAddr) -> IpAddr {
    if pods.is_ipv4() && node.is_ipv4() {
        return node;
    }
    let Mac([a, b, c, d, e, f]) = overlay_mac(node);
    let interface = [a ^ 0b10, b, c, 0xff, 0xfe, d, e, f];
    let prefix = u128::from(0xfe80_u16) << 112;
    Ipv6Addr::from_bits(prefix | u128::from(u64::from_be_bytes(interface))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_mac_follows_from_its_address() {
        let mac = |node: &str| overlay_mac(node.parse().unwrap()).to_string();
        assert_eq!(mac("192.168.1.12"), "02:be:c0:a8:01:0c");
        assert_eq!(mac("fd01::12"), "02:be:7b:9f:98:e9");
        assert_ne!(mac("fd01::12"), mac("fd01::13"));
    }

    #[test]
    fn the_next_hop_is_of_a_family_that_the_route_can_have() {
        for (pods, node, hop) in [
            ("10.244.2.0/24", "192.168.1.12", "192.168.1.12"),
            ("10.244.2.0/24", "fd01::12", "fe80::be:7bff:fe9f:98e9"),
            ("fd00:2::/64", "192.168.1.12", "fe80::be:c0ff:fea8:10c"),
            ("fd00:2::/64", "fd01::12", "fe80::be:7bff:fe9f:98e9"),
        ] {
            let hop: IpAddr = hop.parse().unwrap();
            assert_eq!(
                overlay_hop(pods.parse().unwrap(), node.parse().unwrap()),
                hop
            );
        }
    }
}
