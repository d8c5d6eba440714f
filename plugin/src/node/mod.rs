//! What the pods of a network share on a node: bridge, routes to peers, masquerade, fast path; and what beeline
//! remembers of it.
//!
//! ```text
//! ADD ── enter ──┬─ ready: lock shared, look, go on           (every ADD but the first)
//!                └─ not ready: lock alone, set up, lock shared
//! ```

mod attachment;
mod bridge;
pub mod cluster;
mod control;
pub mod directory;
pub mod drift;
mod fastpath;
mod firewall;
mod gone;
mod macs;
mod monitor;
mod overlay;
mod peers;
mod plan;
mod remove;
mod routes;
mod setup;
mod store;
pub mod survey;
mod vlan;
pub mod watch;
mod way;
mod whole;

use anyhow::Result;
use ipnetwork::IpNetwork;

use self::setup::Changes;
pub use self::{
    attachment::Attachment,
    bridge::{Bridge, Conflict},
    control::{load, unload},
    monitor::Monitor,
    plan::{BridgePlan, Plan, VlanPlan},
    remove::{Left, Removal, remove},
    store::{Lock, Record, Store},
    whole::Whole,
};
use crate::net::Netlink;

/// A node that is set up for a network, and stays so as long as this value lives.
#[derive(Debug)]
pub struct Node {
    /// The network's files.
    pub store: Store,
    /// The network's bridge.
    pub bridge: Bridge,
    /// How the node was set up.
    pub record: Record,
    lock: Lock,
    changes: Option<Changes>,
}

impl Node {
    /// Sets the node up if it is not yet as planned, and keeps others from taking it down.
    pub async fn enter(netlink: &Netlink, plan: &Plan) -> Result<Self> {
        let store = Store::new(plan);
        let node = |bridge, record, lock, changes| Self {
            store: store.clone(),
            bridge,
            record,
            lock,
            changes,
        };
        let lock = store.lock_shared()?;
        if let Some((bridge, record)) = setup::ready(netlink, plan, &store).await? {
            return Ok(node(bridge, record, lock, None));
        }
        drop(lock);
        let mut lock = store.lock_exclusive()?;
        // Another ADD may have set it up while this one waited.
        if let Some((bridge, record)) = setup::ready(netlink, plan, &store).await? {
            lock.share()?;
            return Ok(node(bridge, record, lock, None));
        }
        let fresh = !store.is_set_up();
        let (bridge, record, changes) = match setup::set_up(netlink, plan, &store).await {
            Ok(made) => made,
            Err(error) => {
                if fresh {
                    store.remove(lock)?;
                }
                return Err(error);
            }
        };
        let mut node = node(bridge, record, lock, Some(changes));
        if let Err(error) = node.lock.share() {
            // What matters is the first error.
            let _ = node.abandon(netlink).await;
            return Err(error);
        }
        Ok(node)
    }

    /// Makes an address the bridge's own, so that pods can use it as their gateway.
    ///
    /// # Errors
    ///
    /// The bridge has an address that conflicts, and `force` does not allow to replace it.
    pub async fn ensure_gateway(
        &mut self,
        netlink: &Netlink,
        gateway: IpNetwork,
        force: bool,
    ) -> Result<()> {
        if bridge::ensure_gateway(netlink, &self.bridge, gateway, force).await? {
            let changes = self.changes.get_or_insert_default();
            changes.gateways.push((self.bridge.gateway().0, gateway));
        }
        Ok(())
    }

    /// Takes back what entering made, unless others rely on it by now.
    pub async fn abandon(mut self, netlink: &Netlink) -> Result<()> {
        let Some(changes) = self.changes.take() else {
            return Ok(());
        };
        if self.lock.try_exclusive()? && self.store.attachments()?.is_empty() {
            let set_up = changes.is_set_up();
            setup::undo(netlink, &self.record.plan, changes).await;
            if set_up {
                self.store.remove(self.lock)?;
            }
        }
        Ok(())
    }
}
