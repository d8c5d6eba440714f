//! The commands that make up a transaction, in nft's JSON.
//!
//! Of IPv4 and IPv6 each, a table has these sets: `pods`, whose packets are masqueraded; `addresses`, the same
//! for single pods, which survive a replacement; `subnets`, what each of these reaches without a router; `cluster`,
//! towards which nothing is. Both families are there even without CIDRs, as a pod of external IPAM may have an address
//! of either.

use std::{borrow::Cow, collections::HashSet, net::IpAddr};

use ipnetwork::IpNetwork;
use nftables::{
    expr::{Expression, NamedExpression, Payload, PayloadField, Prefix},
    schema::{
        Chain, Element, FlushObject, NfCmd, NfListObject, NfObject, Rule, Set, SetFlag, SetType,
        SetTypeValue, Table,
    },
    stmt::{Match, Operator, Statement},
    types::{NfChainType, NfFamily, NfHook},
};

use crate::hash::fnv1a;

/// The set that holds the fingerprint of what was applied.
pub(super) const FINGERPRINT_SET: &str = "applied";

/// Goes into the fingerprint; to be raised when the table changes for the same CIDRs.
const LAYOUT: &str = "2";

const CHAIN: &str = "postrouting";

/// `priority srcnat`.
const PRIORITY: i32 = 100;

