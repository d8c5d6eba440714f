//! The agent at work, and what happens when it or the API server is gone.

use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result, ensure};
use beeline_tests::process;
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::fixture::{on, settled};
use crate::network::{self, AGENT_PODS, Network};
use crate::node::Node;
use crate::pod::PORT;
use crate::service::ask;
use crate::traffic;
use crate::wait::{seconds, wait_for};

#[test]
fn nodes_are_ready_after_apply_and_pods_reach_each_other_directly() {
    on(Network::None, |lab| {
        network::install_agent_image(&lab.cluster)?;
        // Its time limit is what is asserted.
        lab.change(Network::Agent)?;
        let (cluster, pods) = lab.parts()?;
        reach(cluster, pods)
    });
}

fn reach(cluster: &Cluster, pods: &crate::fixture::Pods) -> Result<()> {
    network::wait_for_agent(cluster)?;
    for node in cluster.nodes() {
        let health = network::agent(node, "/healthz")?;
        ensure!(health.contains(" 200 "), "{}: {health}", node.name());
        let metrics = network::agent(node, "/metrics")?;
        ensure!(metrics.contains("\n# TYPE "), "{}: {metrics}", node.name());
    }
    crate::reach::directly(cluster, pods)
}

#[test]
fn services_work_beside_direct_traffic() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        crate::reach::through_services(cluster, pods)
    });
}

#[test]
fn traffic_goes_on_without_the_api_server_and_pods_come_and_go_after_it() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        traffic::during(&[(&pods.a, &pods.c), (&pods.a, &pods.b)], || {
            cluster.stop("apiserver")?;
            thread::sleep(seconds(5));
            for node in cluster.nodes() {
                let health = network::agent(node, "/healthz")?;
                ensure!(health.contains(" 200 "), "{}: {health}", node.name());
            }
            cluster.start_missing()?;
            let late = cluster.add_pod("late", cluster.node(1))?;
            ask(pods.c.namespace(), SocketAddr::new(late.ip(), PORT))?;
            cluster.delete_pods(&["late"])
        })?;
        cluster.wait_until_ready()?;
        network::wait_for_agent(cluster)
    });
}

#[test]
fn traffic_goes_on_when_the_agent_is_killed_and_it_comes_back() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        traffic::during(&[(&pods.a, &pods.c), (&pods.a, &pods.b)], || {
            let node = cluster.node(1);
            let (before, process) = container(cluster, node)?;
            process::end(Pid::from_raw(process.try_into()?))?;
            wait_for("another container of the agent", seconds(60), || {
                let (now, _) = container(cluster, node)?;
                ensure!(now != before, "{now}");
                Ok(())
            })?;
            network::wait_for_agent(cluster)
        })?;
        settled(cluster)
    });
}

/// The agent's container on a node that runs, and its process.
fn container(cluster: &Cluster, node: &Node) -> Result<(String, u32)> {
    let field = format!("spec.nodeName={}", node.name());
    let arguments = [&["pods", "--field-selector", &field], &AGENT_PODS[..]].concat();
    let found = cluster.get(&arguments)?;
    let status = &found["items"][0]["status"]["containerStatuses"][0];
    ensure!(status["state"]["running"].is_object(), "{status}");
    let id = status["containerID"].as_str().context("no container")?;
    Ok((id.to_owned(), node.process(id)?))
}
