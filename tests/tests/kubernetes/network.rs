//! What is the cluster's pod network: none, the agent's, or one that was configured by hand.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use beeline_tests::netns::Namespace;
use beeline_tests::traffic::connect;
use serde_json::{Value, json};
use std::io::{Read, Write};

use crate::cluster::Cluster;
use crate::node::{Node, PLUGIN};
use crate::paths;
use crate::wait::{seconds, wait_for};

/// The image that the manifest runs.
pub(crate) const IMAGE: &str = "localhost/beeline:0.1.0";

/// Where the agent serves on its node.
const AGENT_PORT: u16 = 9474;

/// How `kubectl` finds the agent's pods.
pub(crate) const AGENT_PODS: [&str; 4] = [
    "--namespace",
    "kube-system",
    "--selector",
    "app.kubernetes.io/name=beeline",
];

/// A pod network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    None,
    /// beeline's agent configures the nodes, as `deploy/beeline.yaml` has it.
    Agent,
    /// A list of plugins on each node names its peers.
    Static,
}

/// Sets a network up where there is none, and waits until the nodes are ready.
pub(crate) fn set_up(cluster: &Cluster, network: Network) -> Result<()> {
    match network {
        Network::None => return Ok(()),
        Network::Agent => {
            install_agent_image(cluster)?;
            apply_agent(cluster)?;
        }
        Network::Static => configure(cluster)?,
    }
    cluster.wait_until_ready()
}

/// Takes a network away, after its pods.
pub(crate) fn take_down(cluster: &Cluster, network: Network) -> Result<()> {
    match network {
        Network::None => Ok(()),
        Network::Agent => delete_agent(cluster),
        Network::Static => cluster.nodes().iter().try_for_each(scrub),
    }
}

/// Puts onto each node what the manifest expects to be there, and the plugin that it chains.
pub(crate) fn install_agent_image(cluster: &Cluster) -> Result<()> {
    let image = paths::image()?;
    for node in cluster.nodes() {
        node.import(&image)?;
        node.install_reference("portmap")?;
    }
    Ok(())
}

/// Installs the agent as a user does.
pub(crate) fn apply_agent(cluster: &Cluster) -> Result<()> {
    let manifest = paths::manifest();
    let there = manifest.exists();
    ensure!(there, "{}: not there", manifest.display());
    cluster
        .kubectl(&["apply", "-f", path(&manifest)?])
        .map(drop)
}

/// Uninstalls the agent as a user does, and waits until its pods are gone.
pub(crate) fn delete_agent(cluster: &Cluster) -> Result<()> {
    let manifest = paths::manifest();
    cluster.kubectl(&["delete", "-f", path(&manifest)?])?;
    wait_for("the agent's pods go", seconds(60), || {
        let pods = cluster.kubectl(&[&["get", "pods", "-o", "name"], &AGENT_PODS[..]].concat())?;
        ensure!(pods.is_empty(), "{pods}");
        Ok(())
    })
}

/// Waits until the agent of every node says that it is ready, on all nodes at the newest version of the manifest.
pub(crate) fn wait_for_agent(cluster: &Cluster) -> Result<()> {
    let rollout = [
        "rollout",
        "status",
        "daemonset/beeline",
        "--namespace",
        "kube-system",
    ];
    cluster.kubectl(&[&rollout[..], &["--timeout=120s"]].concat())?;
    for node in cluster.nodes() {
        wait_for(
            &format!("{}: agent ready", node.name()),
            seconds(30),
            || {
                let answer = agent(node, "/readyz")?;
                ensure!(answer.contains(" 200 "), "{answer}");
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// What a node's agent answers.
pub(crate) fn agent(node: &Node, page: &str) -> Result<String> {
    get(node.namespace(), node, page)
}

fn get(from: &Namespace, node: &Node, page: &str) -> Result<String> {
    let mut stream = connect(from, (node.ip(), AGENT_PORT).into())?;
    write!(stream, "GET {page} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("answer")?;
    Ok(answer)
}

/// Configures every node by hand, with the others as its peers.
fn configure(cluster: &Cluster) -> Result<()> {
    let plugin = paths::plugin()?;
    for node in cluster.nodes() {
        node.install(&plugin)?;
        node.install_reference("portmap")?;
        let mut peers = Vec::new();
        for peer in cluster.nodes() {
            if peer.name() != node.name() {
                for cidr in cluster.pod_cidrs(peer)? {
                    peers.push(json!({"cidr": cidr, "node": peer.ip()}));
                }
            }
        }
        let conflist = conflist(&cluster.pod_cidrs(node)?, &peers);
        node.configure("10-beeline.conflist", &conflist)?;
    }
    Ok(())
}

fn conflist(cidrs: &[String], peers: &[Value]) -> Value {
    let ranges: Vec<Value> = cidrs.iter().map(|cidr| json!([{"subnet": cidr}])).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "beeline",
                "bridge": "cni0",
                "isDefaultGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": ranges},
                "datapath": {"peers": peers},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// Removes all that a network left on a node by hand, as the README says.
pub(crate) fn scrub(node: &Node) -> Result<()> {
    node.shell(&format!(
        "rm -f /etc/cni/net.d/*beeline*
         [ ! -e {PLUGIN} ] || {PLUGIN} unload >/dev/null 2>&1 || true
         ip route flush proto 190; ip -6 route flush proto 190
         for link in $(ip -o link | sed -n 's/^[0-9]*: \\(bl-[^:@]*\\).*/\\1/p') cni0; do
             ip link delete $link 2>/dev/null || true
         done
         nft delete table inet beeline-pods 2>/dev/null || true
         rm -rf /sys/fs/bpf/beeline /run/beeline /var/lib/cni/networks/pods {PLUGIN}"
    ))
    .map(drop)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{path:?}: not UTF-8"))
}
