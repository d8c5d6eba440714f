//! Taking a network off a node for good: all that was made for it goes, unless pods still use it.
//!
//! ```text
//! fast path ─> routes ─> overlay ─> masquerade ─> VLAN gateway ─> bridge ─> state      (no pod left)
//! fast path ─> record                                                                  (pods go on by the bridge)
//! ```

use anyhow::{Context as _, Result};

use super::{Plan, Record, Store, Whole, overlay, peers::installed_routes};
use crate::{
    datapath::Datapath,
    net::{Netlink, link::Link},
    nft::Masquerade,
};

/// Why pods that outlive beeline are on the plain bridge. Unlike after `beeline unload`, the next set-up tries anew.
pub(super) const REMOVED: &str = "beeline was removed from this node";

/// What became of a network.
#[derive(Debug, Default)]
pub struct Removal {
    /// How many attachments there still are. If there are any, only the fast path is off.
    pub pods: usize,
    /// What is still there that was not to be, or that others use, each with the command that removes it.
    pub left: Vec<Left>,
    /// What failed.
    pub failures: Vec<anyhow::Error>,
}

/// Something that stays on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What it is, and why it stays.
    pub what: String,
    /// The command that removes it.
    pub command: String,
}

impl Removal {
    fn step(&mut self, done: Result<()>) {
        self.failures.extend(done.err());
    }

    fn leave(&mut self, what: String, command: String) {
        self.left.push(Left { what, command });
    }
}

/// Removes all that was made for the network. Where pods still use it they go on by the plain bridge, and what they need,
/// and their DEL, stays.
///
/// Every step runs even if an earlier one failed, and all of it may be repeated. `alone` says that beeline serves no other
/// network on this node, so that all of its routes are this one's.
pub async fn remove(netlink: &Netlink, plan: &Plan, store: &Store, alone: bool) -> Removal {
    let mut removal = Removal::default();
    // Waits for ADDs that have begun.
    let lock = match store.lock_exclusive() {
        Ok(lock) => lock,
        Err(error) => {
            removal.failures.push(error);
            return removal;
        }
    };
    // As the node was set up, which may not be how the configuration would have it by now.
    let record = store.record();
    let plan = record.as_ref().map_or(plan, |record| &record.plan);
    let attachments = store.attachments();
    // What cannot be told may be there.
    removal.pods = attachments.as_ref().map_or(1, Vec::len);
    removal.step(attachments.map(drop));
    removal.step(Datapath::remove(&plan.datapath.bpffs, &plan.network));
    // Whom routes lead to, before that is forgotten.
    let plan = &Whole::of(plan, store).plan;
    removal.step(store.forget_cluster());
    if removal.pods > 0 {
        removal.step(record.as_ref().map_or(Ok(()), |record| {
            store.save_record(&Record {
                degraded: Some(REMOVED.to_owned()),
                ..record.clone()
            })
        }));
        leave_all(plan, store, &mut removal);
        return removal;
    }
    let routes = remove_routes(netlink, plan, alone).await;
    removal.step(routes);
    let overlay = remove_overlay(netlink, plan).await;
    removal.step(overlay);
    let network = &plan.network;
    removal.step(Masquerade { network }.delete());
    let bridge = remove_bridge(netlink, plan, &mut removal).await;
    removal.step(bridge);
    removal.step(store.remove(lock));
    removal
}

/// The routes to the network's peers, and all that lead into its overlay.
async fn remove_routes(netlink: &Netlink, plan: &Plan, alone: bool) -> Result<()> {
    let overlay = netlink.link(&overlay::name(&plan.network)).await?;
    let mut failure = Ok(());
    for route in installed_routes(netlink).await? {
        let to_peer = plan
            .peers()
            .iter()
            .any(|peer| peer.cidr == route.destination);
        let overlaid = overlay
            .as_ref()
            .is_some_and(|link| link.index == route.interface);
        if alone || to_peer || overlaid {
            let deleted = netlink.delete_route(&route).await;
            failure = failure.and(deleted);
        }
    }
    failure
}

async fn remove_overlay(netlink: &Netlink, plan: &Plan) -> Result<()> {
    let link = netlink.link(&overlay::name(&plan.network)).await?;
    match link.filter(|link| link.vxlan.is_some()) {
        Some(link) => netlink.delete(link.index).await,
        None => Ok(()),
    }
}

/// The bridge, with the interface that is its pods' gateway in their VLAN; unless something is plugged into it that is not
/// ours.
async fn remove_bridge(netlink: &Netlink, plan: &Plan, removal: &mut Removal) -> Result<()> {
    let name = &plan.bridge.name;
    let link = netlink.link(name).await?;
    let Some(bridge) = link.filter(|link| link.kind.as_deref() == Some("bridge")) else {
        return Ok(());
    };
    let gateway = plan.bridge.vlans.as_ref();
    let gateway = gateway.and_then(|vlans| vlans.gateway_interface(name));
    let links = netlink.links().await?;
    let gateway = links
        .iter()
        .find(|link| Some(&link.name) == gateway.as_ref());
    let is_foreign = |link: &&Link| {
        let inside = |gateway: &Link| gateway.peer_index == Some(link.index);
        link.controller == Some(bridge.index) && !gateway.is_some_and(inside)
    };
    let ports: Vec<_> = links.iter().filter(is_foreign).collect();
    if let Some(port) = ports.first() {
        removal.leave(
            format!("bridge {name}: has ports, such as {}", port.name),
            format!("ip link delete {name}"),
        );
        return Ok(());
    }
    if let Some(gateway) = gateway {
        let deleted = netlink.delete(gateway.index).await;
        deleted.with_context(|| format!("interface {}", gateway.name))?;
    }
    netlink.delete(bridge.index).await
}

/// What pods need stays, and goes by these commands once they are gone.
fn leave_all(plan: &Plan, store: &Store, removal: &mut Removal) {
    let (network, bridge) = (&plan.network, &plan.bridge.name);
    if let Some(gateway) = plan
        .bridge
        .vlans
        .as_ref()
        .and_then(|vlans| vlans.gateway_interface(bridge))
    {
        removal.leave(
            format!("gateway {gateway}"),
            format!("ip link delete {gateway}"),
        );
    }
    removal.leave(
        format!("bridge {bridge}"),
        format!("ip link delete {bridge}"),
    );
    if !plan.peers().is_empty() {
        let protocol = crate::net::route::PROTOCOL;
        removal.leave(
            "routes to other nodes".to_owned(),
            format!("ip route flush proto {protocol}; ip -6 route flush proto {protocol}"),
        );
    }
    if plan.datapath.overlay.is_some() {
        let overlay = overlay::name(network);
        removal.leave(
            format!("overlay {overlay}"),
            format!("ip link delete {overlay}"),
        );
    }
    if plan.masquerade {
        removal.leave(
            "masquerading".to_owned(),
            format!("nft delete table inet beeline-{network}"),
        );
    }
    let state = store.root().display();
    removal.leave(format!("state in {state}"), format!("rm -r {state}"));
}

/// Whether a set-up is to be done anew, as all that it made may have been removed since.
pub(super) fn is_removed(record: &Record) -> bool {
    record.degraded.as_deref() == Some(REMOVED)
}
