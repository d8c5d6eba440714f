//! What the agents make of Node objects: of some that no kubelet stands behind, and of their own.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent_pod;
use crate::cluster::Cluster;
use crate::fixture::{on, settled};
use crate::network::{self, Network};
use crate::node::Node;
use crate::traffic;
use crate::wait::{seconds, wait_for};

/// A Node object that no kubelet stands behind. It has no labels, so that no DaemonSet takes it for a node.
pub(crate) struct MadeUp<'a> {
    pub(crate) name: &'a str,
    pub(crate) pod_cidr: Option<&'a str>,
    pub(crate) ip: Option<&'a str>,
}

/// One beside the real nodes; its pods' addresses are none that the controller manager gives out.
pub(crate) const NEAR: MadeUp<'_> = MadeUp {
    name: "near",
    pod_cidr: Some("10.99.1.0/24"),
    ip: Some("172.31.0.99"),
};

/// One behind a router.
const FAR: MadeUp<'_> = MadeUp {
    name: "far",
    pod_cidr: Some("10.99.2.0/24"),
    ip: Some("192.0.2.7"),
};

/// The metric of what keeps nodes from being peers.
const PROBLEMS: &str = "beeline_cluster_problems";

impl Cluster {
    /// Makes a Node object.
    pub(crate) fn register(&self, node: &MadeUp<'_>) -> Result<()> {
        let addresses = node
            .ip
            .map(|ip| json!({"type": "InternalIP", "address": ip}));
        let spec = node
            .pod_cidr
            .map(|cidr| json!({"podCIDR": cidr, "podCIDRs": [cidr]}));
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node.name},
            "spec": spec.unwrap_or_else(|| json!({})),
            "status": {"addresses": addresses.into_iter().collect::<Vec<_>>()},
        }))
    }

    /// Deletes Node objects.
    pub(crate) fn unregister(&self, nodes: &[&MadeUp<'_>]) -> Result<()> {
        let names: Vec<&str> = nodes.iter().map(|node| node.name).collect();
        self.kubectl(&[&["delete", "node"], &names[..]].concat())
            .map(drop)
    }
}

#[test]
fn a_node_object_becomes_a_peer_of_all_nodes_and_goes_when_it_is_deleted() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        traffic::during(&[(&pods.a, &pods.c), (&pods.a, &pods.b)], || {
            comes_and_goes(cluster, &NEAR)?;
            comes_and_goes(cluster, &FAR)
        })?;
        settled(cluster)
    });
}

