//! The node's network configuration: the cluster's template, with what is this node's own.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::options::Node;

/// The plugin that the template is about.
const PLUGIN: &str = "beeline";

/// The configurations that runtimes read.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// A configuration for this node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conflist {
    /// The file's content.
    pub(crate) text: String,
    /// beeline's part, as a runtime hands it to the plugin.
    pub(crate) plugin: Value,
    /// Plugins of the template that are left out, as the node does not have them.
    pub(crate) missing: Vec<String>,
}

/// Reads the template, and fills in the node's pod CIDRs. Chained plugins that the node does not have are left out: with
/// them no pod would start.
pub(crate) fn render(node: &Node, pod_cidrs: &[IpNetwork]) -> Result<Conflist> {
    let path = node.template.display();
    let text = fs::read(&node.template).with_context(|| format!("template {path}: read"))?;
    fill(&text, pod_cidrs, |kind| node.bin_dir.join(kind).exists())
        .with_context(|| format!("template {path}"))
}

fn fill(text: &[u8], pod_cidrs: &[IpNetwork], has: impl Fn(&str) -> bool) -> Result<Conflist> {
    let mut list: Map<String, Value> = serde_json::from_slice(text).context("decode")?;
    let name = list.get("name").cloned().context("name: missing")?;
    let version = list
        .get("cniVersion")
        .cloned()
        .context("cniVersion: missing")?;
    let Some(Value::Array(plugins)) = list.get_mut("plugins") else {
        bail!("plugins: missing, or no list");
    };
    let own = plugins.iter_mut().find(|plugin| plugin["type"] == PLUGIN);
    let own = own.with_context(|| format!("plugins: none of type {PLUGIN:?}"))?;
    let own = own.as_object_mut().context("plugins: no object")?;
    ensure!(
        own.get("datapath")
            .is_none_or(|datapath| datapath.get("peers").is_none()),
        "datapath.peers: must not be there, the agent keeps the peers"
    );
    let ipam = own
        .entry("ipam")
        .or_insert_with(|| json!({"type": "host-local"}));
    fill_ipam(ipam.as_object_mut().context("ipam: no object")?, pod_cidrs)?;
    let mut plugin = Value::Object(own.clone());
    plugin["name"] = name;
    plugin["cniVersion"] = version;
    let mut missing = Vec::new();
    plugins.retain(|plugin| {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let there = kind == PLUGIN || has(kind);
        if !there {
            missing.push(kind.to_owned());
        }
        there
    });
    let mut text = serde_json::to_string_pretty(&list)?;
    text.push('\n');
    Ok(Conflist {
        text,
        plugin,
        missing,
    })
}

fn fill_ipam(ipam: &mut Map<String, Value>, pod_cidrs: &[IpNetwork]) -> Result<()> {
    let kind = ipam.get("type");
    ensure!(
        kind.is_some_and(|kind| kind == "host-local"),
        "ipam.type: must be \"host-local\", as the agent gives it the node's pod CIDRs"
    );
    for key in ["subnet", "ranges"] {
        ensure!(
            !ipam.contains_key(key),
            "ipam.{key}: must not be there, the agent fills in the node's pod CIDRs"
        );
    }
    let ranges = pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr }]));
    ipam.insert("ranges".to_owned(), ranges.collect());
    let defaults = pod_cidrs.iter().map(|cidr| match cidr {
        IpNetwork::V4(_) => json!({"dst": "0.0.0.0/0"}),
        IpNetwork::V6(_) => json!({"dst": "::/0"}),
    });
    let mut routes: Vec<Value> = defaults.collect();
    routes.dedup();
    ipam.entry("routes").or_insert_with(|| routes.into());
    Ok(())
}

/// The pod CIDRs in the configuration that is there from before, if there is one that can be read.
pub(crate) fn former_pod_cidrs(node: &Node) -> Vec<IpNetwork> {
    let list = fs::read(path(node)).ok();
    let list: Option<Value> = list.and_then(|text| serde_json::from_slice(&text).ok());
    let list = list.unwrap_or_default();
    let plugins = list["plugins"].as_array().into_iter().flatten();
    let ours = plugins.filter(|plugin| plugin["type"] == PLUGIN);
    let sets = ours.flat_map(|plugin| plugin["ipam"]["ranges"].as_array().into_iter().flatten());
    let ranges = sets.flat_map(|set| set.as_array().into_iter().flatten());
    let subnets = ranges.filter_map(|range| range["subnet"].as_str());
    subnets.filter_map(|subnet| subnet.parse().ok()).collect()
}

/// Where the configuration belongs.
pub(crate) fn path(node: &Node) -> PathBuf {
    node.conf_dir.join(&node.conf_name)
}

/// Where it is written until it is whole; runtimes take no notice of such a name.
pub(crate) fn temporary(node: &Node) -> PathBuf {
    node.conf_dir.join(format!(".{}.new", node.conf_name))
}

