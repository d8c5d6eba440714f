//! What the agents tell Prometheus, held against what happens.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use crate::agent_pod;
use crate::cluster::Cluster;
use crate::fixture::{Pods, on};
use crate::network::{self, Network};
use crate::node::Node;
use crate::service::ask;
use crate::wait::{seconds, wait_for};

/// What an agent may have in RAM.
const MAX_MEMORY: f64 = 30e6;

/// Echo requests, each of which is a packet to a peer.
const PINGS: usize = 20;

/// A port of the node's that the plugin chained behind beeline leads to a pod.
const HOST_PORT: u16 = 18080;

#[test]
fn metrics_tell_of_traffic_and_pods_and_peers() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        for node in cluster.nodes() {
            as_status_says(node)?;
        }
        packets_are_counted(cluster, pods)
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

/// How often calls of a command have succeeded on a node.
fn calls(node: &Node, command: &str) -> Result<f64> {
    let series =
        format!("beeline_cni_seconds_count{{network=\"pods\",command={command:?},result=\"ok\"}}");
    Ok(agent_pod::scrape(node)?.count(&series))
}

#[test]
fn a_host_port_is_served_to_all_nodes_and_calls_for_its_pod_are_counted() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        let (one, two) = (cluster.node(1), cluster.node(2));
        let before = [calls(one, "ADD")?, calls(one, "DEL")?, calls(two, "ADD")?];
        let pod = cluster.add_pod_at("ported", one, HOST_PORT)?;
        let at = SocketAddr::new(one.ip(), HOST_PORT);
        for from in [two.namespace(), pods.c.namespace(), pods.a.namespace()] {
            let seen = ask(from, at)?;
            ensure!(seen == pod.name(), "{at}: {seen} answers");
        }
        let adds = [
            calls(one, "ADD")? - before[0],
            calls(two, "ADD")? - before[2],
        ];
        ensure!(adds == [1.0, 0.0], "{adds:?} ADDs on the nodes");
        as_status_says(one)?;
        cluster.delete_pods(&[pod.name()])?;
        // Kubelet has a sandbox stopped more than once.
        wait_for("DEL counted", seconds(60), || {
            let dels = calls(one, "DEL")? - before[1];
            ensure!(dels >= 1.0, "{dels} DELs");
            Ok(())
        })?;
        as_status_says(one)
    });
}