/// What the families differ in.
struct Family {
    suffix: char,
    protocol: &'static str,
    set_type: SetType,
    multicast: (&'static str, u32),
}

const FAMILIES: [Family; 2] = [
    Family {
        suffix: '4',
        protocol: "ip",
        set_type: SetType::Ipv4Addr,
        multicast: ("224.0.0.0", 4),
    },
    Family {
        suffix: '6',
        protocol: "ip6",
        set_type: SetType::Ipv6Addr,
        multicast: ("ff00::", 8),
    },
];

/// Commands for one table.
pub(super) struct Batch<'a> {
    table: &'a str,
    commands: Vec<NfCmd<'a>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(table: &'a str) -> Self {
        Self {
            table,
            commands: Vec::new(),
        }
    }

    pub(super) fn into_objects(self) -> Vec<NfObject<'a>> {
        self.commands.into_iter().map(NfObject::CmdObject).collect()
    }

    /// Makes the table say this, whatever it said before.
    pub(super) fn replace(
        mut self,
        pods: &[IpNetwork],
        cluster: &[IpNetwork],
        fingerprint: u32,
    ) -> Self {
        self.add(self.table());
        self.add(NfListObject::Chain(Chain {
            _type: Some(NfChainType::NAT),
            hook: Some(NfHook::Postrouting),
            prio: Some(PRIORITY),
            ..self.chain()
        }));
        self.commands
            .push(NfCmd::Flush(FlushObject::Chain(self.chain())));
        let fingerprint = vec![Expression::Number(fingerprint)];
        self.replace_set(Set {
            elem: Some(fingerprint.into()),
            ..self.set(FINGERPRINT_SET.to_owned(), SetType::Mark)
        });
        for family in &FAMILIES {
            self.replace_set(self.cidr_set(family, "pods", pods));
            self.replace_set(self.cidr_set(family, "cluster", cluster));
            self.add(NfListObject::Set(Box::new(
                self.set(family.name("addresses"), family.set_type),
            )));
            self.add(self.subnets(family));
            self.add(NfListObject::Rule(self.rule(family, "pods", None)));
            let elsewhere = family.outside_own_subnet();
            self.add(NfListObject::Rule(self.rule(
                family,
                "addresses",
                Some(elsewhere),
            )));
        }
        self
    }

    /// Changes towards what nothing is masqueraded.
    pub(super) fn change_cluster(mut self, added: &[IpNetwork], removed: &[IpNetwork]) -> Self {
        for cidr in removed {
            let element = self.cluster_element(*cidr);
            // Deleting what is not there fails; adding what is there does not.
            self.add(element.clone());
            self.commands.push(NfCmd::Delete(element));
        }
        for cidr in added {
            let element = self.cluster_element(*cidr);
            self.add(element);
        }
        self
    }

    fn cluster_element(&self, cidr: IpNetwork) -> NfListObject<'a> {
        let element = prefix(cidr.network().to_string(), cidr.prefix().into());
        self.element(Family::of(cidr.ip()), "cluster", element)
    }

    pub(super) fn add_address(mut self, address: IpNetwork) -> Self {
        self.elements(address)
            .into_iter()
            .for_each(|element| self.add(element));
        self
    }

    pub(super) fn remove_address(mut self, address: IpNetwork) -> Self {
        // A table of a former layout, which no ADD has replaced yet, has no such set.
        self.add(self.subnets(Family::of(address.ip())));
        for element in self.elements(address) {
            // Deleting what is not there fails; adding what is there does not.
            self.add(element.clone());
            self.commands.push(NfCmd::Delete(element));
        }
        self
    }

    pub(super) fn delete(mut self) -> Self {
        // As another process may have deleted it just now.
        self.add(self.table());
        self.commands.push(NfCmd::Delete(self.table()));
        self
    }

    fn add(&mut self, object: NfListObject<'a>) {
        self.commands.push(NfCmd::Add(object));
    }

    /// Deletes a set even if it is not there, and adds it anew. Unlike flushing, this never compares new CIDRs
    /// with old ones that they overlap.
    fn replace_set(&mut self, set: Set<'a>) {
        let empty = Box::new(Set {
            elem: None,
            ..set.clone()
        });
        self.add(NfListObject::Set(empty.clone()));
        self.commands.push(NfCmd::Delete(NfListObject::Set(empty)));
        self.add(NfListObject::Set(Box::new(set)));
    }

    fn table(&self) -> NfListObject<'a> {
        NfListObject::Table(Table {
            family: NfFamily::INet,
            name: self.table.into(),
            handle: None,
        })
    }

    fn chain(&self) -> Chain<'a> {
        Chain {
            family: NfFamily::INet,
            table: self.table.into(),
            name: CHAIN.into(),
            ..Chain::default()
        }
    }

    fn set(&self, name: String, set_type: SetType) -> Set<'a> {
        Set {
            family: NfFamily::INet,
            table: self.table.into(),
            name: name.into(),
            set_type: SetTypeValue::Single(set_type),
            ..Set::default()
        }
    }

    fn cidr_set(&self, family: &Family, name: &str, cidrs: &[IpNetwork]) -> Set<'a> {
        let prefix = |cidr: IpNetwork| prefix(cidr.network().to_string(), cidr.prefix().into());
        let elements: Vec<_> = disjoint(cidrs)
            .into_iter()
            .filter(|cidr| family.has(cidr.ip()))
            .map(prefix)
            .collect();
        Set {
            flags: Some(HashSet::from([SetFlag::Interval])),
            elem: (!elements.is_empty()).then(|| elements.into()),
            ..self.set(family.name(name), family.set_type)
        }
    }

    /// Pairs of a single pod's address and its subnet.
    fn subnets(&self, family: &Family) -> NfListObject<'a> {
        NfListObject::Set(Box::new(Set {
            set_type: SetTypeValue::Concatenated(vec![family.set_type; 2].into()),
            flags: Some(HashSet::from([SetFlag::Interval])),
            ..self.set(family.name("subnets"), family.set_type)
        }))
    }

    /// What the sets hold about a single pod.
    fn elements(&self, address: IpNetwork) -> [NfListObject<'a>; 2] {
        let family = Family::of(address.ip());
        let ip = Expression::String(address.ip().to_string().into());
        let subnet = prefix(address.network().to_string(), address.prefix().into());
        let pair = Expression::Named(NamedExpression::Concat(vec![ip.clone(), subnet]));
        [("addresses", ip), ("subnets", pair)]
            .map(|(set, element)| self.element(family, set, element))
    }

    fn element(&self, family: &Family, set: &str, element: Expression<'a>) -> NfListObject<'a> {
        NfListObject::Element(Element {
            family: NfFamily::INet,
            table: self.table.into(),
            name: family.name(set).into(),
            elem: vec![element].into(),
        })
    }

    fn rule(&self, family: &Family, sources: &str, only: Option<Statement<'a>>) -> Rule<'a> {
        let in_set = |set: &str| Expression::String(format!("@{}", family.name(set)).into());
        let (group, length) = family.multicast;
        let mut statements = vec![
            family.matches("saddr", Operator::EQ, in_set(sources)),
            family.matches("daddr", Operator::NEQ, in_set("cluster")),
            family.matches("daddr", Operator::NEQ, prefix(group.to_owned(), length)),
        ];
        statements.extend(only);
        statements.push(Statement::Masquerade(None));
        Rule {
            family: NfFamily::INet,
            table: self.table.into(),
            chain: CHAIN.into(),
            expr: statements.into(),
            comment: Some("beeline: pods leave the cluster with the node's address".into()),
            ..Rule::default()
        }
    }
}

impl Family {
    fn of(ip: IpAddr) -> &'static Self {
        match ip {
            IpAddr::V4(_) => &FAMILIES[0],
            IpAddr::V6(_) => &FAMILIES[1],
        }
    }

    fn name(&self, set: &str) -> String {
        format!("{set}{}", self.suffix)
    }

    fn has(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self.suffix == '4')
    }

    fn matches<'a>(
        &self,
        field: &'static str,
        op: Operator,
        right: Expression<'a>,
    ) -> Statement<'a> {
        let left = self.field(field);
        Statement::Match(Match { left, right, op })
    }

    /// What a pod sends to its own subnet comes to this point too, where bridged packets pass netfilter. Neighbours
    /// must see who it is, as the reference has it.
    fn outside_own_subnet<'a>(&self) -> Statement<'a> {
        let pair = vec![self.field("saddr"), self.field("daddr")];
        Statement::Match(Match {
            left: Expression::Named(NamedExpression::Concat(pair)),
            right: Expression::String(format!("@{}", self.name("subnets")).into()),
            op: Operator::NEQ,
        })
    }

    fn field<'a>(&self, field: &'static str) -> Expression<'a> {
        let field = PayloadField {
            protocol: self.protocol.into(),
            field: field.into(),
        };
        Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
    }
}

