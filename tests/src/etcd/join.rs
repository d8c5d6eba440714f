//! An etcd beside a topology.

use anyhow::Result;

use super::Cluster;
use crate::{exec, plan::Underlay, topology::Topology};

impl Cluster {
    /// Has the nodes of a topology reach the members: by a cable between the switches, or by one more subnet of the router.
    pub fn join(&self, topology: &Topology) -> Result<()> {
        let middle = topology.switch();
        let cable = format!(
            "link add cable type veth peer name etcd netns {}",
            middle.name()
        );
        let cable = [cable, "link set cable master switch up".to_owned()];
        exec::ip_batch(&self.switch, &cable)?;
        let mut members = self.members.iter().map(|member| &member.host.netns);
        let mut nodes = topology.nodes().iter().map(|node| node.netns());
        let add = |netns, route: &str| exec::ip_batch(netns, &[format!("route add {route}")]);
        match topology.underlay() {
            Underlay::Switch => {
                exec::ip_batch(middle, &["link set etcd master switch up".to_owned()])?;
                members.try_for_each(|m| add(m, "192.168.1.0/24 dev eth0"))?;
                nodes.try_for_each(|node| add(node, "10.99.0.0/24 dev eth0"))
            }
            Underlay::Router => {
                let port = ["link set etcd up", "address add 10.99.0.254/24 dev etcd"];
                exec::ip_batch(middle, &port.map(str::to_owned))?;
                members.try_for_each(|m| add(m, "192.168.0.0/16 via 10.99.0.254"))
            }
        }
    }
}
