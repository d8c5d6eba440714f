//! The wires of a topology: a switch or a router that nodes and the outside host are connected to.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::exec;
use crate::netns::Namespace;
use crate::node::Node;
use crate::plan::{self, Family, Host, Plan, Underlay};
use crate::wait;

/// The middle of a topology and its ends, to be connected.
pub(crate) struct Wiring<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) middle: &'a Namespace,
    pub(crate) outside: &'a Namespace,
    pub(crate) mtus: &'a [u32],
}

impl Wiring<'_> {
    /// Connects the nodes and the outside host, and gives all of them addresses and routes.
    pub(crate) fn connect<'n>(&self, nodes: impl Iterator<Item = &'n Node> + Clone) -> Result<()> {
        match self.plan.underlay {
            Underlay::Switch => self.switch(nodes.clone())?,
            Underlay::Router => self.router(nodes.clone())?,
        }
        self.outside()?;
        nodes.into_iter().try_for_each(|node| self.node(node))?;
        self.wait()
    }

    /// Connects a node anew whose wire is gone, to a switch and with the MAC that its uplink had: the others know it.
    pub(crate) fn reconnect(&self, node: &Node, mac: &str) -> Result<()> {
        ensure!(self.plan.underlay == Underlay::Switch, "there is no switch");
        let mut commands = Vec::new();
        let ports = self.ports([node].into_iter()).into_iter();
        for (port, _, veth) in ports.filter(|(_, host, _)| matches!(host, Host::Node(_))) {
            commands.extend([veth, format!("link set {port} master switch up")]);
        }
        exec::ip_batch(self.middle, &commands)?;
        exec::ip_batch(node.netns(), &[format!("link set eth0 address {mac}")])?;
        self.node(node)?;
        self.wait()
    }

    /// Waits until the middle forwards: the kernel tells it that an end is up from a work queue, which may be behind.
    fn wait(&self) -> Result<()> {
        let deadline = wait::deadline(Duration::from_secs(10));
        loop {
            let mut command = self.middle.command("ip");
            let links: Vec<Value> = exec::json(command.args(["-json", "link"]))?;
            let down = |link: &&Value| link["ifname"] != "lo" && link["operstate"] != "UP";
            let Some(down) = links.iter().find(down) else {
                return Ok(());
            };
            ensure!(Instant::now() < deadline, "{}: is not up", down["ifname"]);
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn families(&self) -> impl Iterator<Item = Family> + Clone {
        self.plan.families.list().iter().copied()
    }

    /// A veth pair from a port of the middle to the uplink of each end.
    fn ports<'n>(&self, nodes: impl Iterator<Item = &'n Node>) -> Vec<(String, Host, String)> {
        let nodes = nodes.map(|node| {
            let mtu = self.mtus.get(node.index() - 1);
            let mtu = mtu.map_or_else(String::new, |mtu| format!("mtu {mtu}"));
            let port = format!("node{}", node.index());
            (port, Host::Node(node.index()), mtu, node.netns().name())
        });
        let outside = (
            "outside".to_owned(),
            Host::Outside,
            String::new(),
            self.outside.name(),
        );
        let connected = nodes.chain([outside]).map(|(port, host, mtu, netns)| {
            let veth =
                format!("link add {port} {mtu} type veth peer name eth0 {mtu} netns {netns}");
            (port, host, veth)
        });
        connected.collect()
    }

    fn switch<'n>(&self, nodes: impl Iterator<Item = &'n Node>) -> Result<()> {
        let mut commands = vec![
            "link add switch type bridge mcast_snooping 0".to_owned(),
            "link set switch up".to_owned(),
        ];
        for (port, _, veth) in self.ports(nodes) {
            commands.extend([veth, format!("link set {port} master switch up")]);
        }
        exec::ip_batch(self.middle, &commands)
    }

    fn router<'n>(&self, nodes: impl Iterator<Item = &'n Node>) -> Result<()> {
        self.middle.write_sysctl("net/ipv4/ip_forward", "1")?;
        if self.families().any(|family| family == Family::V6) {
            self.middle
                .write_sysctl("net/ipv6/conf/all/forwarding", "1")?;
            self.middle
                .write_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        }
        let mut commands = Vec::new();
        for (port, host, veth) in self.ports(nodes) {
            commands.extend([veth, format!("link set {port} up")]);
            for family in self.families() {
                let address = self.plan.router(family, host);
                commands.push(format!("address add {address} dev {port}"));
            }
        }
        for family in self.families() {
            let via = self.plan.address(family, Host::Outside).ip();
            commands.push(format!("route add {} via {via}", plan::outside(family)));
        }
        exec::ip_batch(self.middle, &commands)
    }

    fn outside(&self) -> Result<()> {
        let mut commands = self.uplink(self.outside, Host::Outside)?;
        for family in self.families() {
            commands.push(format!("address add {} dev lo", plan::outside(family)));
            if self.plan.underlay == Underlay::Router {
                let router = self.plan.router(family, Host::Outside).ip();
                commands.push(format!("route add default via {router}"));
            }
        }
        exec::ip_batch(self.outside, &commands)
    }

    fn node(&self, node: &Node) -> Result<()> {
        let index = node.index();
        let mut commands = self.uplink(node.netns(), Host::Node(index))?;
        for family in self.families() {
            let gateway = self.plan.gateway(family, index);
            commands.push(format!("route add default via {gateway}"));
        }
        // The reference plugin knows no peers; beeline adds these routes itself.
        let peers = node.peers().iter().filter(|_| node.plugin().is_reference());
        commands.extend(peers.map(|peer| format!("route add {} via {}", peer.cidr, peer.node)));
        exec::ip_batch(node.netns(), &commands)
    }

    /// Commands that bring an end's uplink up with its addresses.
    fn uplink(&self, end: &Namespace, host: Host) -> Result<Vec<String>> {
        let mut commands = vec!["link set eth0 up".to_owned()];
        for family in self.families() {
            let address = self.plan.address(family, host);
            if family == Family::V6 {
                // A node is up for long before its first pod; who detects duplicates cannot ask for neighbours yet.
                end.write_sysctl("net/ipv6/conf/eth0/accept_dad", "0")?;
            }
            let broadcast = if family == Family::V4 {
                "broadcast +"
            } else {
                ""
            };
            commands.push(format!("address add {address} {broadcast} dev eth0"));
        }
        Ok(commands)
    }
}
