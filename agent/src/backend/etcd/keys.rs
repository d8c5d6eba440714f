//! The keys and what stands in them, for other nodes and for operators with `etcdctl`.
//!
//! ```text
//! /beeline/v1/config                            cluster CIDRs; the first node writes it, the others must agree
//! /beeline/v1/nodes/<name>                      a node, with its pod CIDRs and addresses  ┐ these go with the
//! /beeline/v1/subnets/ipv4/10.244.7.0-24        whose subnet that is                      ┘ node's lease
//! /beeline/v1/subnets/ipv6/fd00:10:244:7::-64
//! ```
//!
//! Everything that is read here may have been written by anybody.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::range::Range;
use crate::backend::Member;

/// What `config` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) ranges: Vec<Range>,
}

/// What `nodes/<name>` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeValue {
    /// Tells machines with the same name from each other.
    pub(super) machine: String,
    pub(super) addresses: Vec<IpAddr>,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Vec<IpNetwork>,
}

/// What `subnets/<family>/<subnet>` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubnetValue {
    pub(super) node: String,
    pub(super) machine: String,
}

/// The names of the keys below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: String,
}

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Config,
    Node(String),
    Subnet(IpNetwork),
}

impl Keys {
    /// The keys below an operator's prefix.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            root: format!("{}/v1/", prefix.trim_end_matches('/')),
        }
    }

    /// What all keys begin with.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn config(&self) -> String {
        format!("{}config", self.root)
    }

    /// What the keys of all nodes begin with.
    pub(super) fn nodes(&self) -> String {
        format!("{}nodes/", self.root)
    }

    pub(super) fn node(&self, name: &str) -> String {
        format!("{}{name}", self.nodes())
    }

    /// What the keys of all subnets begin with.
    pub(super) fn subnets(&self) -> String {
        format!("{}subnets/", self.root)
    }

    pub(super) fn subnet(&self, subnet: IpNetwork) -> String {
        let family = if subnet.is_ipv4() { "ipv4" } else { "ipv6" };
        format!(
            "{}{family}/{}-{}",
            self.subnets(),
            subnet.ip(),
            subnet.prefix()
        )
    }

    /// What a key is about; an error if beeline does not write such keys.
    pub(super) fn parse(&self, key: &[u8]) -> Result<Key> {
        let key = std::str::from_utf8(key).context("not UTF-8")?;
        let rest = key
            .strip_prefix(&self.root)
            .context("not below the prefix")?;
        match rest.split_once('/') {
            None if rest == "config" => Ok(Key::Config),
            Some(("nodes", name)) if valid_name(name) => Ok(Key::Node(name.to_owned())),
            Some(("subnets", subnet)) => {
                let (_, subnet) = subnet.split_once('/').context("no family")?;
                let (address, length) = subnet.rsplit_once('-').context("no length")?;
                let subnet = IpNetwork::new(address.parse()?, length.parse()?)?;
                // Else two keys could mean one subnet.
                ensure!(
                    self.subnet(subnet) == key,
                    "not how beeline writes {subnet}"
                );
                Ok(Key::Subnet(subnet))
            }
            _ => anyhow::bail!("neither a node nor a subnet"),
        }
    }
}

/// Whether a node can have this name, which becomes the end of a key.
pub(super) fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && !name.contains(|c: char| c == '/' || c.is_control())
}

/// The member that a node's key and value tell of.
///
/// Its pod CIDRs are refused unless they are subnets of the cluster's ranges: a value of `0.0.0.0/0` would else draw
/// all traffic of all nodes.
pub(super) fn member(name: String, value: &[u8], since: i64, ranges: &[Range]) -> Result<Member> {
    let NodeValue {
        mut addresses,
        pod_cidrs,
        ..
    } = serde_json::from_slice(value)?;
    for (index, cidr) in pod_cidrs.iter().enumerate() {
        ensure!(
            ranges.iter().any(|range| range.has(*cidr)),
            "pod CIDR {cidr}: not a subnet of the cluster's"
        );
        let mut others = pod_cidrs[..index].iter();
        ensure!(
            others.all(|other| other.is_ipv4() != cidr.is_ipv4()),
            "pod CIDR {cidr}: more than one of its family"
        );
    }
    addresses.retain(usable);
    Ok(Member {
        name,
        pod_cidrs,
        addresses,
        since,
    })
}

