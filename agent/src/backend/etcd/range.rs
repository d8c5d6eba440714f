//! A cluster CIDR and the subnets that nodes get of it, for both families alike.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// What the nodes' subnets of one family are cut from, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range {
    #[serde(rename = "clusterCIDR")]
    pub(super) cluster_cidr: IpNetwork,
    pub(super) subnet_length: u8,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in subnets /{}",
            self.cluster_cidr, self.subnet_length
        )
    }
}

impl Range {
    /// Whether a subnet is one that a node may get of this range.
    pub(super) fn has(&self, subnet: IpNetwork) -> bool {
        subnet.prefix() == self.subnet_length
            && subnet.ip() == subnet.network()
            && self.covers(subnet)
    }

    /// Whether all addresses of a network are in the cluster CIDR.
    fn covers(&self, network: IpNetwork) -> bool {
        network.prefix() >= self.cluster_cidr.prefix()
            && self.cluster_cidr.contains(network.network())
    }

    /// Whether two networks have addresses in common.
    fn overlaps(&self, network: IpNetwork) -> bool {
        self.cluster_cidr.contains(network.network())
            || network.contains(self.cluster_cidr.network())
    }

    /// Returns a subnet that is free.
    ///
    /// The search begins at a place that depends on the node's name: a subnet whose lease has ended is then not given to
    /// the next node that comes, and nodes that come at once seldom want the same one.
    pub(super) fn free(&self, taken: &[IpNetwork], node: &str) -> Option<IpNetwork> {
        let count = self.count();
        let taken = self.positions(taken);
        let start = u128::from(fnv1a(node.as_bytes())) % count;
        let position = first_gap(&taken, start)
            .filter(|position| *position < count)
            .or_else(|| first_gap(&taken, 0).filter(|position| *position < start))?;
        Some(self.at(position))
    }

    /// How many subnets there are; options that would make them more than a number can hold are refused.
    fn count(&self) -> u128 {
        1 << (self.subnet_length - self.cluster_cidr.prefix())
    }

    /// The places that these networks lie on, first and last, without overlaps.
    fn positions(&self, networks: &[IpNetwork]) -> BTreeMap<u128, u128> {
        let overlapping = networks.iter().filter(|network| self.overlaps(**network));
        let mut pairs: Vec<_> = overlapping
            .map(|network| {
                (
                    self.position(network.network()),
                    self.position(network.broadcast()),
                )
            })
            .collect();
        pairs.sort_unstable();
        let mut merged: BTreeMap<u128, u128> = BTreeMap::new();
        for (first, last) in pairs {
            match merged.last_entry() {
                Some(mut before) if *before.get() >= first => {
                    let last = last.max(*before.get());
                    before.insert(last);
                }
                _ => drop(merged.insert(first, last)),
            }
        }
        merged
    }

    /// The place of the subnet that an address is of; the nearest one if it is of none.
    fn position(&self, address: IpAddr) -> u128 {
        let offset = bits(address).saturating_sub(bits(self.cluster_cidr.network()));
        (offset >> self.host_bits()).min(self.count() - 1)
    }

    fn at(&self, position: u128) -> IpNetwork {
        let bits = bits(self.cluster_cidr.network()) + (position << self.host_bits());
        let address = match self.cluster_cidr {
            IpNetwork::V4(_) => IpAddr::V4((u32::try_from(bits).unwrap_or(u32::MAX)).into()),
            IpNetwork::V6(_) => IpAddr::V6(bits.into()),
        };
        // Options with a length that the family does not have are refused.
        IpNetwork::new(address, self.subnet_length).unwrap_or(self.cluster_cidr)
    }

    fn host_bits(&self) -> u8 {
        family_bits(self.cluster_cidr) - self.subnet_length
    }
}

/// How long addresses of a family are.
pub(super) fn family_bits(network: IpNetwork) -> u8 {
    if network.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The first place from `start` on that none of these has.
fn first_gap(taken: &BTreeMap<u128, u128>, start: u128) -> Option<u128> {
    let mut position = start;
    while let Some((_, last)) = taken
        .range(..=position)
        .next_back()
        .filter(|(_, last)| **last >= position)
    {
        position = last.checked_add(1)?;
    }
    Some(position)
}

/// FNV-1a of 64 bits (RFC 9923): the same in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(cluster_cidr: &str, subnet_length: u8) -> Range {
        Range {
            cluster_cidr: net(cluster_cidr),
            subnet_length,
        }
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn every_subnet_is_found_before_there_is_none_left() {
        for range in [
            range("10.0.0.0/20", 24),
            range("fd00::/60", 64),
            range("10.9.0.0/24", 24),
        ] {
            let mut taken = Vec::new();
            while let Some(subnet) = range.free(&taken, "node-a") {
                assert!(range.has(subnet), "{subnet}");
                assert!(!taken.contains(&subnet), "{subnet}: twice");
                taken.push(subnet);
            }
            assert_eq!(u128::try_from(taken.len()).unwrap(), range.count());
        }
    }

    #[test]
    fn the_search_begins_where_the_nodes_name_says() {
        let range = range("10.0.0.0/8", 24);
        let first = |node: &str| range.free(&[], node).unwrap();
        assert_eq!(first("node-a"), first("node-a"));
        let mut starts: Vec<_> = (0..20).map(|i| first(&format!("node-{i}"))).collect();
        starts.sort();
        starts.dedup();
        assert!(starts.len() > 18, "{starts:?}");
    }

    #[test]
    fn what_overlaps_another_length_or_lies_outside_is_seen() {
        let range = range("10.0.0.0/22", 24);
        let taken = [
            net("10.0.0.0/23"),
            net("10.0.2.128/25"),
            net("10.1.0.0/16"),
            net("fd00::/8"),
        ];
        assert_eq!(range.free(&taken, "x"), Some(net("10.0.3.0/24")));
        assert_eq!(range.free(&[net("10.0.0.0/8")], "x"), None);
        assert_eq!(range.free(&[net("0.0.0.0/0")], "x"), None);
    }

    #[test]
    fn the_largest_ranges_do_not_overflow() {
        for range in [
            range("::/0", 126),
            range("ff00::/8", 64),
            range("0.0.0.0/0", 30),
            range("255.0.0.0/8", 30),
        ] {
            let subnet = range.free(&[], "node").unwrap();
            assert!(range.has(subnet), "{subnet}");
            assert_eq!(range.at(range.position(subnet.network())), subnet);
        }
    }

    #[test]
    fn only_whole_subnets_of_the_range_belong_to_it() {
        let range = range("10.0.0.0/16", 24);
        assert!(range.has(net("10.0.255.0/24")));
        for other in [
            "10.1.0.0/24",
            "10.0.1.0/25",
            "10.0.1.1/24",
            "10.0.0.0/16",
            "fd00::/24",
        ] {
            assert!(!range.has(net(other)), "{other}");
        }
    }
}
