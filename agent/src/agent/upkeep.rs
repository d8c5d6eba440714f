//! What has to be looked after although nobody tells of it: what others changed on the node, and what pods left.

use beeline::node::drift;

use super::{Agent, State};
use crate::gc;

/// So many things of a kind are named in the log.
const NAMED: usize = 10;

impl Agent<'_> {
    /// Looks whether the node still is as it was made, and makes it so again if it is not.
    pub(super) async fn resync(&self, state: &mut State) {
        let Some(made) = &mut state.made else { return };
        match drift::find(self.netlink, &made.plan, &made.store).await {
            Ok(drifts) => {
                for drift in drifts.iter().take(NAMED) {
                    tracing::warn!("drift: {drift}");
                }
                if drifts.len() > NAMED {
                    tracing::warn!("drift: {} more", drifts.len() - NAMED);
                }
                drifts
                    .iter()
                    .for_each(|drift| self.metrics.repaired(drift.kind, 1));
                made.doubtful |= !drifts.is_empty();
            }
            Err(error) => tracing::warn!("look for drift: {error:#}"),
        }
        // What was on the plain bridge for want of something may have it by now.
        made.doubtful |= made.record.degraded.is_some() && !made.record.off;
        let judgement = made.judgement.clone();
        self.make(state, judgement).await;
    }

    /// Collects what pods left.
    pub(super) async fn collect(&self, state: &State) {
        let Some(made) = &state.made else { return };
        let scope = gc::Scope {
            store: &made.store,
            conf: &made.conflist.plugin,
            bin_dir: &self.options.node.bin_dir,
            socket: self.options.runtime_endpoint.as_deref(),
            age: self.options.gc_age,
        };
        match gc::run(&scope).await {
            Ok(gc::Collected {
                attachments,
                owners,
            }) => {
                self.metrics.collected(attachments as u64, owners as u64);
            }
            Err(error) => tracing::warn!("collect what pods left: {error:#}"),
        }
    }
}
