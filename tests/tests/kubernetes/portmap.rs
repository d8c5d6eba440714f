//! Nodes without a plugin that the manifest chains behind beeline.

use anyhow::{Result, ensure};

use crate::agent_pod;
use crate::cluster::Cluster;
use crate::fixture::on;
use crate::members::NEAR;
use crate::network::{self, Network};
use crate::node::Node;
use crate::wait::{seconds, wait_for};

#[test]
fn without_portmap_the_configuration_leaves_it_out_until_it_is_there() {
    on(Network::Agent, |lab| {
        lab.pods()?;
        let cluster = &lab.cluster;
        network::wait_for_agent(cluster)?;
        let node = cluster.node(2);
        configured(node, true)?;
        node.shell("rm /opt/cni/bin/portmap")?;
        // Any change has the agent look; without one it does so once a minute.
        cluster.register(&NEAR)?;
        let left_out = left_out(cluster, node);
        node.install_reference("portmap")?;
        cluster.unregister(&[&NEAR])?;
        left_out?;
        configured(node, true)?;
        cluster.wait_until_ready()
    });
}

fn left_out(cluster: &Cluster, node: &Node) -> Result<()> {
    configured(node, false)?;
    let said = "plugin portmap: not in --bin-dir, left out of the configuration";
    let log = agent_pod::log(cluster, node)?;
    ensure!(log.contains(said), "{log}");
    let ready = network::agent(node, "/readyz")?;
    ensure!(ready.contains(" 200 "), "{ready}");
    Ok(())
}

/// Waits until a node's configuration has the plugin, or has it not.
fn configured(node: &Node, with: bool) -> Result<()> {
    let what = format!("{}: portmap configured: {with}", node.name());
    wait_for(&what, seconds(90), || {
        let conflist = node.shell("cat /etc/cni/net.d/10-beeline.conflist")?;
        ensure!(conflist.contains("beeline"), "{conflist}");
        ensure!(conflist.contains("portmap") == with, "{conflist}");
        Ok(())
    })
}
