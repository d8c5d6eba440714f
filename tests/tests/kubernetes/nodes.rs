//! Nodes that leave the cluster and come back.

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::fixture::{on, settled};
use crate::members::MadeUp;
use crate::network::{self, Network};
use crate::node::Node;
use crate::reach;
use crate::wait::{seconds, wait_for};

#[test]
fn a_node_that_was_deleted_and_comes_back_has_new_pods_and_nothing_of_its_old_subnet() {
    on(Network::Agent, |lab| {
        lab.pods()?;
        let cluster = &lab.cluster;
        let (one, two) = (cluster.node(1), cluster.node(2));
        let old = cluster.pod_cidrs(two)?;
        cluster.stop("kubelet2")?;
        cluster.kubectl(&["delete", "node", two.name()])?;
        forgotten(one, &old)?;
        // A controller manager that was restarted may give out again what is free; no peer, as it has no address.
        let holder = MadeUp {
            name: "holder",
            pod_cidr: Some(&old[0]),
            ip: None,
        };
        cluster.register(&holder)?;
        cluster.start_missing()?;
        cluster.wait_until_ready()?;
        let new = cluster.pod_cidrs(two)?;
        ensure!(old != new, "{old:?} again");
        configured(cluster, two, &new)?;
        forgotten(one, &old)?;
        cluster.unregister(&[&holder])?;

        lab.remove_pods()?;
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        let subnet: ipnetwork::IpNetwork = new[0].parse()?;
        ensure!(
            subnet.contains(pods.c.ip()),
            "{} not in {subnet}",
            pods.c.ip()
        );
        reach::directly(cluster, pods)?;
        settled(cluster)
    });
}

/// Waits until a node has neither routes to these subnets nor peers in them.
fn forgotten(node: &Node, cidrs: &[String]) -> Result<()> {
    wait_for(
        &format!("{}: {cidrs:?} forgotten", node.name()),
        seconds(30),
        || {
            let routes = node.shell("ip route; ip -6 route")?;
            let peers = node.status()?["peers"].clone();
            for cidr in cidrs {
                let routed = routes.lines().any(|route| route.starts_with(cidr.as_str()));
                ensure!(!routed, "{routes}");
                ensure!(peers.get(cidr).is_none(), "{peers}");
            }
            Ok(())
        },
    )
}

/// Waits until a node's configuration has these subnets.
fn configured(cluster: &Cluster, node: &Node, cidrs: &[String]) -> Result<()> {
    wait_for(
        &format!("{}: {cidrs:?} configured", node.name()),
        seconds(60),
        || {
            let conflist = node.shell("cat /etc/cni/net.d/10-beeline.conflist")?;
            let all = cidrs.iter().all(|cidr| conflist.contains(cidr.as_str()));
            ensure!(all, "{conflist}");
            cluster.wait_until_ready()
        },
    )
}
