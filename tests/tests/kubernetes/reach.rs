//! What every pod network of beeline's shall give: tests of single ones call these.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use beeline_tests::datapath::{FROM_UPLINK, TO_PEER, TO_POD, growth};

use crate::cluster::Cluster;
use crate::fixture::Pods;
use crate::node::Node;
use crate::pod::{PORT, Pod};
use crate::service::{Service, ask};
use crate::wait::{seconds, wait_for};

/// Echo requests of a series.
const PINGS: usize = 20;

/// Pods ping each other on one node and across nodes, and not one packet of it takes the slow path.
pub(crate) fn directly(cluster: &Cluster, pods: &Pods) -> Result<()> {
    let (one, two) = (cluster.node(1), cluster.node(2));
    let count = PINGS as u64;
    for node in [one, two] {
        let (grown, ()) = counting(node, || {
            pods.a.ping(pods.c.ip(), PINGS).assert_received();
            Ok(())
        })?;
        for counter in [TO_PEER, FROM_UPLINK] {
            ensure!(
                grown.get(counter) == Some(&count),
                "{}: {counter} not by {count}: {grown:?}",
                node.name()
            );
        }
    }
    let (grown, ()) = counting(one, || {
        pods.a.ping(pods.b.ip(), PINGS).assert_received();
        Ok(())
    })?;
    let both_ways = 2 * count;
    ensure!(
        grown.get(TO_POD) == Some(&both_ways),
        "{TO_POD} not by {both_ways}: {grown:?}"
    );
    Ok(())
}

/// By how much a node's counters grow meanwhile.
pub(crate) fn counting<T>(
    node: &Node,
    meanwhile: impl FnOnce() -> Result<T>,
) -> Result<(std::collections::BTreeMap<String, u64>, T)> {
    let before = node.counters()?;
    let done = meanwhile()?;
    Ok((growth(&before, &node.counters()?), done))
}

/// Services are reached from pods, from their own pod and from nodes, and direct traffic is on the fast path all the same.
pub(crate) fn through_services(cluster: &Cluster, pods: &Pods) -> Result<()> {
    let Pods { a, b, c } = pods;
    let services = [cluster.expose(a)?, cluster.expose(b)?, cluster.expose(c)?];
    let result = cluster_ips(pods, &services)
        .and_then(|()| node_ports(cluster, pods, &services))
        .and_then(|()| from_a_container(cluster, a, c, &services[2]))
        .and_then(|()| directly(cluster, pods));
    let hidden = cluster.hide(&[a, b, c]);
    result.and(hidden)
}

/// From the first pod: its own Service, that of its neighbour, that of a pod on another node.
fn cluster_ips(pods: &Pods, services: &[Service; 3]) -> Result<()> {
    for (to, service) in [&pods.a, &pods.b, &pods.c].into_iter().zip(services) {
        answers(&pods.a, service.address, to)?;
        // A flow that the stack translates stays there, and so does what comes back.
        for _ in 0..PINGS {
            let seen = ask(pods.a.namespace(), service.address)?;
            ensure!(seen == to.name(), "{}: {seen} answers", service.address);
        }
    }
    Ok(())
}

/// From a pod and from each node, at each node.
fn node_ports(cluster: &Cluster, pods: &Pods, services: &[Service; 3]) -> Result<()> {
    for (to, service) in [&pods.b, &pods.c].into_iter().zip(&services[1..]) {
        for at in cluster.nodes() {
            let at = SocketAddr::new(at.ip(), service.node_port);
            answers(&pods.a, at, to)?;
            for from in cluster.nodes() {
                let what = format!("{}: {at}", from.name());
                let seen = wait_for(&what, seconds(10), || ask(from.namespace(), at))?;
                ensure!(seen == to.name(), "{what}: {seen} answers");
            }
        }
    }
    Ok(())
}

/// The same as users see it: a program in a container, started by `kubectl exec`.
fn from_a_container(cluster: &Cluster, from: &Pod, to: &Pod, service: &Service) -> Result<()> {
    for at in [service.address, SocketAddr::new(to.ip(), PORT)] {
        let url = format!("http://{at}/hostname");
        let seen = cluster.exec(from, &["curl", "--silent", "--max-time", "5", &url])?;
        ensure!(seen == to.name(), "{url}: {seen:?} answers");
    }
    Ok(())
}

/// Waits for kube-proxy, too.
fn answers(from: &Pod, at: SocketAddr, to: &Pod) -> Result<()> {
    let what = format!("{} asks {at}", from.name());
    let seen = wait_for(&what, seconds(10), || ask(from.namespace(), at));
    let seen = seen.context("Service")?;
    ensure!(seen == to.name(), "{what}: {seen} answers");
    Ok(())
}
