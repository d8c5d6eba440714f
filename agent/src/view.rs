//! What the members of the cluster mean for this node: its own pod CIDRs, its peers, and who cannot be one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use beeline::node::cluster::{Cluster, ClusterPeer};
use ipnetwork::IpNetwork;

use crate::backend::{Event, Member};

/// The cluster as this node knows it.
#[derive(Debug)]
pub(crate) struct View {
    own: String,
    members: HashMap<String, Member>,
}

/// What follows for this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The node's own pod CIDRs; none until it is given some.
    pub(crate) pod_cidrs: Vec<IpNetwork>,
    /// The other nodes' pod CIDRs, which do not overlap, in order.
    pub(crate) peers: Vec<ClusterPeer>,
    /// Nodes that are no peers, each with the reason, in order.
    pub(crate) problems: Vec<String>,
}

impl View {
    /// An empty cluster, seen from the node `own`.
    pub(crate) fn new(own: &str) -> Self {
        Self {
            own: own.to_owned(),
            members: HashMap::new(),
        }
    }

    /// Takes in what a backend told; says whether anything changed.
    pub(crate) fn take(&mut self, event: Event) -> bool {
        match event {
            Event::All(members) => {
                let named = members
                    .into_iter()
                    .map(|member| (member.name.clone(), member));
                let members = named.collect();
                let changed = self.members != members;
                self.members = members;
                changed
            }
            Event::Changed(member) => {
                let former = self.members.insert(member.name.clone(), member.clone());
                former != Some(member)
            }
            Event::Gone(name) => self.members.remove(&name).is_some(),
            Event::Lost(_) | Event::Back | Event::Uninstalled(_) => false,
        }
    }

    /// How many nodes the cluster has.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Judges all members. A node is a peer with all of its CIDRs or with none; of two that claim the same addresses the
    /// older one keeps them.
    pub(crate) fn judge(&self) -> Judgement {
        let own = self.members.get(&self.own);
        let pod_cidrs = own.map_or_else(Vec::new, |own| own.pod_cidrs.clone());
        let mut others: Vec<&Member> = self.members.values().collect();
        others.retain(|member| member.name != self.own);
        others.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
        let mut claims = Claims::default();
        for cidr in &pod_cidrs {
            claims.add(*cidr, &self.own);
        }
        own.into_iter().for_each(|own| claims.add_addresses(own));
        let (mut peers, mut problems) = (Vec::new(), Vec::new());
        for member in others {
            match peers_of(member, &claims) {
                Ok(found) => {
                    found
                        .iter()
                        .for_each(|peer| claims.add(peer.cidr, &member.name));
                    claims.add_addresses(member);
                    peers.extend(found);
                }
                Err(problem) => problems.push(format!("node {}: {problem}", member.name)),
            }
        }
        peers.sort_by_key(|peer| peer.cidr);
        problems.sort();
        Judgement {
            pod_cidrs,
            peers,
            problems,
        }
    }
}

impl Judgement {
    /// As it is written down on the node.
    pub(crate) fn cluster(&self, backend: &str, node: &str) -> Cluster {
        Cluster {
            backend: backend.to_owned(),
            node: node.to_owned(),
            peers: self.peers.clone(),
            problems: self.problems.clone(),
        }
    }
}

fn peers_of(member: &Member, claims: &Claims) -> Result<Vec<ClusterPeer>, String> {
    if member.pod_cidrs.is_empty() {
        return Err("has no pod CIDR".to_owned());
    }
    let mut own = Claims::default();
    let mut peers = Vec::new();
    for cidr in &member.pod_cidrs {
        if cidr.ip() != cidr.network() {
            return Err(format!("pod CIDR {cidr}: host bits set"));
        }
        for claims in [claims, &own] {
            if let Some((other, whose)) = claims.overlapping(cidr) {
                return Err(format!("pod CIDR {cidr}: overlaps {other} of node {whose}"));
            }
        }
        if let Some((address, whose)) = claims.address_within(cidr) {
            return Err(format!(
                "pod CIDR {cidr}: holds {address}, the address of node {whose}"
            ));
        }
        let Some(node) = address_for(cidr, &member.addresses) else {
            return Err("has no address".to_owned());
        };
        own.add(*cidr, &member.name);
        peers.push(ClusterPeer {
            name: member.name.clone(),
            cidr: *cidr,
            node,
        });
    }
    Ok(peers)
}

