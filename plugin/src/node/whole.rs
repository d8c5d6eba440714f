//! A plan with the peers in it, whoever names them: its configuration, or in cluster mode an agent.

use anyhow::Result;

use super::{Plan, Store, cluster::Cluster, setup};

/// A plan with the peers in it.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The plan.
    pub plan: Plan,
    /// What the agent knows that keeps the peers, in cluster mode.
    pub cluster: Option<Cluster>,
}

impl Whole {
    /// The whole of a plan. In cluster mode it reads all peers from a file; [`is_clustered`] tells without that.
    pub fn of(plan: &Plan, store: &Store) -> Self {
        let cluster = is_clustered(plan, store).then(|| store.cluster()).flatten();
        Self {
            plan: match &cluster {
                Some(cluster) => cluster.complete(plan),
                None => plan.clone(),
            },
            cluster,
        }
    }

    /// Whether an agent keeps the peers, and what it keeps can be read.
    pub fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether the table of masquerading is as a set-up writes it; in cluster mode, but for the peers in it.
    pub fn masquerades(&self) -> Result<bool> {
        setup::masquerades(&self.plan, self.is_clustered())
    }
}

/// Whether an agent keeps the peers: those that a configuration names count for more.
pub(super) fn is_clustered(plan: &Plan, store: &Store) -> bool {
    plan.peers().is_empty() && store.is_clustered()
}
