//! Nodes of Kubernetes, as far as they matter here: of the many kilobytes of one, a few dozen bytes.

use std::borrow::Cow;

use ipnetwork::IpNetwork;
use k8s_openapi::{ClusterResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;

use crate::backend::Member;

/// A node object.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Vec<Address>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Node {
    /// The node's name.
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// What `NetworkUnavailable` says, if anything does.
    pub(super) fn network_unavailable(&self) -> Option<&str> {
        let conditions = &mut self.status.conditions.iter();
        let condition = conditions.find(|condition| condition.kind == "NetworkUnavailable");
        condition.map(|condition| &*condition.status)
    }

    /// The node as a member of the cluster. CIDRs and addresses that are none are logged, and left out.
    pub(super) fn member(&self) -> Member {
        let name = self.name();
        let cidrs = match self.spec.pod_cidrs.is_empty() {
            // Servers before 1.16 know only one.
            true => self.spec.pod_cidr.as_slice(),
            false => &self.spec.pod_cidrs,
        };
        let pod_cidrs = cidrs.iter().filter_map(|text| {
            let cidr = text.parse::<IpNetwork>();
            cidr.inspect_err(|_| tracing::warn!("node {name}: podCIDR {text:?}: not a CIDR"))
                .ok()
        });
        let internal = self
            .status
            .addresses
            .iter()
            .filter(|a| a.kind == "InternalIP");
        let addresses = internal.filter_map(|Address { address, .. }| {
            let ip = address.parse();
            ip.inspect_err(|_| tracing::warn!("node {name}: InternalIP {address:?}: no address"))
                .ok()
        });
        let created = self.metadata.creation_timestamp.as_ref();
        Member {
            name: name.to_owned(),
            pod_cidrs: pod_cidrs.collect(),
            addresses: addresses.collect(),
            since: created.map_or(i64::MAX, |time| time.0.as_second()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_has_pod_cidrs_internal_addresses_and_an_age() {
        let node = node(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node1", "creationTimestamp": "1970-01-02T00:00:00Z"},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:244::/64"], "taints": [{}]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "node1"},
                    {"type": "InternalIP", "address": "172.31.0.11"},
                    {"type": "ExternalIP", "address": "203.0.113.1"},
                ],
                "conditions": [{"type": "NetworkUnavailable", "status": "True"}],
                "images": [{"names": ["x"], "sizeBytes": 1}],
            }
        }));
        let member = node.member();
        assert_eq!((&*member.name, member.since), ("node1", 86400));
        assert_eq!(member.pod_cidrs.len(), 2);
        assert_eq!(
            member.addresses,
            ["172.31.0.11".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(node.network_unavailable(), Some("True"));
    }

    #[test]
    fn what_is_missing_or_no_address_leaves_nothing() {
        let fresh = node(json!({"metadata": {"name": "n"}}));
        assert_eq!(fresh.member().pod_cidrs, []);
        assert_eq!(fresh.network_unavailable(), None);
        let odd = node(json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDRs": ["10.244.0.0/33", "x"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "x"}]}
        }));
        assert_eq!(
            (odd.member().pod_cidrs, odd.member().addresses),
            (vec![], vec![])
        );
    }

    #[test]
    fn an_old_server_tells_one_cidr() {
        let old = node(json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.0.0/24"}}));
        assert_eq!(old.member().pod_cidrs.len(), 1);
    }
}
