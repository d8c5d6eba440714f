//! A contender as it stands: its namespaces, and the ends that traffic runs between.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::kube_proxy;
use super::types::Place;
use crate::icmp::{self, Echo};
use crate::netns::Namespace;
use crate::pod::Pod;
use crate::services::filter_bridged;
use crate::topology::{BENCH_PREFIX, Topology};
use crate::{conntrack, datapath};

/// One end of traffic.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) ip: IpAddr,
}

impl<'a> End<'a> {
    fn new(namespace: &'a Namespace, ip: impl Into<IpAddr>) -> Self {
        let ip = ip.into();
        Self { namespace, ip }
    }
}

/// What a contender was built of; pods go before their nodes.
pub(super) struct Arena {
    pub(super) name: &'static str,
    pods: Vec<Pod>,
    veth: Option<[Namespace; 2]>,
    topology: Option<Topology>,
    /// Counters of the first node that its pods' packets must move, or it is not this contender that is measured.
    counters: &'static [&'static str],
    places: &'static [Place],
}

/// What the names of a contender start with.
pub(super) fn prefix(contender: &str) -> String {
    format!("{BENCH_PREFIX}{contender}")
}

impl Arena {
    pub(super) fn of_veth(name: &'static str, left: Namespace, right: Namespace) -> Self {
        Self {
            name,
            pods: Vec::new(),
            veth: Some([left, right]),
            topology: None,
            counters: &[],
            places: &[],
        }
    }

    pub(super) fn of_nodes(name: &'static str, topology: Topology) -> Self {
        Self::of_pods(name, topology, Vec::new(), &[])
    }

    /// Pods in the order client, server on the same node, server on the other.
    pub(super) fn of_pods(
        name: &'static str,
        topology: Topology,
        pods: Vec<Pod>,
        counters: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            pods,
            veth: None,
            topology: Some(topology),
            counters,
            places: &[],
        }
    }

    /// The same, to be measured at these places.
    pub(super) fn at(self, places: &'static [Place]) -> Self {
        Self { places, ..self }
    }

    /// The client and the server of a place, if it is measured there.
    pub(super) fn ends(&self, place: Place) -> Option<[End<'_>; 2]> {
        if !self.places.contains(&place) {
            return None;
        }
        if let [client, near, far] = &self.pods[..] {
            let server = match place {
                Place::SameNode => near,
                Place::AcrossNodes => far,
            };
            return Some([client, server].map(|pod| End::new(pod.namespace(), pod.ip())));
        }
        match (&self.veth, &self.topology, place) {
            (Some([left, right]), _, Place::SameNode) => Some([
                End::new(left, Ipv4Addr::new(10, 244, 0, 1)),
                End::new(right, Ipv4Addr::new(10, 244, 0, 2)),
            ]),
            (_, Some(topology), Place::AcrossNodes) => match topology.nodes() {
                [near, far] => Some([near, far].map(|node| End::new(node.netns(), node.address()))),
                _ => None,
            },
            _ => None,
        }
    }

    /// Sets all namespaces alike, and puts kube-proxy's rules on nodes; returns whether bridged packets see them.
    pub(super) fn tune(&self, services: u32) -> Result<bool> {
        let mut bridged = true;
        for place in [Place::SameNode, Place::AcrossNodes] {
            for end in self.ends(place).into_iter().flatten() {
                // The machine's own default may be one that paces; this one every namespace of every kernel may use.
                end.namespace
                    .write_sysctl("net/ipv4/tcp_congestion_control", "reno")?;
                // Connects of one run leave as many ports in TIME_WAIT.
                end.namespace
                    .write_sysctl("net/ipv4/ip_local_port_range", "10000 65535")?;
            }
        }
        let Some(topology) = &self.topology else {
            return Ok(bridged);
        };
        // The switch stands for hardware, which has no netfilter.
        filter_bridged(topology.switch(), false)?;
        for node in topology.nodes() {
            bridged &= filter_bridged(node.netns(), services > 0)?;
            if services > 0 {
                kube_proxy::install(node.netns(), services)?;
            }
        }
        Ok(bridged)
    }

    /// Fails unless the ends reach each other, and by the path that the contender stands for.
    pub(super) fn check(&self) -> Result<()> {
        let node = self.topology.iter().flat_map(Topology::nodes).next();
        let counters = || node.map_or_else(|| Ok(BTreeMap::new()), |node| node.counters());
        let before = counters()?;
        for place in [Place::SameNode, Place::AcrossNodes] {
            let Some([client, server]) = self.ends(place) else {
                continue;
            };
            let echo = Echo {
                count: 3,
                ..Echo::to(server.ip)
            };
            // What is sent before the kernel has told of both ends' carriers is lost.
            let patience = Instant::now() + Duration::from_secs(5);
            let mut ping = icmp::ping(client.namespace, &echo);
            while !ping.is_complete() && Instant::now() < patience {
                ping = icmp::ping(client.namespace, &echo);
            }
            ensure!(ping.is_complete(), "{}: {ping}", client.namespace.name());
        }
        let moved = datapath::growth(&before, &counters()?);
        for counter in self.counters {
            ensure!(
                moved.contains_key(*counter),
                "no packet takes the fast path {counter}"
            );
        }
        Ok(())
    }

    /// Has each round start from the same state: forgets the connections of the one before.
    pub(super) fn reset(&self) -> Result<()> {
        let mut nodes = self.topology.iter().flat_map(Topology::nodes);
        nodes.try_for_each(|node| conntrack::flush(node.netns()))
    }

    /// Detaches all pods, and removes everything.
    pub(super) fn down(self) -> Result<()> {
        self.pods.into_iter().try_for_each(Pod::delete)
    }
}
