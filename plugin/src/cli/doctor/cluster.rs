//! Cluster mode: the agent, what it reported, and whether the configuration goes with it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ipnetwork::IpNetwork;

use super::{
    cluster_problems as problems,
    finding::{Commands, Finding, Severity, count, names},
    known::Networks,
};
use crate::node::{Plan, Record, Store, Whole, cluster::Cluster};

const CHECK: &str = "cluster";

/// What is known of a network in cluster mode.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) record: &'a Record,
    /// Where it is kept what the agent knows.
    pub(super) file: PathBuf,
    /// That; none if it cannot be read.
    pub(super) cluster: Option<Cluster>,
    /// Whether an agent runs.
    pub(super) agent: bool,
    /// What the configuration says now, and where.
    pub(super) configured: Option<(&'a Plan, &'a Path)>,
    /// Plugins of the agent's template that the runtime's directory does not have.
    pub(super) left_out: Vec<String>,
    /// The runtime's directory of plugins.
    pub(super) bin_dir: &'a Path,
}

impl<'a> Facts<'a> {
    /// Reads it; none if no agent keeps the network's peers.
    pub(super) fn read(
        store: &Store,
        record: &'a Record,
        whole: &Whole,
        networks: &'a Networks,
    ) -> Result<Option<Self>> {
        if !store.is_clustered() {
            return Ok(None);
        }
        let configured = networks.configured(&record.plan.network);
        Ok(Some(Self {
            record,
            file: store.cluster_file(),
            // It may be there without being what counts.
            cluster: whole.cluster.clone().or_else(|| store.cluster()),
            agent: store.has_agent()?,
            configured: configured.map(|configured| (&configured.plan, &*configured.path)),
            left_out: configured.map_or_else(Vec::new, |configured| networks.left_out(configured)),
            bin_dir: &networks.programs.directory,
        }))
    }
}

/// Judges it.
pub(super) fn judge(facts: &Facts<'_>, commands: &Commands) -> Vec<Finding> {
    let backend = facts.cluster.as_ref().map_or("", |known| &known.backend);
    let mut found = vec![agent(facts, backend)];
    match &facts.cluster {
        Some(cluster) => found.extend(members(cluster)),
        None => found.push(say(
            &facts.file.display().to_string(),
            "cannot be read: no peer is known".to_owned(),
            restart(backend).to_owned(),
        )),
    }
    found.extend(named_peers(facts, commands));
    found.extend(other_cidrs(facts, backend, commands));
    if !facts.left_out.is_empty() {
        let (plugins, bin) = (names(&facts.left_out), facts.bin_dir.display());
        found.push(say(
            &format!("plugins {plugins}"),
            format!("are not in {bin}: the agent left them out of the configuration"),
            commands.repaired(
                format!("install {plugins} of the CNI plugins into {bin}"),
                "takes them in",
            ),
        ));
    }
    found
}

fn say(object: &str, message: String, fix: String) -> Finding {
    Finding::new(CHECK, Severity::Warning, object, message, fix)
}

fn agent(facts: &Facts<'_>, backend: &str) -> Finding {
    let node = facts.cluster.as_ref().map_or("", |known| &known.node);
    let object = format!("agent of node {node}");
    if facts.agent {
        let message = format!("runs, by {backend}; repairs within a minute what has drifted");
        return Finding::ok(CHECK, object, message);
    }
    let message = "does not run: packets and new pods go on, but peers that come, change or go are not followed";
    say(&object, message.to_owned(), restart(backend).to_owned())
}

/// What shows why there is no agent, and how to start it.
fn restart(backend: &str) -> &'static str {
    match backend {
        "etcd" => "systemctl status beeline-agent; systemctl restart beeline-agent",
        _ => "kubectl -n kube-system get pods -l app.kubernetes.io/name=beeline -o wide",
    }
}

/// The other nodes: how many there are, and which cannot be peers.
fn members(cluster: &Cluster) -> Vec<Finding> {
    let mut found = problems::judge(cluster);
    if !found.is_empty() {
        return found;
    }
    let mut nodes: Vec<&str> = cluster.peers.iter().map(|peer| &*peer.name).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let (cidrs, object) = (cluster.peers.len(), "nodes");
    found.push(match nodes.len() {
        0 => Finding::new(
            CHECK,
            Severity::Note,
            object,
            "this one is the only one of the cluster",
            match &*cluster.backend {
                "etcd" => "agents of one cluster have the same --endpoints and --prefix",
                _ => "kubectl get nodes",
            },
        ),
        others => Finding::ok(
            CHECK,
            object,
            format!(
                "{} with {}, none of which overlap",
                count(others, "peer"),
                count(cidrs, "pod CIDR")
            ),
        ),
    });
    found
}

/// A configuration that names peers itself.
fn named_peers(facts: &Facts<'_>, commands: &Commands) -> Option<Finding> {
    let configured = facts
        .configured
        .filter(|(plan, _)| !plan.peers().is_empty());
    let (object, place) = match configured {
        Some((_, path)) => (path.display().to_string(), path.display().to_string()),
        None if !facts.record.plan.peers().is_empty() => {
            let place = "the network's configuration".to_owned();
            (format!("bridge {}", facts.record.plan.bridge.name), place)
        }
        None => return None,
    };
    let load = &commands.load;
    let remove = format!("remove datapath.peers from {place}, then {load}");
    let fix = match facts.agent {
        true => commands.repaired(remove, "writes it anew"),
        false => format!(
            "without an agent: rm '{}'; else {remove}",
            facts.file.display()
        ),
    };
    let message = "names peers itself (datapath.peers): those of the agent do not count";
    Some(say(&object, message.to_owned(), fix))
}

/// A configuration of other pod CIDRs than the node was set up for: the agent does that first, then writes it.
fn other_cidrs(facts: &Facts<'_>, backend: &str, commands: &Commands) -> Option<Finding> {
    let (now, path) = facts.configured?;
    let (configured, held) = (sorted(&now.pod_cidrs), sorted(&facts.record.plan.pod_cidrs));
    if configured == held {
        return None;
    }
    let fix = match facts.agent {
        true => commands.repaired(commands.load.clone(), "writes it anew"),
        false => format!(
            "start the agent, which asks the cluster: {}",
            restart(backend)
        ),
    };
    Some(say(
        &path.display().to_string(),
        format!(
            "gives pods addresses of {}, but the node was set up for {}",
            list(&configured),
            list(&held)
        ),
        fix,
    ))
}

fn sorted(cidrs: &[IpNetwork]) -> Vec<IpNetwork> {
    let mut cidrs = cidrs.to_vec();
    cidrs.sort_unstable();
    cidrs
}

fn list(cidrs: &[IpNetwork]) -> String {
    let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    match &cidrs[..] {
        [] => "no CIDR".to_owned(),
        cidrs => names(cidrs),
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
