//! What a node was set up for, and what did not work.

use serde::{Deserialize, Serialize};

use super::super::Plan;
use crate::datapath::config::Mode;

/// What is known of a node that was set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What it was set up for.
    pub plan: Plan,
    /// Why pods are on the plain bridge, if they should not be.
    pub degraded: Option<String>,
    /// What else did not work: peers that no route leads to, uplinks that are missing.
    pub problems: Vec<String>,
    /// The MTU that the way to the peers leaves pods, in bytes, if it is less than the kernel's own.
    #[serde(default)]
    pub pod_mtu: Option<u32>,
    /// What in netfilter the fast path would defeat, or does where `mode` is `ebpf`.
    #[serde(default)]
    pub firewall: Vec<String>,
    /// Whether an administrator turned the fast path off.
    #[serde(default)]
    pub off: bool,
}

impl Record {
    /// Whether pods can be on the fast path.
    pub fn is_fast(&self) -> bool {
        self.plan.datapath.mode != Mode::Bridge && self.degraded.is_none()
    }

    /// What the fast path knowingly defeats.
    pub fn bypassed(&self) -> &[String] {
        match self.degraded {
            None => &self.firewall,
            Some(_) => &[],
        }
    }

    /// What was asked for and does not hold.
    pub fn unmet(&self) -> Option<&'static str> {
        let degraded = self.degraded.is_some();
        degraded.then(|| self.plan.unmet_on_bridge()).flatten()
    }

    /// Logs what does not work.
    pub fn warn(&self) {
        let network = &self.plan.network;
        if let Some(reason) = &self.degraded {
            tracing::warn!(network, "pods take the plain bridge, no eBPF: {reason}");
        }
        if let Some(unmet) = self.unmet() {
            tracing::warn!(network, "{unmet}");
        }
        for problem in &self.problems {
            tracing::warn!(network, "{problem}");
        }
        for rule in self.bypassed() {
            tracing::warn!(network, "the fast path passes by a firewall: {rule}");
        }
    }
}