/// The node's address of the CIDR's family if it has one, as native routing needs that; else any.
fn address_for(cidr: &IpNetwork, addresses: &[IpAddr]) -> Option<IpAddr> {
    let mut of_family = addresses.iter().filter(|ip| ip.is_ipv4() == cidr.is_ipv4());
    of_family.next().or_else(|| addresses.first()).copied()
}

/// What has an owner.
#[derive(Default)]
struct Claims {
    /// CIDRs by their first address. No two overlap, hence only neighbours in order have to be looked at.
    cidrs: BTreeMap<IpAddr, (IpNetwork, String)>,
    /// Nodes' own addresses: a route to one as a pod would cut its node off.
    addresses: BTreeMap<IpAddr, String>,
}

impl Claims {
    fn add(&mut self, cidr: IpNetwork, owner: &str) {
        self.cidrs.insert(cidr.network(), (cidr, owner.to_owned()));
    }

    fn add_addresses(&mut self, member: &Member) {
        let owned = member.addresses.iter().map(|ip| (*ip, member.name.clone()));
        self.addresses.extend(owned);
    }

    fn address_within(&self, cidr: &IpNetwork) -> Option<(IpAddr, &str)> {
        let mut from = self.addresses.range(cidr.network()..);
        let (address, owner) = from.next()?;
        cidr.contains(*address).then_some((*address, &**owner))
    }

