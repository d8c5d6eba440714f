//! What the agent counts.
use std::time::Duration;
/// Counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics;
impl Metrics {
    pub(crate) fn reconciled(&self, _took: Duration, _ok: bool) {}
    pub(crate) fn set_backend_up(&self, _up: bool) {}
    pub(crate) fn repaired(&self, _kind: &'static str) {}
    pub(crate) fn collected(&self, _attachments: usize, _addresses: usize) {}
    pub(crate) fn set_cluster(&self, _nodes: usize, _problems: usize) {}
    pub(crate) fn set_store(&self, _store: beeline::node::Store) {}
}
