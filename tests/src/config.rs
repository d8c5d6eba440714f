//! A node's network configuration, as a list of plugins in `/etc/cni/net.d`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::node::{BRIDGE, Node};

/// Network name of every configuration.
pub const NETWORK: &str = "pods";

/// File name of the list that [`Config::install`] writes.
pub const CONFLIST: &str = "10-beeline.conflist";

/// A list under construction; it starts with the node's own plugin.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    node: &'a Node,
    version: String,
    plugins: Vec<Value>,
}

impl<'a> Config<'a> {
    /// The node's default: bridge, gateway, masquerade, built-in IPAM, and the datapath unless this is the reference.
    pub fn new(node: &'a Node) -> Self {
        let config = Self {
            node,
            version: "1.0.0".to_owned(),
            plugins: vec![common(node)],
        };
        if node.plugin().is_reference() {
            config
        } else {
            config.with(|plugin| plugin["datapath"] = datapath(node))
        }
    }

    /// The same for the reference `bridge` plugin, which has no datapath.
    pub fn reference(node: &'a Node) -> Self {
        let config = Self {
            node,
            version: "1.0.0".to_owned(),
            plugins: vec![common(node)],
        };
        config.with(|plugin| plugin["type"] = json!("bridge"))
    }

    /// Changes the first plugin's configuration.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.plugins[0]);
        self
    }

    /// Sets `datapath.mode`.
    pub fn mode(self, mode: &str) -> Self {
        self.with(|plugin| plugin["datapath"]["mode"] = json!(mode))
    }

    /// Sets the `cniVersion`.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// Chains one more plugin.
    pub fn chain(mut self, plugin: Value) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// The list as JSON.
    pub fn conflist(&self) -> Value {
        json!({ "cniVersion": self.version, "name": NETWORK, "plugins": self.plugins })
    }

    /// The first plugin's configuration as it gets it on standard input in an ADD.
    pub fn stdin(&self) -> Value {
        single(&self.conflist(), &self.plugins[0])
    }

    /// Writes it as the node's only list.
    pub fn install(&self) -> Result<PathBuf> {
        let path = self.node.conf_dir().join(CONFLIST);
        let text = serde_json::to_string_pretty(&self.conflist())?;
        fs::write(&path, text).with_context(|| format!("{}: write", path.display()))?;
        Ok(path)
    }
}

/// Makes what one plugin of a list gets: its own object with the list's version and name.
pub(crate) fn single(list: &Value, plugin: &Value) -> Value {
    let mut single = plugin.clone();
    single["cniVersion"] = list["cniVersion"].clone();
    single["name"] = list["name"].clone();
    single
}

fn common(node: &Node) -> Value {
    let mut ipam = json!({ "type": "host-local", "dataDir": node.data_dir() });
    match node.pod_cidrs() {
        [cidr] => ipam["subnet"] = json!(cidr),
        cidrs => {
            let ranges = cidrs.iter().map(|cidr| json!([{ "subnet": cidr }]));
            ipam["ranges"] = ranges.collect();
        }
    }
    let default_route = |cidr: &IpNetwork| {
        let everything = if cidr.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({ "dst": everything })
    };
    ipam["routes"] = node.pod_cidrs().iter().map(default_route).collect();
    json!({
        "type": node.plugin().kind(),
        "bridge": BRIDGE,
        "isGateway": true,
        "ipMasq": true,
        "ipam": ipam,
    })
}

fn datapath(node: &Node) -> Value {
    let peers = node
        .peers()
        .iter()
        .map(|peer| json!({ "cidr": peer.cidr, "node": peer.node }));
    json!({
        "mode": node.mode(),
        "uplinks": ["eth0"],
        "peers": peers.collect::<Vec<_>>(),
        "bpffsDir": node.bpffs_dir(),
        "stateDir": node.state_dir(),
    })
}
