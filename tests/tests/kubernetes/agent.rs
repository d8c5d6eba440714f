//! The agent at work, and what happens when it or the API server is gone.

use std::net::SocketAddr;
use std::thread;

use anyhow::{Result, ensure};
use beeline_tests::process;
use nix::unistd::Pid;

use crate::agent_pod;
use crate::cluster::Cluster;
use crate::fixture::{on, settled};
use crate::members;
use crate::network::{self, Network};
use crate::pod::PORT;
use crate::service::ask;
use crate::traffic;
use crate::wait::{seconds, wait_for};

/// When the agent's process started.
const STARTED: &str = "process_start_time_seconds";

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
            let (before, process) = agent_pod::container(cluster, node)?;
            process::end(Pid::from_raw(process.try_into()?))?;
            members::set_unavailable(cluster, node)?;
            wait_for("another container of the agent", seconds(60), || {
                let (now, _) = agent_pod::container(cluster, node)?;
                ensure!(now != before, "{now}");
                Ok(())
            })?;
            network::wait_for_agent(cluster)?;
            members::wait_until_available(cluster, node)
        })?;
        settled(cluster)
    });
}

#[test]
fn an_agent_that_starts_without_the_api_server_resumes_and_follows_once_it_is_back() {
    on(Network::Agent, |lab| {
        let (cluster, pods) = lab.parts()?;
        network::wait_for_agent(cluster)?;
        let node = cluster.node(2);
        let known = node.status()?["peers"].clone();
        let (_, process) = agent_pod::container(cluster, node)?;
        let started = agent_pod::scrape(node)?.value(STARTED)?;
        traffic::during(&[(&pods.a, &pods.c), (&pods.a, &pods.b)], || {
            cluster.stop("apiserver")?;
            process::end(Pid::from_raw(process.try_into()?))?;
            wait_for("a new agent is ready", seconds(120), || {
                let now = agent_pod::scrape(node)?;
                ensure!(now.value(STARTED)? != started, "the old one still serves");
                let up = now.value("beeline_backend_up")?;
                ensure!(up == 0.0, "it reaches the server: {up}");
                let ready = network::agent(node, "/readyz")?;
                ensure!(ready.contains(" 200 "), "{ready}");
                Ok(())
            })?;
            let resumed = node.status()?["peers"].clone();
            ensure!(resumed == known, "{resumed}, and before {known}");
            cluster.start_missing()?;
            members::comes_and_goes(cluster, &members::NEAR)
        })?;
        cluster.wait_until_ready()?;
        network::wait_for_agent(cluster)
    });
}
