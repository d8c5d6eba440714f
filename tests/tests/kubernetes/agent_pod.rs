//! The pod that runs a node's agent: its container, what it logs, and what it tells Prometheus.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::exposition::Exposition;
use crate::network::{self, AGENT_PODS};
use crate::node::Node;

/// The agent's container on a node that runs, and its process.
pub(crate) fn container(cluster: &Cluster, node: &Node) -> Result<(String, u32)> {
    let pod = pod(cluster, node)?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["state"]["running"].is_object(), "{status}");
    let id = status["containerID"].as_str().context("no container")?;
    Ok((id.to_owned(), node.process(id)?))
}

/// What the agent on a node has logged since its container started.
pub(crate) fn log(cluster: &Cluster, node: &Node) -> Result<String> {
    let pod = pod(cluster, node)?;
    let name = pod["metadata"]["name"].as_str().context("no name")?;
    cluster.kubectl(&["logs", "--namespace", "kube-system", name])
}

/// Reads the metrics of a node's agent.
pub(crate) fn scrape(node: &Node) -> Result<Exposition> {
    let answer = network::agent(node, "/metrics")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.contains(" 200 "), "{}: {head}", node.name());
    Exposition::parse(body).with_context(|| format!("{}: metrics", node.name()))
}

fn pod(cluster: &Cluster, node: &Node) -> Result<Value> {
    let field = format!("spec.nodeName={}", node.name());
    let arguments = [&["pods", "--field-selector", &field], &AGENT_PODS[..]].concat();
    Ok(cluster.get(&arguments)?["items"][0].take())
}
