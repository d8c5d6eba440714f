use core::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr},
};

use super::*;
use crate::abi::MAX_PREFIXES;

fn peer(node: u8) -> Peer {
    Peer {
        node: Address::from_v4([192, 168, 1, node]),
        ifindex: UPLINK,
        mtu: 1500,
        vni: 0,
        mac: Mac::default(),
        source: Mac::default(),
    }
}

fn node_of(maps: &impl Maps, address: &str) -> Option<u8> {
    let address = Address::from(address.parse::<IpAddr>().unwrap());
    peer_of(maps, &address).map(|peer| peer.node.v4_octets()[3])
}

fn maps_of(cidrs: &[(&str, u8, u8)]) -> HostMaps {
    let mut maps = HostMaps::default();
    for &(network, length, node) in cidrs {
        maps.add_peer(network.parse::<IpAddr>().unwrap(), length, peer(node));
    }
    maps
}

#[test]
fn the_longest_cidr_wins() {
    for (packet, expected) in outgoing(&CLIENT, &SUBPEER)
        .into_iter()
        .zip(to_peer(&SUBPEER))
    {
        assert_eq!(sent(&packet.frame()).0, expected);
    }
    let maps = maps_of(&[
        ("10.0.0.0", 8, 8),
        ("10.244.0.0", 16, 16),
        ("10.244.7.9", 32, 32),
        ("10.244.7.0", 24, 24),
    ]);
    for (address, node) in [
        ("10.244.7.9", Some(32)),
        ("10.244.7.8", Some(24)),
        ("10.244.8.9", Some(16)),
        ("10.245.7.9", Some(8)),
        ("11.244.7.9", None),
    ] {
        assert_eq!(node_of(&maps, address), node, "{address}");
    }
}

#[test]
fn a_cidr_ends_where_its_length_says() {
    let maps = maps_of(&[("10.244.2.0", 23, 1), ("fd00:244:2::", 47, 2)]);
    for (address, node) in [
        ("10.244.1.255", None),
        ("10.244.2.0", Some(1)),
        ("10.244.3.255", Some(1)),
        ("10.244.4.0", None),
        ("fd00:244:1:ffff:ffff:ffff:ffff:ffff", None),
        ("fd00:244:2::", Some(2)),
        ("fd00:244:3:ffff:ffff:ffff:ffff:ffff", Some(2)),
        ("fd00:244:4::", None),
    ] {
        assert_eq!(node_of(&maps, address), node, "{address}");
    }
}

#[test]
fn a_default_route_of_ipv4_holds_no_ipv6() {
    let maps = maps_of(&[("0.0.0.0", 0, 4)]);
    assert_eq!(node_of(&maps, "203.0.113.1"), Some(4));
    assert_eq!(node_of(&maps, "fd00::1"), None);
}

#[test]
fn a_full_table_is_probed_to_its_end() {
    let lengths: Vec<u8> = (0..MAX_PREFIXES as u8).map(|number| 32 - number).collect();
    let mut maps = HostMaps::default();
    for &length in &lengths {
        let network = Ipv4Addr::new(10, length, 0, 0);
        maps.add_peer(network, length, peer(length));
    }
    for &length in &lengths {
        let address = std::format!("10.{length}.0.0");
        assert_eq!(node_of(&maps, &address), Some(length));
    }
}

#[test]
fn without_peers_nothing_leaves_or_comes_in() {
    for prefixes in [[None; 2], [Some(PrefixTable::EMPTY); 2]] {
        let mut maps = cluster();
        maps.prefixes = prefixes;
        for packet in outgoing(&CLIENT, &PEER) {
            let verdict = sent_with(&maps, &packet.frame()).0;
            assert_eq!(verdict, Verdict::Pass(Pass::NotToPod));
        }
        for packet in incoming(&PEER, &CLIENT) {
            let (verdict, _) = judged(&packet.frame(), |frame| from_uplink(frame, &maps));
            assert_eq!(verdict, Verdict::Pass(Pass::NotFromPod));
        }
        for packet in local(&CLIENT, &SERVER) {
            assert_eq!(sent_with(&maps, &packet.frame()).0, to_pod(&SERVER));
        }
    }
}

/// Maps that write down which lengths of which family were probed.
struct Probed<'a>(&'a HostMaps, RefCell<Vec<u64>>);

impl Maps for Probed<'_> {
    fn pod(&self, address: &Address) -> Option<Pod> {
        self.0.pod(address)
    }

    fn port(&self, ifindex: u32) -> Option<Port> {
        self.0.port(ifindex)
    }

    fn flow(&self, table: Table, flow: &Flow) -> Option<u32> {
        self.0.flow(table, flow)
    }

    fn remember(&self, table: Table, flow: &Flow, value: u32) {
        self.0.remember(table, flow, value);
    }

    fn forget(&self, table: Table, flow: &Flow) {
        self.0.forget(table, flow);
    }

    fn prefixes(&self, family: Family) -> Option<&PrefixTable> {
        self.0.prefixes(family)
    }

    fn peer(&self, cidr: &Cidr) -> Option<Peer> {
        self.1.borrow_mut().push(cidr.length);
        self.0.peer(cidr)
    }
}

#[test]
fn each_length_of_the_family_is_probed_once_and_longest_first() {
    let maps = maps_of(&[
        ("10.1.0.0", 16, 1),
        ("10.1.2.0", 24, 2),
        ("10.1.3.0", 24, 3),
        ("fd00::", 64, 4),
    ]);
    for (address, lengths) in [
        ("10.1.2.1", &[96 + 24][..]),
        ("10.1.9.1", &[96 + 24, 96 + 16]),
        ("10.2.9.1", &[96 + 24, 96 + 16]),
        ("fd00::1", &[64]),
        ("fd01::1", &[64]),
    ] {
        let probed = Probed(&maps, RefCell::default());
        node_of(&probed, address);
        assert_eq!(*probed.1.borrow(), lengths, "{address}");
    }
}
