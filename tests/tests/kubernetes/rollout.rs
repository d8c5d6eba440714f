//! Upgrades of the agent, under traffic.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::fixture::{on, settled};
use crate::network::{self, IMAGE, Network};
use crate::traffic;

const DAEMON_SET: [&str; 3] = ["daemonset/beeline", "--namespace", "kube-system"];

#[test]
fn traffic_goes_on_during_a_restart_of_all_agents() {
    upgrade(|cluster| {
        let restart = [&["rollout", "restart"], &DAEMON_SET[..]].concat();
        cluster.kubectl(&restart).map(drop)
    });
}

#[test]
fn traffic_goes_on_during_an_upgrade_to_another_image() {
    let next = format!("{IMAGE}-next");
    upgrade(|cluster| {
        for node in cluster.nodes() {
            node.tag(IMAGE, &next)?;
        }
        let image = format!("*={next}");
        let change = [&["set", "image"], &DAEMON_SET[..], &[&image]].concat();
        cluster.kubectl(&change).map(drop)
    });
}

/// Has all agents replaced, one by one, while pods talk to each other.
#[track_caller]
fn upgrade(start: impl FnOnce(&Cluster) -> Result<()> + Send) {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        traffic::during(&[(&pods.a, &pods.c), (&pods.a, &pods.b)], || {
            start(cluster)?;
            network::wait_for_agent(cluster)
        })?;
        settled(cluster)
    });
}
