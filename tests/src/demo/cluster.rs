//! The demo's nodes and pods.

use std::time::Duration;

use anyhow::{Context, Result};

use super::table::Table;
use crate::interrupt;
use crate::pod::Pod;
use crate::topology::{Topology, TopologySpec};

/// More pods than this are summed up by node.
const LISTED: usize = 12;

/// Nodes with their pods; pods are listed node by node.
pub(super) struct Cluster {
    pub(super) pods: Vec<Pod>,
    pub(super) topology: Topology,
}

impl Cluster {
    /// Brings up nodes, then `pods(index)` pods on each.
    pub(super) fn up(spec: &TopologySpec, pods: impl Fn(usize) -> u16) -> Result<Self> {
        let topology = Topology::new(spec)?;
        let mut cluster = Self {
            pods: Vec::new(),
            topology,
        };
        for node in cluster.topology.nodes() {
            for number in 1..=pods(node.index()) {
                interrupt::check()?;
                let pod = node.try_add_pod(&format!("pod{number}"));
                cluster
                    .pods
                    .push(pod.with_context(|| format!("{}: pod{number}", node.name()))?);
            }
        }
        Ok(cluster)
    }

    /// The pods of one node, which counts from 1.
    pub(super) fn pods_of(&self, node: usize) -> impl Iterator<Item = &Pod> {
        self.pods
            .iter()
            .filter(move |pod| pod.node().index() == node)
    }

    /// Prints who is where and how long each ADD took.
    pub(super) fn print(&self) {
        let mut table = Table::new(5, ["node", "address", "pod CIDR", "pod", "address", "ADD"]);
        for node in self.topology.nodes() {
            let mut times: Vec<_> = self.pods_of(node.index()).map(Pod::add_time).collect();
            let [name, address, cidr] = [
                short(node.name()),
                node.address().to_string(),
                node.pod_cidr().to_string(),
            ];
            if self.pods.len() > LISTED {
                times.sort_unstable();
                let [first, last] = [times[0], times[times.len() - 1]].map(milliseconds);
                let median = milliseconds(times[times.len() / 2]);
                table.row([
                    name,
                    address,
                    cidr,
                    times.len().to_string(),
                    "".into(),
                    format!("{first} … {median} … {last}"),
                ]);
                continue;
            }
            for (row, pod) in self.pods_of(node.index()).enumerate() {
                // A node's own columns are filled once.
                let [name, address, cidr] = [&name, &address, &cidr].map(|cell| {
                    if row == 0 {
                        cell.clone()
                    } else {
                        String::new()
                    }
                });
                let pod_name = pod.name().rsplit('-').next().unwrap_or_default().to_owned();
                table.row([
                    name,
                    address,
                    cidr,
                    pod_name,
                    pod.ip().to_string(),
                    milliseconds(pod.add_time()),
                ]);
            }
        }
        table.print();
    }

    /// Detaches all pods and removes everything; returns what went wrong or was still reserved.
    pub(super) fn down(self) -> Vec<String> {
        let Self { pods, topology } = self;
        let mut failures: Vec<_> = pods
            .into_iter()
            .filter_map(|pod| pod.delete().err())
            .map(|error| format!("DEL: {error:#}"))
            .collect();
        for node in topology.nodes() {
            failures.extend(
                node.reserved()
                    .iter()
                    .map(|ip| format!("{}: {ip} is still reserved", node.name())),
            );
        }
        failures
    }

    /// Leaves all of it up.
    pub(super) fn keep(self) {
        self.pods.into_iter().for_each(Pod::keep);
        self.topology.keep();
    }
}

/// A node's name without the owner's prefix.
pub(super) fn short(name: &str) -> String {
    name.rsplit('-').next().unwrap_or(name).to_owned()
}

/// A duration for people.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
