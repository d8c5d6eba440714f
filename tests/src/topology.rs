//! A small cluster on one machine: nodes on a switch or behind a router, and a host outside of the cluster.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::netns::{Ipv6, Namespace};
use crate::node::Node;
use crate::plan::{self, Families, Family, Plan, Underlay};
use crate::underlay::Wiring;
use crate::{exec, process, sweep};

/// The IPv4 address of the outside host that nodes reach only by their default route.
pub const OUTSIDE: IpAddr = plan::outside(Family::V4);

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
    /// The families of all addresses.
    pub families: Families,
    /// What is between nodes.
    pub underlay: Underlay,
    /// The MTU of each node's uplink in bytes, the first node's first; the kernel's default for those left out.
    pub mtus: Vec<u32>,
}

impl TopologySpec {
    /// Nodes on a switch, with IPv4 only, in mode `auto`.
    pub fn new(prefix: impl Into<String>, nodes: usize, plugin: Plugin) -> Self {
        Self {
            prefix: prefix.into(),
            nodes,
            plugin,
            mode: "auto".to_owned(),
            families: Families::default(),
            underlay: Underlay::default(),
            mtus: Vec::new(),
        }
    }
}

/// Nodes, what is between them, and an outside host; all of it goes on drop.
#[derive(Debug)]
pub struct Topology {
    prefix: String,
    nodes: Vec<Arc<Node>>,
    outside: Namespace,
    switch: Namespace,
    underlay: Underlay,
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
        ensure!(
            spec.underlay == Underlay::Switch || spec.nodes <= 200,
            "{} nodes: a router has at most 200 subnets",
            spec.nodes
        );
        let plan = Plan {
            nodes: spec.nodes,
            families: spec.families,
            underlay: spec.underlay,
        };
        let ipv6 = match spec.underlay {
            Underlay::Switch => Ipv6::Disabled,
            Underlay::Router => spec.families.ipv6(),
        };
        let switch = Namespace::create(&format!("{}-switch", spec.prefix), ipv6)?;
        let outside = format!("{}-outside", spec.prefix);
        let outside = Namespace::create(&outside, spec.families.ipv6())?;
        let nodes: Vec<_> = (1..=spec.nodes)
            .map(|index| Node::create(spec, &plan, index).map(Arc::new))
            .collect::<Result<_>>()?;
        let topology = Self {
            prefix: spec.prefix.clone(),
            nodes,
            outside,
            switch,
            underlay: spec.underlay,
        };
        let wiring = Wiring {
            plan: &plan,
            middle: &topology.switch,
            outside: &topology.outside,
            mtus: &spec.mtus,
        };
        let nodes = topology.nodes.iter().map(Arc::as_ref);
        wiring.connect(nodes).context("underlay")?;
        for node in &topology.nodes {
            node.config().install()?;
        }
        Ok(topology)
    }

    /// Has a node boot: its processes, links, rules and routes are gone, and its uplink is there anew. What is on disk, in
    /// bpffs and in `/run` is left to the caller, and so are the pods' own namespaces.
    pub fn reboot(&self, node: &Node) -> Result<()> {
        for (pid, _) in process::inside(node.netns())? {
            process::end(pid)?;
        }
        let links: Vec<Value> = exec::json(node.netns().command("ip").args(["-json", "link"]))?;
        let text = |link: &Value, key: &str| link[key].as_str().unwrap_or_default().to_owned();
        let uplink = links.iter().find(|link| text(link, "ifname") == "eth0");
        let mac = text(uplink.context("no uplink")?, "address");
        // One by one, so that they are gone when this returns. Some go with others.
        for name in links.iter().map(|link| text(link, "ifname")) {
            let _ = exec::ip_batch(node.netns(), &[format!("link delete {name}")]);
        }
        node.netns().renew(node.families().ipv6())?;
        let plan = Plan {
            nodes: self.nodes.len(),
            families: node.families(),
            underlay: self.underlay,
        };
        let wiring = Wiring {
            plan: &plan,
            middle: &self.switch,
            outside: &self.outside,
            mtus: &[],
        };
        wiring.reconnect(node, &mac)
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

    /// The host that is on the underlay but not in the cluster, and has no route to pods.
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The namespace with the switch, or that is the router.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// What is between its nodes.
    pub fn underlay(&self) -> Underlay {
        self.underlay
    }

    /// Leaves everything in place for somebody to look around; [`sweep::demo`] removes it.
    pub fn keep(self) {
        self.switch.keep();
        self.outside.keep();
        self.nodes.into_iter().for_each(std::mem::forget);
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
