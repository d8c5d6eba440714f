//! What calls of the plugin take, as it tells itself.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use beeline::cni::tell::Told;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{BUCKETS, result};

/// How many networks are told of by name: a runtime may know any number of them, and each is a hundred series.
const MAX_NAMED: usize = 32;

/// The label of the networks beyond.
const OTHER: &str = "other";

/// Calls of the plugin.
#[derive(Debug)]
pub(super) struct Calls {
    named: Mutex<HashSet<String>>,
    took: Family<Call, Histogram, fn() -> Histogram>,
    ignored: Family<ByReason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    network: String,
    command: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// Why a datagram says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// It is not what the plugin sends.
    Malformed,
    /// It is of a plugin that tells in another way.
    Version,
}

impl Ignored {
    const ALL: [Self; 2] = [Self::Malformed, Self::Version];

    const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
        }
    }
}

impl Calls {
    pub(super) fn new() -> Self {
        let calls = Self {
            named: Mutex::default(),
            took: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            ignored: Family::default(),
        };
        for reason in Ignored::ALL.map(Ignored::name) {
            drop(calls.ignored.get_or_create(&ByReason { reason }));
        }
        calls
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "cni",
            "How long calls of the plugin took, from its start to its answer",
            Unit::Seconds,
            self.took.clone(),
        );
        registry.register(
            "cni_ignored",
            "Datagrams to the agent that say nothing of a call",
            self.ignored.clone(),
        );
    }

    pub(super) fn observe(&self, told: &Told) {
        let call = Call {
            network: self.label(&told.network),
            command: told.command.clone(),
            result: result(told.failed),
        };
        let seconds = told.micros as f64 / 1e6;
        self.took.get_or_create(&call).observe(seconds);
    }

    fn label(&self, network: &str) -> String {
        // A set is whole whoever panicked over it.
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if !named.contains(network) {
            if named.len() >= MAX_NAMED {
                return OTHER.to_owned();
            }
            named.insert(network.to_owned());
        }
        network.to_owned()
    }

    pub(super) fn ignored(&self, reason: Ignored) {
        let reason = reason.name();
        self.ignored.get_or_create(&ByReason { reason }).inc();
    }
}