/// Puts the configuration in its place, unless it is there; says whether it was not.
///
/// By a rename within the directory: the runtime may read at any moment, and containerd 1.6 misses other kinds of change.
pub(crate) fn install(node: &Node, conflist: &Conflist) -> Result<bool> {
    let (path, temporary) = (path(node), temporary(node));
    if fs::read(&path).is_ok_and(|there| there == conflist.text.as_bytes()) {
        return Ok(false);
    }
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&node.conf_dir)?;
        // What an agent that was killed has left may be anything.
        remove(&temporary)?;
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&temporary)?;
        file.write_all(conflist.text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{}: write", path.display()))?;
    Ok(true)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A configuration that runtimes take instead of ours, as it comes before ours by name.
pub(crate) fn rival(node: &Node) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(&node.conf_dir);
    let entries = entries.with_context(|| format!("{}: read", node.conf_dir.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let rivals = names.filter(|name| {
        let extension = Path::new(name).extension().and_then(|end| end.to_str());
        let hidden = name.as_encoded_bytes().starts_with(b".");
        let read = extension.is_some_and(|end| EXTENSIONS.contains(&end)) && !hidden;
        read && name.as_os_str() < node.conf_name.as_str()
    });
    Ok(rivals.min().map(|name| node.conf_dir.join(name)))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const TEMPLATE: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {"type": "beeline", "bridge": "cni0", "ipam": {"type": "host-local"}, "datapath": {"overlay": {"type": "vxlan"}}},
        {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

    fn cidrs(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn filled(template: &str) -> Result<Conflist> {
        fill(
            template.as_bytes(),
            &cidrs(&["10.244.1.0/24", "fd00:1::/64"]),
            |_| true,
        )
    }

    fn node(dir: &TempDir) -> Node {
        let path = dir.path();
        Node {
            template: path.join("template"),
            conf_dir: path.join("net.d"),
            conf_name: "10-beeline.conflist".to_owned(),
            bin_dir: path.join("bin"),
            host_root: None,
        }
    }

    #[test]
    fn the_pod_cidrs_become_a_range_set_and_a_default_route_of_each_family() {
        let conflist = filled(TEMPLATE).unwrap();
        let list: Value = serde_json::from_str(&conflist.text).unwrap();
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(
            ipam["ranges"],
            json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:1::/64"}]])
        );
        assert_eq!(
            ipam["routes"],
            json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}])
        );
        assert_eq!(list["plugins"][1]["type"], "portmap");
        let plan = beeline::cni::plan_of(&conflist.plugin).unwrap();
        assert_eq!(plan.network, "pods");
        assert_eq!(plan.pod_cidrs, cidrs(&["10.244.1.0/24", "fd00:1::/64"]));
    }

    #[test]
    fn a_chained_plugin_that_is_not_there_is_left_out_and_named() {
        let conflist = fill(TEMPLATE.as_bytes(), &cidrs(&["10.244.1.0/24"]), |_| false).unwrap();
        assert_eq!(conflist.missing, ["portmap"]);
        let list: Value = serde_json::from_str(&conflist.text).unwrap();
        assert_eq!(list["plugins"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_template_that_says_what_the_agent_knows_is_refused_by_key() {
        let with = |old, new| filled(&TEMPLATE.replace(old, new)).unwrap_err().to_string();
        let ipam = r#"{"type": "host-local"}"#;
        assert!(
            with(ipam, r#"{"type": "host-local", "subnet": "10.0.0.0/8"}"#)
                .starts_with("ipam.subnet:")
        );
        assert!(with(ipam, r#"{"type": "host-local", "ranges": []}"#).starts_with("ipam.ranges:"));
        assert!(with(ipam, r#"{"type": "dhcp"}"#).starts_with("ipam.type:"));
        assert!(with(r#""overlay""#, r#""peers": [], "overlay""#).starts_with("datapath.peers:"));
        assert!(with(r#""beeline""#, r#""bridge""#).starts_with("plugins: none of type"));
        assert!(with(r#""name""#, r#""nom""#).starts_with("name: missing"));
        assert!(filled("{").is_err());
        assert!(filled("[]").is_err());
        assert!(filled(r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [1]}"#).is_err());
    }

    #[test]
    fn a_configuration_is_installed_once_and_what_was_left_half_is_replaced() {
        let dir = TempDir::new().unwrap();
        let node = node(&dir);
        let conflist = filled(TEMPLATE).unwrap();
        assert!(install(&node, &conflist).unwrap());
        assert!(!install(&node, &conflist).unwrap());
        assert_eq!(
            former_pod_cidrs(&node),
            cidrs(&["10.244.1.0/24", "fd00:1::/64"])
        );
        fs::write(temporary(&node), "{").unwrap();
        fs::write(path(&node), "{").unwrap();
        assert_eq!(former_pod_cidrs(&node), []);
        assert!(install(&node, &conflist).unwrap());
        assert_eq!(fs::read_to_string(path(&node)).unwrap(), conflist.text);
        assert!(!temporary(&node).exists());
    }

    #[test]
    fn rivals_are_what_runtimes_read_before_ours() {
        let dir = TempDir::new().unwrap();
        let node = node(&dir);
        install(&node, &filled(TEMPLATE).unwrap()).unwrap();
        for name in [
            "00-README",
            ".05-new.conflist",
            "11-other.conflist",
            "05-old.bak",
        ] {
            fs::write(node.conf_dir.join(name), "").unwrap();
        }
        assert_eq!(rival(&node).unwrap(), None);
        fs::write(node.conf_dir.join("05-flannel.conflist"), "").unwrap();
        assert_eq!(
            rival(&node).unwrap(),
            Some(node.conf_dir.join("05-flannel.conflist"))
        );
    }
}
