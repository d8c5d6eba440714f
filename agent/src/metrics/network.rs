//! What the network on this node is like, read when somebody asks: from the pinned maps, and from the names of files,
//! not from what is in them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use beeline::{
    cni::NetConf,
    datapath::{Counter, Datapath, Usage, config::Mode},
    ipam::{self, IpamConf},
    node::Store,
};
use beeline_common::Pod;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{families, fill::Fill};

/// Where the network that the agent keeps is on this node.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    name: String,
    store: Store,
    bpffs: PathBuf,
    /// Whether pods are to be on the fast path.
    wants_fast: bool,
    ipam: Option<IpamConf>,
}

impl Network {
    /// The network of a configuration.
    pub(crate) fn of(conf: &NetConf) -> Self {
        let datapath = &conf.datapath;
        Self {
            name: conf.name.clone(),
            store: Store::at(datapath.state_dir.join(&conf.name)),
            bpffs: datapath.bpffs.clone(),
            wants_fast: datapath.mode != Mode::Bridge,
            // What another IPAM plugin has is its own business.
            ipam: conf.host_local().ok(),
        }
    }
}

/// Reads the network anew each time.
#[derive(Debug, Default)]
pub(super) struct Source {
    network: Mutex<Option<Network>>,
    // A lock of its own, as a reader holds it while it reads, and the agent's loop does not wait for that.
    memory: Mutex<Memory>,
}

/// What is remembered from one reading to the next.
#[derive(Debug, Default)]
struct Memory {
    fill: Fill,
    /// What could not be read the last time, and was logged.
    failures: HashMap<&'static str, String>,
    was_up: Option<bool>,
}

/// What a network is like.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) network: String,
    /// Whether the fast path is there; `None` if it is not wanted.
    pub(super) up: Option<bool>,
    pub(super) counters: Vec<Counter>,
    pub(super) maps: Vec<Usage>,
    /// Pods on the fast path, and on the slow one.
    pub(super) pods: Option<(usize, usize)>,
    pub(super) ranges: Vec<Range>,
}

/// A range set, and how much of it is taken.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) name: String,
    pub(super) reserved: usize,
    pub(super) capacity: u128,
}

impl Collector for Source {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let network = lock(&self.network).clone();
        let reading = network.map(|network| lock(&self.memory).read(&network));
        families::encode(reading.as_ref(), encoder)
    }
}

impl Source {
    pub(super) fn set(&self, network: Network) {
        *lock(&self.network) = Some(network);
    }
}

impl Memory {
    fn read(&mut self, network: &Network) -> Reading {
        let datapath = Datapath::open(&network.bpffs, &network.name);
        self.note(network, datapath.is_some());
        let mut reading = Reading {
            network: network.name.clone(),
            up: network.wants_fast.then_some(datapath.is_some()),
            ..Reading::default()
        };
        let mut fast = Some(0);
        if let Some(datapath) = &datapath {
            let counters = self.logged("counters", datapath.counters());
            reading.counters = counters.unwrap_or_default();
            for map in Usage::MAPS {
                let usage = self.fill.of(map, || datapath.usage_of(map));
                reading.maps.extend(self.logged(map, usage));
            }
            fast = self.logged("pods", fast_pods(datapath));
        }
        let all = self.logged("attachments", network.store.count_attachments());
        reading.pods = fast
            .zip(all)
            .map(|(fast, all)| (fast, all.saturating_sub(fast)));
        if let Some(ipam) = &network.ipam {
            reading.ranges = self.logged("addresses", ranges(ipam)).unwrap_or_default();
        }
        reading
    }

    /// Logs what turns the fast path off, which is no label's business.
    fn note(&mut self, network: &Network, is_up: bool) {
        if self.was_up.replace(is_up) == Some(is_up) {
            return;
        }
        self.fill.clear();
        if network.wants_fast && !is_up {
            let record = network.store.record();
            let reason = record.and_then(|record| record.degraded);
            let reason = reason.as_deref().unwrap_or("it is not set up");
            tracing::warn!(network = network.name, "no fast path: {reason}");
        }
    }

    /// What could be read. What could not is logged, but not at each scrape again.
    fn logged<T>(&mut self, what: &'static str, read: Result<T>) -> Option<T> {
        match read {
            Ok(read) => {
                self.failures.remove(what);
                Some(read)
            }
            Err(error) => {
                let message = format!("{error:#}");
                if self.failures.get(what) != Some(&message) {
                    tracing::warn!("metrics: {what}: {message}");
                    self.failures.insert(what, message);
                }
                None
            }
        }
    }
}

/// How many pods the fast path delivers to; one may have several addresses.
fn fast_pods(datapath: &Datapath) -> Result<usize> {
    let pods = datapath.pods()?.into_iter();
    let fast = pods.filter(|(_, pod)| !pod.has(Pod::SLOW));
    Ok(fast
        .map(|(_, pod)| pod.ifindex)
        .collect::<HashSet<_>>()
        .len())
}

/// How much of each range set is reserved.
fn ranges(ipam: &IpamConf) -> Result<Vec<Range>> {
    let store = ipam::store::Store::open(&ipam.data_dir, &ipam.network)?;
    let reserved = store.map(|store| store.addresses()).transpose()?;
    let reserved = reserved.unwrap_or_default();
    let sets = ipam.ranges.iter();
    Ok(sets
        .map(|set| Range {
            name: set.to_string(),
            reserved: reserved.iter().filter(|ip| set.allocates(**ip)).count(),
            capacity: set.capacity(),
        })
        .collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in them can be half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
