//! What the agents tell Prometheus, held against what happens.

use anyhow::{Context, Result, ensure};

use crate::agent_pod;
use crate::cluster::Cluster;
use crate::exposition::Exposition;
use crate::fixture::{Pods, on};
use crate::network::{self, Network};
use crate::node::Node;
use crate::wait::{seconds, wait_for};

/// What an agent may have in RAM.
const MAX_MEMORY: f64 = 30e6;

/// Echo requests, each of which is a packet to a peer.
const PINGS: usize = 20;

#[test]
fn metrics_tell_of_traffic_and_calls_and_pods_and_peers() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        for node in cluster.nodes() {
            as_status_says(node)?;
        }
        packets_are_counted(cluster, pods)?;
        calls_are_counted(cluster)
    });
}

fn as_status_says(node: &Node) -> Result<()> {
    let what = format!("{}: metrics as the status", node.name());
    wait_for(&what, seconds(30), || {
        let (status, scrape) = (node.status()?, agent_pod::scrape(node)?);
        let pods = status["pods"].as_array().context("no pods")?.len();
        let peers = status["peers"].as_object().context("no peers")?.len();
        for (series, expected) in [
            ("beeline_pods{network=\"pods\",path=\"fast\"}", pods),
            ("beeline_pods{network=\"pods\",path=\"slow\"}", 0),
            ("beeline_peers{network=\"pods\"}", peers),
            ("beeline_datapath_up{network=\"pods\"}", 1),
            ("beeline_cluster_nodes", peers + 1),
            ("beeline_cluster_problems", 0),
            ("beeline_backend_up", 1),
        ] {
            let value = scrape.value(series)?;
            ensure!(value == expected as f64, "{series} {value}, not {expected}");
        }
        let memory = scrape.value("process_resident_memory_bytes")?;
        ensure!(memory < MAX_MEMORY, "{memory} bytes in RAM");
        Ok(())
    })
}

fn packets_are_counted(cluster: &Cluster, pods: &Pods) -> Result<()> {
    let series = r#"beeline_packets_total{network="pods",program="from_pod",outcome="to_peer"}"#;
    let nodes = cluster.nodes().iter();
    let before = nodes.map(|node| agent_pod::scrape(node)?.value(series));
    let before = before.collect::<Result<Vec<f64>>>()?;
    pods.a.ping(pods.c.ip(), PINGS).assert_received();
    for (node, before) in cluster.nodes().iter().zip(before) {
        let grown = agent_pod::scrape(node)?.value(series)? - before;
        ensure!(
            grown == PINGS as f64,
            "{}: {series} by {grown}",
            node.name()
        );
    }
    Ok(())
}

/// A pod comes and goes.
fn calls_are_counted(cluster: &Cluster) -> Result<()> {
    let (one, two) = (cluster.node(1), cluster.node(2));
    let before = [agent_pod::scrape(one)?, agent_pod::scrape(two)?];
    cluster.add_pod("counted", one)?;
    let grown = |node: &Node, before: &Exposition, command: &str| -> Result<f64> {
        let series = format!(
            "beeline_cni_seconds_count{{network=\"pods\",command={command:?},result=\"ok\"}}"
        );
        Ok(agent_pod::scrape(node)?.count(&series) - before.count(&series))
    };
    let adds = grown(one, &before[0], "ADD")?;
    ensure!(adds == 1.0, "{adds} ADDs");
    as_status_says(one)?;
    cluster.delete_pods(&["counted"])?;
    // Kubelet has a sandbox stopped more than once.
    wait_for("DEL counted", seconds(60), || {
        let dels = grown(one, &before[0], "DEL")?;
        ensure!(dels >= 1.0, "{dels} DELs");
        Ok(())
    })?;
    let elsewhere = grown(two, &before[1], "ADD")?;
    ensure!(elsewhere == 0.0, "{elsewhere} ADDs on the other node");
    as_status_says(one)
}
