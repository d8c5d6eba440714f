//! A node: a namespace with an uplink, a configured plugin and its own state on disk.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use serde_json::Value;

use crate::config::Config;
use crate::netns::Namespace;
use crate::plan::{self, Families, Family, Host, Plan};
use crate::pod::Pod;
use crate::runtime::Runtime;
use crate::topology::{Plugin, TopologySpec};
use crate::{datapath, sweep};

/// The bridge of a node, as in the users' own documents.
pub const BRIDGE: &str = "v-net-0";

/// Where bpffs is, the same in all namespaces.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Where the state of all nodes of all owners is.
pub const STATE: &str = "/run/beeline-test";

/// Another node, as one node sees it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its pod CIDR.
    pub cidr: IpNetwork,
    /// Its node address.
    pub node: IpAddr,
}

/// A node; its namespace, state and pins go on drop.
#[derive(Debug)]
pub struct Node {
    prefix: String,
    index: usize,
    families: Families,
    addresses: Vec<IpAddr>,
    pod_cidrs: Vec<IpNetwork>,
    peers: Vec<Peer>,
    plugin: Plugin,
    mode: String,
    netns: Namespace,
}

impl Node {
    pub(crate) fn create(spec: &TopologySpec, plan: &Plan, index: usize) -> Result<Self> {
        let name = format!("{}-node{index}", spec.prefix);
        let families = spec.families.list().iter();
        let address = |family: &Family| plan.address(*family, Host::Node(index)).ip();
        let pod_cidr = |family: &Family| plan.pod_cidr(*family, index);
        let node = Self {
            prefix: spec.prefix.clone(),
            index,
            families: spec.families,
            addresses: families.clone().map(address).collect(),
            pod_cidrs: families.map(pod_cidr).collect(),
            peers: plan.peers_of(index),
            plugin: spec.plugin.clone(),
            mode: spec.mode.clone(),
            netns: Namespace::create(&name, spec.families.ipv6())?,
        };
        mount_bpffs()?;
        for directory in [
            node.conf_dir(),
            node.data_dir(),
            node.state_dir(),
            node.bpffs_dir(),
        ] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("{}: create", directory.display()))?;
        }
        Ok(node)
    }

    /// Counts from 1.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name, which is that of its namespace.
    pub fn name(&self) -> &str {
        self.netns.name()
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Namespace {
        &self.netns
    }

    /// The families it has addresses of.
    pub fn families(&self) -> Families {
        self.families
    }

    /// Its first address on the underlay.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// Its address of a family on the underlay; panics if it has none.
    #[track_caller]
    pub fn address_of(&self, family: Family) -> IpAddr {
        of_family(&self.addresses, family, |address| *address)
    }

    /// The first network that its pods' addresses come from.
    pub fn pod_cidr(&self) -> IpNetwork {
        self.pod_cidrs[0]
    }

    /// The networks that its pods' addresses come from, one a family.
    pub fn pod_cidrs(&self) -> &[IpNetwork] {
        &self.pod_cidrs
    }

    /// Its pods' first gateway: the bridge's own address, the first of the pod CIDR.
    pub fn gateway(&self) -> IpAddr {
        first(self.pod_cidrs[0])
    }

    /// Its pods' gateway of a family; panics if they have none.
    #[track_caller]
    pub fn gateway_of(&self, family: Family) -> IpAddr {
        first(of_family(&self.pod_cidrs, family, IpNetwork::ip))
    }

    /// The other nodes, each as often as it has families.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The plugin that it executes.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// The `datapath.mode` it is configured with.
    pub fn mode(&self) -> &str {
        &self.mode
    }

    /// Everything of this node on disk, except for pins.
    pub fn directory(&self) -> PathBuf {
        Path::new(STATE)
            .join(&self.prefix)
            .join(format!("node{}", self.index))
    }

    /// Stands for `/etc/cni/net.d`.
    pub fn conf_dir(&self) -> PathBuf {
        self.directory().join("net.d")
    }

    /// Stands for `/var/lib/cni/networks`.
    pub fn data_dir(&self) -> PathBuf {
        self.directory().join("networks")
    }

    /// Stands for `/run/beeline`.
    pub fn state_dir(&self) -> PathBuf {
        self.directory().join("run")
    }

    /// Stands for `/sys/fs/bpf`.
    pub fn bpffs_dir(&self) -> PathBuf {
        Path::new(BPFFS).join(self.name())
    }

    /// Returns the configuration it gets by default, to change and install.
    pub fn config(&self) -> Config<'_> {
        Config::new(self)
    }

    /// Returns a container runtime that uses what is installed.
    pub fn runtime(&self) -> Runtime<'_> {
        Runtime::new(self)
    }

    /// Makes a pod by executing the plugin.
    pub fn try_add_pod(self: &Arc<Self>, name: &str) -> Result<Pod> {
        Pod::create(self, &self.runtime(), name, Value::Null)
    }

    /// Makes a pod by executing the plugin; panics if that fails.
    #[track_caller]
    pub fn add_pod(self: &Arc<Self>, name: &str) -> Pod {
        self.try_add_pod(name)
            .unwrap_or_else(|error| panic!("pod {name} on {}: {error:#}", self.name()))
    }

    /// Makes a pod that is on the path that its ADD left it on, and may change it at any time; panics if that fails.
    #[track_caller]
    pub fn add_new_pod(self: &Arc<Self>, name: &str) -> Pod {
        Pod::create(self, &self.runtime().at_once(), name, Value::Null)
            .unwrap_or_else(|error| panic!("pod {name} on {}: {error:#}", self.name()))
    }

    /// Makes a pod by this runtime; panics if that fails.
    #[track_caller]
    pub fn add_pod_by(self: &Arc<Self>, runtime: &Runtime<'_>, name: &str) -> Pod {
        Pod::create(self, runtime, name, Value::Null)
            .unwrap_or_else(|error| panic!("pod {name} on {}: {error:#}", self.name()))
    }

    /// Makes a pod that wants something of the plugins that have the capability; panics if that fails.
    #[track_caller]
    pub fn add_pod_with(self: &Arc<Self>, name: &str, capabilities: Value) -> Pod {
        Pod::create(self, &self.runtime(), name, capabilities)
            .unwrap_or_else(|error| panic!("pod {name} on {}: {error:#}", self.name()))
    }

    /// Reads what the datapath counted, by counter name; empty if this node has none.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        datapath::counters(self)
    }

    /// Addresses that IPAM holds at present, in host-local's format: one file each.
    pub fn reserved(&self) -> Vec<IpAddr> {
        let files = sweep::walk(&self.data_dir());
        files
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        sweep::remove_tree(&self.bpffs_dir());
        sweep::remove_tree(&self.directory());
        // Only if this was the last node.
        let _ = fs::remove_dir(Path::new(STATE).join(&self.prefix));
        let _ = fs::remove_dir(STATE);
    }
}

/// The first address of a network that a host can have.
fn first(network: IpNetwork) -> IpAddr {
    match network {
        IpNetwork::V4(network) => (u32::from(network.network()) + 1).to_be_bytes().into(),
        IpNetwork::V6(network) => (u128::from(network.network()) + 1).to_be_bytes().into(),
    }
}

/// Picks what is of a family; panics if nothing is.
#[track_caller]
pub(crate) fn of_family<T: Copy>(all: &[T], family: Family, ip: impl Fn(&T) -> IpAddr) -> T {
    let found = all.iter().find(|one| plan::family(ip(one)) == family);
    *found.unwrap_or_else(|| panic!("the topology has no addresses of {family:?}"))
}

/// Mounts bpffs where it belongs, unless it is there.
fn mount_bpffs() -> Result<()> {
    static MOUNT: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = MOUNT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let there = statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if !there {
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("{BPFFS}: mount"))?;
    }
    Ok(())
}