fn prefix<'a>(address: String, length: u32) -> Expression<'a> {
    let addr = Box::new(Expression::String(Cow::Owned(address)));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len: length }))
}

/// Sorted, without host bits, and without what is inside another: an interval set refuses overlaps.
fn disjoint(cidrs: &[IpNetwork]) -> Vec<IpNetwork> {
    let mut cidrs: Vec<_> = cidrs
        .iter()
        .filter_map(|cidr| IpNetwork::new(cidr.network(), cidr.prefix()).ok())
        .collect();
    cidrs.sort_by_key(|cidr| (cidr.network(), cidr.prefix()));
    // Sorted so, a CIDR comes after the one it is in, with only others of that one between.
    cidrs.dedup_by(|inner, outer| outer.is_ipv4() == inner.is_ipv4() && outer.contains(inner.ip()));
    cidrs
}

/// Tells apart tables made from different CIDRs, or by a beeline that makes them otherwise.
pub(super) fn fingerprint(pods: &[IpNetwork], cluster: &[IpNetwork]) -> u32 {
    hash(&format!(
        "{LAYOUT} {:?} {:?}",
        disjoint(pods),
        disjoint(cluster)
    ))
}

/// The same where the cluster's CIDRs come and go: of these it tells nothing.
pub(super) fn fingerprint_of_pods(pods: &[IpNetwork]) -> u32 {
    hash(&format!("{LAYOUT} {:?} cluster", disjoint(pods)))
}

/// 32-bit FNV-1a: the standard library's hashes may change with the compiler.
pub(super) fn hash(text: &str) -> u32 {
    fnv1a(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(text: &[&str]) -> Vec<IpNetwork> {
        text.iter().map(|cidr| cidr.parse().unwrap()).collect()
    }

    #[test]
    fn overlaps_host_bits_and_order_do_not_matter() {
        let messy = cidrs(&[
            "fd00::/48",
            "10.244.1.5/24",
            "10.244.0.0/16",
            "10.245.0.0/24",
            "10.244.0.0/16",
            "fd00:0:0:1::/64",
        ]);
        assert_eq!(
            disjoint(&messy),
            cidrs(&["10.244.0.0/16", "10.245.0.0/24", "fd00::/48"])
        );
        assert_eq!(
            disjoint(&cidrs(&["0.0.0.0/0", "::/0", "10.0.0.0/8"])),
            cidrs(&["0.0.0.0/0", "::/0"])
        );
    }

    #[test]
    fn a_fingerprint_depends_on_what_would_be_applied_only() {
        let (pods, cluster) = (cidrs(&["10.244.1.0/24"]), cidrs(&["10.244.0.0/16"]));
        let fingerprint_of_both = fingerprint(&pods, &cluster);
        assert_eq!(
            fingerprint(&cidrs(&["10.244.1.7/24"]), &cluster),
            fingerprint_of_both
        );
        assert_ne!(fingerprint(&cluster, &pods), fingerprint_of_both);
        assert_ne!(fingerprint(&pods, &[]), fingerprint_of_both);
    }
}