/// Whether other nodes can reach a node by this address.
pub(super) fn usable(address: &IpAddr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("/beeline/")
    }

    #[test]
    fn keys_are_named_for_people_and_read_back() {
        let keys = keys();
        let node = keys.node("node-1.example");
        assert_eq!(node, "/beeline/v1/nodes/node-1.example");
        assert_eq!(
            keys.parse(node.as_bytes()).unwrap(),
            Key::Node("node-1.example".to_owned())
        );
        assert_eq!(keys.parse(keys.config().as_bytes()).unwrap(), Key::Config);
        for (subnet, key) in [
            ("10.244.7.0/24", "/beeline/v1/subnets/ipv4/10.244.7.0-24"),
            (
                "fd00:10:244:7::/64",
                "/beeline/v1/subnets/ipv6/fd00:10:244:7::-64",
            ),
        ] {
            let subnet = subnet.parse().unwrap();
            assert_eq!(keys.subnet(subnet), key);
            assert_eq!(keys.parse(key.as_bytes()).unwrap(), Key::Subnet(subnet));
        }
    }

    #[test]
    fn foreign_keys_are_refused() {
        for key in [
            "/beeline/v1/",
            "/beeline/v1/nodes/",
            "/beeline/v1/nodes/a/b",
            "/beeline/v1/subnets/ipv4",
            "/beeline/v1/subnets/ipv4/10.0.0.0",
            "/beeline/v1/subnets/ipv4/10.0.0.0-33",
            "/beeline/v1/subnets/ipv6/10.0.0.0-24",
            "/beeline/v1/subnets/ipv6/fd00:0::-64",
            "/beeline/v1/subnets/ipv4/x-24",
            "/other/v1/nodes/a",
        ] {
            assert!(keys().parse(key.as_bytes()).is_err(), "{key}");
        }
        assert!(keys().parse(b"/beeline/v1/nodes/\xff").is_err());
    }

    fn ranges() -> Vec<Range> {
        let range = |cidr: &str, subnet_length| Range {
            cluster_cidr: cidr.parse().unwrap(),
            subnet_length,
        };
        vec![range("10.244.0.0/16", 24), range("fd00:10:244::/48", 64)]
    }

    #[test]
    fn a_member_is_what_its_value_says_without_addresses_that_reach_nobody() {
        let value = br#"{"machine": "m", "addresses": ["10.0.0.1", "127.0.0.1", "fd00::1", "::"],
            "podCIDRs": ["10.244.7.0/24", "fd00:10:244:7::/64"], "later": true}"#;
        let member = member("a".to_owned(), value, 7, &ranges()).unwrap();
        let strings: Vec<_> = member.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(strings, ["10.244.7.0/24", "fd00:10:244:7::/64"]);
        assert_eq!(
            member.addresses,
            ["10.0.0.1", "fd00::1"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert_eq!((member.name.as_str(), member.since), ("a", 7));
    }

    #[test]
    fn values_that_would_harm_are_refused() {
        for value in [
            "",
            "7",
            "{}",
            "\u{0}",
            r#"{"machine":"m","addresses":["x"],"podCIDRs":[]}"#,
            r#"{"machine":"m","addresses":[],"podCIDRs":["0.0.0.0/0"]}"#,
            r#"{"machine":"m","addresses":[],"podCIDRs":["10.244.0.0/16"]}"#,
            r#"{"machine":"m","addresses":[],"podCIDRs":["10.244.1.1/24"]}"#,
            r#"{"machine":"m","addresses":[],"podCIDRs":["10.244.1.0/24","10.244.2.0/24"]}"#,
        ] {
            assert!(
                member("a".to_owned(), value.as_bytes(), 1, &ranges()).is_err(),
                "{value}"
            );
        }
    }
}