    fn overlapping(&self, cidr: &IpNetwork) -> Option<(IpNetwork, &str)> {
        let before = self.cidrs.range(..=cidr.network()).next_back();
        let within = self.cidrs.range(cidr.network()..).next();
        let claims = [before, within].into_iter().flatten();
        let mut claims = claims.map(|(_, (other, owner))| (*other, &**owner));
        claims.find(|(other, _)| {
            other.is_ipv4() == cidr.is_ipv4()
                && (other.contains(cidr.network()) || cidr.contains(other.network()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, since: i64, cidrs: &[&str], addresses: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            since,
        }
    }

    fn judged(members: Vec<Member>) -> Judgement {
        let mut view = View::new("own");
        let own = member(
            "own",
            1,
            &["10.244.1.0/24", "fd00:1::/64"],
            &["192.168.1.11"],
        );
        view.take(Event::All([vec![own], members].concat()));
        view.judge()
    }

    fn peers(judgement: &Judgement) -> Vec<String> {
        let peers = judgement.peers.iter();
        peers
            .map(|p| format!("{} {} {}", p.name, p.cidr, p.node))
            .collect()
    }

    #[test]
    fn every_other_node_is_a_peer_with_the_address_of_the_family() {
        let judgement = judged(vec![
            member(
                "b",
                2,
                &["10.244.2.0/24", "fd00:2::/64"],
                &["192.168.1.12", "fd01::12"],
            ),
            member("c", 3, &["10.244.3.0/24", "fd00:3::/64"], &["192.168.1.13"]),
        ]);
        assert_eq!(judgement.problems, [""; 0]);
        assert_eq!(
            peers(&judgement),
            [
                "b 10.244.2.0/24 192.168.1.12",
                "c 10.244.3.0/24 192.168.1.13",
                "b fd00:2::/64 fd01::12",
                "c fd00:3::/64 192.168.1.13",
            ]
        );
    }

    #[test]
    fn a_node_without_pods_or_address_is_reported_and_no_peer() {
        let judgement = judged(vec![
            member("b", 2, &[], &["192.168.1.12"]),
            member("c", 3, &["10.244.3.0/24"], &[]),
        ]);
        assert_eq!(peers(&judgement), [""; 0]);
        assert_eq!(
            judgement.problems,
            ["node b: has no pod CIDR", "node c: has no address"]
        );
    }

    #[test]
    fn of_two_nodes_with_one_cidr_the_older_keeps_it_and_the_other_has_nothing() {
        let judgement = judged(vec![
            member(
                "young",
                9,
                &["fd00:9::/64", "10.244.2.0/24"],
                &["192.168.1.19"],
            ),
            member("old", 2, &["10.244.2.0/24"], &["192.168.1.12"]),
        ]);
        assert_eq!(peers(&judgement), ["old 10.244.2.0/24 192.168.1.12"]);
        assert_eq!(
            judgement.problems,
            ["node young: pod CIDR 10.244.2.0/24: overlaps 10.244.2.0/24 of node old"]
        );
    }

    #[test]
    fn a_cidr_that_overlaps_our_own_is_none_whichever_contains_the_other() {
        for cidr in [
            "10.244.1.0/24",
            "10.244.0.0/16",
            "10.244.1.128/25",
            "0.0.0.0/0",
        ] {
            let judgement = judged(vec![member("b", 0, &[cidr], &["192.168.1.12"])]);
            assert_eq!(peers(&judgement), [""; 0]);
            let problem = format!("node b: pod CIDR {cidr}: overlaps 10.244.1.0/24 of node own");
            assert_eq!(judgement.problems, [problem]);
        }
    }

    #[test]
    fn a_cidr_that_holds_a_nodes_address_is_none() {
        let judgement = judged(vec![
            member("b", 2, &["10.244.2.0/24"], &["192.168.1.12"]),
            member("c", 3, &["192.168.1.0/24"], &["192.168.1.13"]),
            member("d", 4, &["10.244.4.0/24"], &["10.244.2.9"]),
        ]);
        assert_eq!(
            peers(&judgement),
            ["b 10.244.2.0/24 192.168.1.12", "d 10.244.4.0/24 10.244.2.9"]
        );
        let problem =
            "node c: pod CIDR 192.168.1.0/24: holds 192.168.1.11, the address of node own";
        assert_eq!(judgement.problems, [problem]);
    }

    #[test]
    fn nested_cidrs_of_one_node_and_host_bits_are_refused() {
        let judgement = judged(vec![
            member(
                "b",
                2,
                &["10.245.0.0/16", "10.245.3.0/24"],
                &["192.168.1.12"],
            ),
            member("c", 3, &["10.246.0.1/16"], &["192.168.1.13"]),
        ]);
        assert_eq!(peers(&judgement), [""; 0]);
        assert_eq!(
            judgement.problems,
            [
                "node b: pod CIDR 10.245.3.0/24: overlaps 10.245.0.0/16 of node b",
                "node c: pod CIDR 10.246.0.1/16: host bits set"
            ]
        );
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let mut view = View::new("own");
        let b = member("b", 2, &["10.244.2.0/24"], &["192.168.1.12"]);
        assert!(view.take(Event::Changed(b.clone())));
        assert!(!view.take(Event::Changed(b.clone())));
        assert!(!view.take(Event::All(vec![b])));
        assert!(!view.take(Event::Lost("gone".to_owned())));
        assert_eq!(view.len(), 1);
        assert!(view.take(Event::Gone("b".to_owned())));
        assert!(!view.take(Event::Gone("b".to_owned())));
    }

    #[test]
    fn thousands_of_nodes_are_all_peers() {
        let nodes = (0..5000u32).map(|n| {
            let cidr = format!("10.{}.{}.0/24", 16 + n / 256, n % 256);
            let address = format!("192.{}.{}.1", 1 + n / 256, n % 256);
            member(&format!("n{n}"), n.into(), &[&cidr], &[&address])
        });
        assert_eq!(judged(nodes.collect()).peers.len(), 5000);
    }
}
