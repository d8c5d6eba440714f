//! A small cluster on one machine: nodes on a switch, and a host outside of the cluster.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use anyhow::{Context, Result, ensure};
use ipnetwork::Ipv4Network;

use crate::exec;
use crate::netns::{Ipv6, Namespace};
use crate::node::{Node, Peer};
use crate::sweep;

/// All pod CIDRs lie in here.
pub const CLUSTER_CIDR: &str = "10.244.0.0/14";

/// An address of the outside host that nodes reach only by their default route.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// A name that the demo uses; tests use [`unique_prefix`].
pub const DEMO_PREFIX: &str = "beeline";

/// What all names of the bench start with.
pub const BENCH_PREFIX: &str = "beeline-bench-";

static COUNT: AtomicUsize = AtomicUsize::new(0);
static SWEPT: Once = Once::new();

/// The CNI plugin under test.
#[derive(Clone, Debug)]
pub struct Plugin(PathBuf);

impl Plugin {
    /// Takes the absolute path of an executable, whose file name is the `type` in the configuration.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        ensure!(
            path.is_absolute() && path.is_file(),
            "{}: no plugin there; build it with `cargo xtask build`, or set BEELINE_BIN to an absolute path",
            path.display()
        );
        Ok(Self(path))
    }

    /// Takes the plugin from `BEELINE_BIN`, else the workspace's release build.
    pub fn from_env() -> Result<Self> {
        let built = || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .with_file_name("target")
                .join("release/beeline")
        };
        Self::new(std::env::var_os("BEELINE_BIN").map_or_else(built, PathBuf::from))
    }

    /// The executable.
    pub fn path(&self) -> &PathBuf {
        &self.0
    }

    /// The `type` in the configuration.
    pub fn kind(&self) -> String {
        self.0
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Directories to search for plugins: its own, then the distribution's for delegated and chained ones.
    pub fn search_path(&self) -> String {
        let own = self
            .0
            .parent()
            .map(|dir| dir.display().to_string())
            .unwrap_or_default();
        if own == "/usr/lib/cni" {
            own
        } else {
            format!("{own}:/usr/lib/cni")
        }
    }

    /// Whether this is the reference plugin, which knows nothing of peers and datapaths.
    pub fn is_reference(&self) -> bool {
        self.kind() == "bridge"
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct TopologySpec {
    /// Starts every name; tells owners apart.
    pub prefix: String,
    /// How many nodes.
    pub nodes: usize,
    /// The plugin that nodes execute.
    pub plugin: Plugin,
    /// The `datapath.mode` that nodes are configured with.
    pub mode: String,
}

/// Nodes on a switch and an outside host; all of it goes on drop.
#[derive(Debug)]
pub struct Topology {
    prefix: String,
    nodes: Vec<Arc<Node>>,
    outside: Namespace,
    switch: Namespace,
}

impl Topology {
    /// Builds the namespaces, the underlay and each node's default configuration; no plugin runs yet.
    pub fn new(spec: &TopologySpec) -> Result<Self> {
        SWEPT.call_once(|| drop(sweep::dead_owners()));
        ensure!(
            (1..=1000).contains(&spec.nodes),
            "{} nodes: between 1 and 1000 are possible",
            spec.nodes
        );
        let plan = Plan { nodes: spec.nodes };
        let switch = Namespace::create(&format!("{}-switch", spec.prefix), Ipv6::Disabled)?;
        let outside = Namespace::create(&format!("{}-outside", spec.prefix), Ipv6::Disabled)?;
        let node = |index| {
            Node::create(
                spec,
                index,
                plan.address(index),
                plan.pod_cidr(index),
                plan.peers_of(index),
            )
        };
        let nodes: Vec<_> = (1..=spec.nodes)
            .map(|index| node(index).map(Arc::new))
            .collect::<Result<_>>()?;
        let topology = Self {
            prefix: spec.prefix.clone(),
            nodes,
            outside,
            switch,
        };
        topology.connect(&plan).context("underlay")?;
        for node in &topology.nodes {
            node.config().install()?;
        }
        Ok(topology)
    }

    /// What all its names start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// All nodes, the first with index 1.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The nodes as an array, to take apart; panics if there are not exactly `N`.
    pub fn take<const N: usize>(&self) -> [Arc<Node>; N] {
        let nodes = self.nodes.clone();
        nodes
            .try_into()
            .unwrap_or_else(|nodes: Vec<_>| panic!("asked for {N} nodes of {}", nodes.len()))
    }

    /// The host that is on the switch but not in the cluster, and has no route to pods.
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The namespace with the switch.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Leaves everything in place for somebody to look around; [`sweep::demo`] removes it.
    pub fn keep(self) {
        self.switch.keep();
        self.outside.keep();
        self.nodes.into_iter().for_each(std::mem::forget);
    }

    fn connect(&self, plan: &Plan) -> Result<()> {
        let mut switch = vec![
            "link add switch type bridge mcast_snooping 0".to_owned(),
            "link set switch up".to_owned(),
        ];
        let nodes = self
            .nodes
            .iter()
            .map(|node| (format!("node{}", node.index()), node.netns().name()));
        for (port, netns) in nodes.chain([("outside".to_owned(), self.outside.name())]) {
            switch.push(format!(
                "link add {port} type veth peer name eth0 netns {netns}"
            ));
            switch.push(format!("link set {port} master switch up"));
        }
        exec::ip_batch(&self.switch, &switch)?;
        let (gateway, length) = (plan.outside(), plan.prefix_length());
        exec::ip_batch(
            &self.outside,
            &[
                "link set eth0 up".to_owned(),
                format!("address add {gateway}/{length} dev eth0"),
                format!("address add {OUTSIDE}/32 dev lo"),
            ],
        )?;
        for node in &self.nodes {
            let mut commands = vec![
                "link set eth0 up".to_owned(),
                format!(
                    "address add {}/{length} broadcast + dev eth0",
                    node.address()
                ),
                format!("route add default via {gateway}"),
            ];
            // The reference plugin knows no peers; beeline adds these routes itself.
            let peers = node.peers().iter().filter(|_| node.plugin().is_reference());
            commands.extend(peers.map(|peer| format!("route add {} via {}", peer.cidr, peer.node)));
            exec::ip_batch(node.netns(), &commands)?;
        }
        Ok(())
    }
}

/// Returns a prefix that no other topology has, and that tells [`sweep`] whose it is.
pub fn unique_prefix() -> String {
    format!(
        "bl-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Who has which address: the users' own 192.168.1.11… and 10.244.N.0/24, carried on for large clusters.
struct Plan {
    nodes: usize,
}

impl Plan {
    fn is_large(&self) -> bool {
        self.nodes > 240
    }

    fn prefix_length(&self) -> u8 {
        if self.is_large() { 16 } else { 24 }
    }

    fn outside(&self) -> Ipv4Addr {
        if self.is_large() {
            Ipv4Addr::new(192, 168, 0, 254)
        } else {
            Ipv4Addr::new(192, 168, 1, 254)
        }
    }

    fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 1, 10)) + index as u32)
    }

    fn pod_cidr(&self, index: usize) -> Ipv4Network {
        let network = u32::from(Ipv4Addr::new(10, 244, 0, 0)) + (index as u32) * 256;
        Ipv4Network::new(network.into(), 24).expect("24 is a prefix length")
    }

    fn peers_of(&self, index: usize) -> Vec<Peer> {
        let others = (1..=self.nodes).filter(|other| *other != index);
        others
            .map(|other| Peer {
                cidr: self.pod_cidr(other),
                node: self.address(other),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_gives_the_users_own_addresses_and_carries_on_for_a_thousand_nodes() {
        let small = Plan { nodes: 3 };
        assert_eq!(small.address(1), Ipv4Addr::new(192, 168, 1, 11));
        assert_eq!(small.pod_cidr(3).to_string(), "10.244.3.0/24");
        assert_eq!(small.peers_of(2).len(), 2);
        let large = Plan { nodes: 1000 };
        assert_eq!(large.address(1000), Ipv4Addr::new(192, 168, 4, 242));
        assert!(
            CLUSTER_CIDR
                .parse::<Ipv4Network>()
                .unwrap()
                .is_supernet_of(large.pod_cidr(1000))
        );
    }
}
