//! Uninstalling leaves a node as it was, and running pods connected.

use anyhow::{Result, ensure};
use beeline_tests::snapshot::Snapshot;

use crate::fixture::on;
use crate::network::{self, Network};
use crate::node_snapshot;
use crate::traffic;
use crate::wait::{seconds, wait_for};

#[test]
fn nothing_is_left_on_a_node_whose_pods_went_first() {
    on(Network::None, |lab| {
        network::install_agent_image(&lab.cluster)?;
        let nodes = lab.cluster.nodes().iter();
        let before = nodes
            .map(node_snapshot::take)
            .collect::<Result<Vec<Snapshot>>>()?;
        lab.change(Network::Agent)?;
        lab.pods()?;
        for (node, before) in lab.cluster.nodes().iter().zip(&before) {
            let now = node_snapshot::take(node)?;
            for (kind, what) in [
                ("pin", "/sys/fs/bpf/beeline"),
                ("link", "cni0"),
                ("file", ".conflist"),
            ] {
                let seen = now.lines(kind).iter().any(|line| line.contains(what));
                ensure!(
                    seen,
                    "{}: no {what} to be removed: {}",
                    node.name(),
                    before.diff(&now)
                );
            }
        }
        lab.remove_pods()?;
        network::delete_agent(&lab.cluster)?;
        let left = lab
            .cluster
            .nodes()
            .iter()
            .zip(&before)
            .try_for_each(|(node, before)| {
                wait_for(node.name(), seconds(10), || {
                    let left = before.diff(&node_snapshot::take(node)?);
                    ensure!(left.is_empty(), "not as it was before:\n{left}");
                    Ok(())
                })
            });
        let clean = lab.was_taken_down();
        left.and(clean)
    });
}

#[test]
fn running_pods_stay_connected_over_the_bridge() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        traffic::during(&[(&pods.a, &pods.b), (&pods.a, &pods.c)], || {
            network::delete_agent(cluster)
        })?;
        for node in cluster.nodes() {
            let pins = node.shell("find /sys/fs/bpf -path '*/beeline/*' -type f")?;
            ensure!(pins.is_empty(), "{}: still there: {pins}", node.name());
        }
        lab.spend();
        Ok(())
    });
}
