//! The nodes that an agent could not take for peers: why, and what to do on the cluster's side.

use std::collections::BTreeMap;

use super::finding::{Finding, Severity, names};
use crate::node::cluster::Cluster;

const CHECK: &str = "cluster";

/// What keeps a node from being a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    NoCidr,
    NoAddress,
    /// Another node, or itself, has these addresses too.
    Overlap,
    /// Something that was not foreseen here.
    Other,
}

/// A problem as an agent words it: `node <name>: <what>`.
struct Problem<'a> {
    reason: Reason,
    node: Option<&'a str>,
    text: &'a str,
}

impl<'a> Problem<'a> {
    fn parse(text: &'a str) -> Self {
        let named = text.strip_prefix("node ");
        let Some((node, what)) = named.and_then(|rest| rest.split_once(": ")) else {
            return Self {
                reason: Reason::Other,
                node: None,
                text,
            };
        };
        let reason = match what {
            "has no pod CIDR" => Reason::NoCidr,
            "has no address" => Reason::NoAddress,
            what if what.contains(": overlaps ") => Reason::Overlap,
            _ => Reason::Other,
        };
        Self {
            reason,
            node: Some(node),
            text,
        }
    }

    /// The node, and what cannot be told of all alike.
    fn object(&self) -> String {
        match (self.reason, self.node) {
            (Reason::NoCidr | Reason::NoAddress, Some(node)) => node.to_owned(),
            _ => self
                .text
                .strip_prefix("node ")
                .unwrap_or(self.text)
                .to_owned(),
        }
    }
}

/// Judges the problems: a finding a reason, however many nodes have it.
pub(super) fn judge(cluster: &Cluster) -> Vec<Finding> {
    let mut alike: BTreeMap<Reason, Vec<Problem<'_>>> = BTreeMap::new();
    for problem in cluster.problems.iter().map(|text| Problem::parse(text)) {
        alike.entry(problem.reason).or_default().push(problem);
    }
    let finding = |(reason, problems): (Reason, Vec<Problem<'_>>)| {
        let objects: Vec<String> = problems.iter().map(Problem::object).collect();
        let mut nodes = problems.iter().filter_map(|problem| problem.node);
        let first = nodes.next().unwrap_or("<node>");
        Finding::new(
            CHECK,
            Severity::Warning,
            format!("nodes {}", names(&objects)),
            message(reason),
            fix(reason, &cluster.backend, first),
        )
    };
    alike.into_iter().map(finding).collect()
}

const fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::NoCidr => "have no pod CIDR: their pods are not reached",
        Reason::NoAddress => "have no address: their pods are not reached",
        Reason::Overlap => {
            "claim addresses of another: their pods are not reached, the older keeps them"
        }
        Reason::Other => "cannot be peers: their pods are not reached",
    }
}

fn fix(reason: Reason, backend: &str, node: &str) -> String {
    let etcd = backend == "etcd";
    match (reason, etcd) {
        (Reason::NoCidr, false) => {
            "kube-controller-manager with --allocate-node-cidrs=true and --cluster-cidr (kubeadm: podSubnet), \
             large enough for all nodes"
                .to_owned()
        }
        (Reason::NoCidr, true) => {
            "start their agents (systemctl start beeline-agent); --cluster-cidr must be large enough for all nodes"
                .to_owned()
        }
        (Reason::NoAddress, false) => {
            format!("the kubelet's --node-ip there; `kubectl get node {node} -o wide` shows it as INTERNAL-IP")
        }
        (Reason::NoAddress, true) => "--node-address of their agents".to_owned(),
        (Reason::Overlap | Reason::Other, false) => format!(
            "a pod CIDR of a Node stays as it is: make the Node anew, \
             `kubectl drain {node} --ignore-daemonsets && kubectl delete node {node}`, then restart its kubelet"
        ),
        (Reason::Overlap | Reason::Other, true) => format!(
            "on {node}: stop the agent, run `beeline-agent etcd` with its options and --release, start it; \
             all agents must have the same --cluster-cidr and subnet lengths"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(backend: &str, problems: &[&str]) -> Vec<Finding> {
        judge(&Cluster {
            backend: backend.to_owned(),
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            ..Cluster::default()
        })
    }

    #[test]
    fn nodes_with_one_problem_are_one_warning_with_its_fix() {
        let found = judged(
            "kubernetes",
            &[
                "node b: has no pod CIDR",
                "node c: has no address",
                "node d: has no pod CIDR",
            ],
        );
        let said = |finding: &Finding| (finding.severity, finding.object.clone());
        assert_eq!(
            found.iter().map(said).collect::<Vec<_>>(),
            [
                (Severity::Warning, "nodes b, d".to_owned()),
                (Severity::Warning, "nodes c".to_owned())
            ]
        );
        let fix = |at: usize| found[at].fix.clone().unwrap();
        assert!(fix(0).contains("--allocate-node-cidrs"), "{}", fix(0));
        assert!(fix(1).contains("kubectl get node c "), "{}", fix(1));
    }

    #[test]
    fn a_cidr_that_two_claim_names_both_nodes_and_makes_the_younger_anew() {
        let problem = "node young: pod CIDR 10.244.2.0/24: overlaps 10.244.2.0/24 of node old";
        for (backend, part) in [("kubernetes", "delete node young"), ("etcd", "--release")] {
            let found = judged(backend, &[problem]);
            assert_eq!(
                found[0].object,
                "nodes young: pod CIDR 10.244.2.0/24: overlaps 10.244.2.0/24 of node old"
            );
            let fix = found[0].fix.clone().unwrap();
            assert!(fix.contains(part) && fix.contains("young"), "{fix}");
        }
    }

    #[test]
    fn what_was_not_foreseen_is_told_as_it_is() {
        for problem in ["node c: pod CIDR 10.0.0.1/8: host bits set", "something"] {
            let found = judged("etcd", &[problem]);
            let text = problem.strip_prefix("node ").unwrap_or(problem);
            assert_eq!(found[0].object, format!("nodes {text}"));
        }
        assert_eq!(judged("etcd", &[]), []);
    }
}
