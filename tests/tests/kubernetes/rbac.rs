//! What the agent may do by the API.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::fixture::on;
use crate::network::Network;

const AGENT: &str = "system:serviceaccount:kube-system:beeline";

/// Whoever has no rights but those that all have.
const ANYONE: &str = "system:serviceaccount:kube-system:nobody";

#[test]
fn the_agent_may_do_what_it_needs_and_nothing_more() {
    on(Network::Agent, |lab| {
        let everywhere = ["nodes [] [] [get list watch]", "nodes/status [] [] [patch]"];
        let own = "daemonsets.apps [] [beeline] [get list watch]";
        for (namespace, expected) in [
            ("default", everywhere.to_vec()),
            ("kube-system", [&[own][..], &everywhere].concat()),
        ] {
            let all = rights(&lab.cluster, AGENT, namespace)?;
            let common = rights(&lab.cluster, ANYONE, namespace)?;
            ensure!(!common.is_empty(), "nobody has rights");
            let more: Vec<&String> = all.difference(&common).collect();
            ensure!(more == expected, "{namespace}: {more:#?}");
        }
        Ok(())
    });
}

/// All rights in a namespace: resources, URLs, names, verbs.
fn rights(cluster: &Cluster, who: &str, namespace: &str) -> Result<BTreeSet<String>> {
    let list = ["auth", "can-i", "--list", "--no-headers"];
    let table = cluster.kubectl(&[&list[..], &["--as", who, "-n", namespace]].concat())?;
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(table.lines().map(line).collect())
}