/// Makes a Node object, and deletes it once all real nodes have it as a peer; waits until none has.
pub(crate) fn comes_and_goes(cluster: &Cluster, guest: &MadeUp<'_>) -> Result<()> {
    let cidr = guest.pod_cidr.context("no pod CIDR")?;
    cluster.register(guest)?;
    for node in cluster.nodes() {
        wait_for(&format!("{}: {cidr}", node.name()), seconds(30), || {
            let status = node.status()?;
            let peer = &status["peers"][cidr];
            ensure!(*peer == json!(guest.ip), "{peer}: {status}");
            let name = &status["cluster"]["names"][cidr];
            ensure!(*name == guest.name, "{name}: {status}");
            let routes = node.shell("ip route")?;
            let routed = routes.lines().any(|route| route.starts_with(cidr));
            ensure!(routed, "{routes}");
            Ok(())
        })?;
    }
    cluster.unregister(&[guest])?;
    for node in cluster.nodes() {
        let what = format!("{}: no {cidr}", node.name());
        wait_for(&what, seconds(30), || {
            let (status, routes) = (node.status()?, node.shell("ip route")?);
            ensure!(status["peers"].get(cidr).is_none(), "{status}");
            ensure!(!routes.contains(cidr), "{routes}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn node_objects_that_cannot_be_peers_are_reported_and_nothing_of_them_is_applied() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        // It would give pod CIDRs to nodes that have none.
        cluster.stop("controller-manager")?;
        traffic::during(&[(&pods.a, &pods.c), (&pods.a, &pods.b)], || {
            cannot_be_peers(cluster)
        })?;
        cluster.start_missing()?;
        settled(cluster)
    });
}

fn cannot_be_peers(cluster: &Cluster) -> Result<()> {
    let (one, two) = (cluster.node(1), cluster.node(2));
    let [first, second] = [one, two].map(|node| cluster.pod_cidrs(node));
    let (first, second) = (first?.remove(0), second?.remove(0));
    let half = first.replace("/24", "/25");
    ensure!(half != first, "{first}: no half of it");
    let made_up = |name, pod_cidr, ip| MadeUp { name, pod_cidr, ip };
    let odd = [
        made_up("bare", None, Some("172.31.0.91")),
        made_up("half", Some(&half), Some("172.31.0.92")),
        made_up("lost", Some("10.99.3.0/24"), None),
        made_up("twin", Some(&second), Some("172.31.0.94")),
    ];
    let expected = [
        "node bare: has no pod CIDR".to_owned(),
        format!("node half: pod CIDR {half}: overlaps {first} of node node1"),
        "node lost: has no address".to_owned(),
        format!("node twin: pod CIDR {second}: overlaps {second} of node node2"),
    ];
    let before = [applied(one)?, applied(two)?];
    odd.iter().try_for_each(|node| cluster.register(node))?;
    for (node, before) in [one, two].into_iter().zip(&before) {
        reported(node, &expected)?;
        let log = agent_pod::log(cluster, node)?;
        for problem in &expected {
            ensure!(log.contains(problem), "{}: not logged: {log}", node.name());
        }
        let now = applied(node)?;
        ensure!(now == *before, "{}: {now:?}, not {before:?}", node.name());
    }
    cluster.unregister(&odd.each_ref())?;
    for (node, before) in [one, two].into_iter().zip(&before) {
        reported(node, &[])?;
        let now = applied(node)?;
        ensure!(now == *before, "{}: {now:?}, not {before:?}", node.name());
    }
    Ok(())
}

/// What a node has of its peers: entries of the map, and routes.
fn applied(node: &Node) -> Result<(Value, String)> {
    let peers = node.status()?["peers"].clone();
    Ok((peers, node.shell("ip route; ip -6 route show proto 190")?))
}

/// Waits until a node's status and its agent's metrics tell of exactly these problems.
fn reported(node: &Node, problems: &[String]) -> Result<()> {
    let what = format!("{}: {} problems", node.name(), problems.len());
    wait_for(&what, seconds(30), || {
        let said = node.status()?["cluster"]["problems"].clone();
        ensure!(said == json!(problems), "{said}");
        let metric = agent_pod::scrape(node)?.value(PROBLEMS)?;
        ensure!(metric == problems.len() as f64, "{PROBLEMS} {metric}");
        Ok(())
    })
}

#[test]
fn the_condition_network_unavailable_is_cleared_also_when_it_is_set_late() {
    on(Network::Agent, |lab| {
        lab.pods()?;
        let cluster = &lab.cluster;
        network::wait_for_agent(cluster)?;
        for node in cluster.nodes() {
            wait_until_available(cluster, node)?;
            set_unavailable(cluster, node)?;
            wait_until_available(cluster, node)?;
        }
        Ok(())
    });
}

/// Says of a node what a cloud's controller says of one that it has made no routes for.
pub(crate) fn set_unavailable(cluster: &Cluster, node: &Node) -> Result<()> {
    let mut object = cluster.get(&["node", node.name()])?;
    // Kubelet writes the status, too.
    let metadata = object["metadata"].as_object_mut().context("no metadata")?;
    metadata.remove("resourceVersion");
    let conditions = object["status"]["conditions"].as_array_mut();
    let conditions = conditions.context("no conditions")?;
    conditions.retain(|condition| condition["type"] != "NetworkUnavailable");
    conditions.push(json!({
        "type": "NetworkUnavailable",
        "status": "True",
        "reason": "NoRouteCreated",
        "message": "the test says so",
    }));
    let path = format!("/api/v1/nodes/{}/status", node.name());
    let said = cluster.kubectl_with(&["replace", "--raw", &path, "-f", "-"], &object)?;
    ensure!(said.contains("NoRouteCreated"), "{said}");
    Ok(())
}

/// Waits until beeline says of a node that it has networking.
pub(crate) fn wait_until_available(cluster: &Cluster, node: &Node) -> Result<()> {
    let what = format!("{}: no NetworkUnavailable", node.name());
    wait_for(&what, seconds(60), || {
        let object = cluster.get(&["node", node.name()])?;
        let conditions = object["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let found = conditions.find(|condition| condition["type"] == "NetworkUnavailable");
        let found = found.context("no such condition")?;
        let cleared = found["status"] == "False" && found["reason"] == "BeelineIsUp";
        ensure!(cleared, "{found}");
        Ok(())
    })
}
