//! What the agent tells Prometheus.
//!
//! What the agent itself does is counted as it happens. What is the node's is read when somebody asks: of the
//! [`network`](Network), from the pinned maps and the files of the state, and of the [`process`].

mod calls;
mod families;
mod fill;
mod network;
mod process;

#[cfg(test)]
mod boards_tests;
#[cfg(test)]
pub(crate) mod exposition;
#[cfg(test)]
mod netns_tests;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use beeline::cni::tell::Told;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use self::calls::Calls;
pub(crate) use self::{calls::Ignored, network::Network};

/// What the names of all metrics begin with, but for those of the process, which have names that all programs share.
const PREFIX: &str = "beeline";

/// Upper bounds of what calls and reconciles take, in seconds.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Everything that the agent tells.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    network: Arc<network::Source>,
    backend_up: Gauge,
    nodes: Gauge,
    problems: Gauge,
    reconciles: Family<ByResult, Counter>,
    reconcile: Histogram,
    synced: Gauge<f64, AtomicU64>,
    repairs: Family<ByKind, Counter>,
    collected: Family<ByKind, Counter>,
    calls: Calls,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// The label of what went well, or did not.
const fn result(failed: bool) -> &'static str {
    match failed {
        true => "error",
        false => "ok",
    }
}

impl Metrics {
    /// Metrics of an agent that has done nothing yet.
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            network: Arc::default(),
            backend_up: Gauge::default(),
            nodes: Gauge::default(),
            problems: Gauge::default(),
            reconciles: Family::default(),
            reconcile: Histogram::new(BUCKETS),
            synced: Gauge::default(),
            repairs: Family::default(),
            collected: Family::default(),
            calls: Calls::new(),
        };
        // So that the first of them is seen as an increase.
        for failed in [false, true] {
            let result = result(failed);
            drop(metrics.reconciles.get_or_create(&ByResult { result }));
        }
        for kind in ["attachment", "address"] {
            drop(metrics.collected.get_or_create(&ByKind { kind }));
        }
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::new()));
        let own = registry.sub_registry_with_prefix(PREFIX);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "The agent's build", version);
        self.register_cluster(own);
        self.register_upkeep(own);
        self.calls.register(own);
        own.register_collector(Box::new(Arc::clone(&self.network)));
        self.registry = registry;
    }

    fn register_cluster(&self, registry: &mut Registry) {
        registry.register(
            "backend_up",
            "Whether the engine that knows the cluster can be reached",
            self.backend_up.clone(),
        );
        registry.register(
            "cluster_nodes",
            "Nodes of the cluster that are known, this one among them",
            self.nodes.clone(),
        );
        registry.register(
            "cluster_problems",
            "What keeps this node from reaching others; the log names each",
            self.problems.clone(),
        );
    }

    fn register_upkeep(&self, registry: &mut Registry) {
        registry.register(
            "reconciles",
            "How often the node was made what the cluster wants it to be",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile",
            "How long that took",
            Unit::Seconds,
            self.reconcile.clone(),
        );
        registry.register_with_unit(
            "last_sync_timestamp",
            "When the node last was as it should be, in Unix time; 0 if not yet",
            Unit::Seconds,
            self.synced.clone(),
        );
        registry.register(
            "repairs",
            "What was not as it should be, and was put right, by kind",
            self.repairs.clone(),
        );
        registry.register(
            "collected",
            "What pods left that the runtime does not know any more, and was removed",
            self.collected.clone(),
        );
    }

    /// From now on tells of this network.
    pub(crate) fn set_network(&self, network: Network) {
        self.network.set(network);
    }

    /// Whether the backend can be reached.
    pub(crate) fn set_backend_up(&self, up: bool) {
        self.backend_up.set(up.into());
    }

    /// How many nodes the cluster has, and how many problems this one has with them.
    pub(crate) fn set_cluster(&self, nodes: usize, problems: usize) {
        self.nodes.set(gauge(nodes));
        self.problems.set(gauge(problems));
    }

    /// The node was made what it shall be, or was not.
    pub(crate) fn reconciled<T, E>(&self, took: Duration, outcome: &Result<T, E>) {
        let result = result(outcome.is_err());
        self.reconciles.get_or_create(&ByResult { result }).inc();
        self.reconcile.observe(took.as_secs_f64());
        if outcome.is_ok() {
            self.synced.set(now());
        }
    }

    /// Some things of a kind were not as they should be, and are now. Kinds are named in the code, as there must not be
    /// many of them.
    pub(crate) fn repaired(&self, kind: &'static str, count: u64) {
        self.repairs.get_or_create(&ByKind { kind }).inc_by(count);
    }

    /// What pods left was removed.
    pub(crate) fn collected(&self, attachments: u64, addresses: u64) {
        for (kind, count) in [("attachment", attachments), ("address", addresses)] {
            self.collected.get_or_create(&ByKind { kind }).inc_by(count);
        }
    }

    /// The plugin has answered a call.
    pub(crate) fn called(&self, told: &Told) {
        self.calls.observe(told);
    }

    /// Somebody told what is not understood.
    pub(crate) fn ignored(&self, reason: Ignored) {
        self.calls.ignored(reason);
    }

    /// All of it in the text format of OpenMetrics.
    ///
    /// This reads maps and directories: some 13 ms with 5,000 peers and 1,000 pods of two addresses, and more where flows
    /// are counted (see [`fill`]). Nothing for the thread of the agent's loop.
    pub(crate) fn encode(&self) -> Result<String> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).context("metrics: encode")?;
        Ok(text)
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Unix time in seconds.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
