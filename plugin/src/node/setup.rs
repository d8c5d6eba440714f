//! Setting a node up for a network, and taking that back if the ADD that did it fails.

use anyhow::{Context as _, Result, bail};
use beeline_common::Hook;
use ipnetwork::IpNetwork;

use super::{
    Plan, Record, Store,
    bridge::{self, Bridge},
    fastpath::{self, Places},
    peers::{Neighbourhood, installed_routes},
};
use crate::{
    datapath::{Datapath, config::Mode},
    net::{Netlink, route::Route, sysctl},
    nft::Masquerade,
};

/// Why a node is on the plain bridge that an administrator put there.
pub(super) const OFF: &str = "turned off by `beeline unload`; `beeline load` turns it on";

/// What one set-up made that was not there before.
#[derive(Debug, Default)]
pub(super) struct Changes {
    bridge: Option<u32>,
    routes: Vec<Route>,
    masquerade: bool,
    datapath: bool,
    /// Gateway addresses, with the index of the bridge that got them.
    pub(super) gateways: Vec<(u32, IpNetwork)>,
    record: bool,
}

impl Changes {
    /// Whether they come from a set-up, not only from what was added to a node that was set up before.
    pub(super) fn is_set_up(&self) -> bool {
        self.record
    }
}

/// Looks whether the node still is as the plan wants it. Changes nothing and runs no child process.
pub(super) async fn ready(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
) -> Result<Option<(Bridge, Record)>> {
    let Some(record) = store.record().filter(|record| record.plan == *plan) else {
        return Ok(None);
    };
    let Some(bridge) = bridge::find(netlink, &plan.bridge).await? else {
        return Ok(None);
    };
    let fast = plan.datapath.mode != Mode::Bridge && record.degraded.is_none();
    let datapath = fast
        .then(|| Datapath::open(&plan.datapath.bpffs, &plan.network))
        .flatten();
    let settled = fast == datapath.is_some()
        && forwards(plan)
        && masquerades(plan)?
        && peers_reachable(netlink, plan, &record, &bridge, datapath.as_ref()).await?;
    Ok(settled.then_some((bridge, record)))
}

/// Whether the routes are there and the programs are attached, as far as the last set-up could do that.
async fn peers_reachable(
    netlink: &Netlink,
    plan: &Plan,
    record: &Record,
    bridge: &Bridge,
    datapath: Option<&Datapath>,
) -> Result<bool> {
    let attached = |hook, ifindex| datapath.is_none_or(|d| d.is_attached(hook, ifindex));
    if !attached(Hook::ToPod, bridge.index) {
        return Ok(false);
    }
    if plan.peers().is_empty() && plan.datapath.uplinks.is_empty() {
        return Ok(true);
    }
    let mut reachable = plan.peers().to_vec();
    if !record.problems.is_empty() {
        // A peer that had a problem may have none by now.
        let found = Neighbourhood::find(netlink, &plan.datapath).await?;
        if found.problems != record.problems {
            return Ok(false);
        }
        reachable = found.peers.into_iter().map(|(peer, _)| peer).collect();
    }
    let installed = installed_routes(netlink).await?;
    let settled = reachable.iter().all(|peer| {
        let to_peer =
            |route: &&Route| route.destination == peer.cidr && route.gateway == Some(peer.node);
        installed
            .iter()
            .find(to_peer)
            .is_some_and(|route| attached(Hook::ToUplink, route.interface))
    });
    Ok(settled)
}

/// Makes the node what the plan wants. The caller is alone in it.
///
/// # Errors
///
/// What pods cannot do without. What they can is written into the record: they start on the plain bridge.
pub(super) async fn set_up(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
) -> Result<(Bridge, Record, Changes)> {
    let mut changes = Changes::default();
    match attempt(netlink, plan, store, &mut changes).await {
        Ok((bridge, record)) => Ok((bridge, record, changes)),
        Err(error) => {
            undo(netlink, plan, changes).await;
            Err(error)
        }
    }
}

async fn attempt(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    changes: &mut Changes,
) -> Result<(Bridge, Record)> {
    let (bridge, created) = bridge::ensure(netlink, &plan.bridge).await?;
    changes.bridge = created.then_some(bridge.index);
    fault!("setup-bridge");
    for key in forwarding(plan) {
        sysctl::ensure(key, "1")?;
    }
    let neighbourhood = Neighbourhood::find(netlink, &plan.datapath).await?;
    install_routes(netlink, plan, store, &neighbourhood, changes).await?;
    fault!("setup-routes");
    apply_masquerade(plan, changes)?;
    fault!("setup-masquerade");
    let off = store.record().is_some_and(|record| record.off);
    let places = Places::find(&bridge, &neighbourhood, store)?;
    let degraded = match plan.datapath.mode {
        Mode::Bridge => None,
        _ if off => Some(OFF.to_owned()),
        Mode::Ebpf if !neighbourhood.problems.is_empty() => {
            bail!("datapath: {}", neighbourhood.problems.join("; "))
        }
        Mode::Ebpf => {
            load(plan, &places, changes)?;
            None
        }
        Mode::Auto => load(plan, &places, changes)
            .err()
            .map(|error| format!("{error:#}")),
    };
    let record = Record {
        plan: plan.clone(),
        degraded,
        problems: neighbourhood.problems,
        off,
    };
    // Once: at set-up, not at every ADD.
    record.warn();
    store.save_record(&record)?;
    changes.record = true;
    fault!("setup-record");
    Ok((bridge, record))
}

/// The settings that make the node a router for its pods.
fn forwarding(plan: &Plan) -> impl Iterator<Item = &'static str> {
    let v6 = plan.has_family(false);
    let v4 = plan.has_family(true) || !v6;
    let keys = [
        (v4, "net/ipv4/ip_forward"),
        (v6, "net/ipv6/conf/all/forwarding"),
    ];
    let wanted = plan.bridge.gateway;
    keys.into_iter()
        .filter_map(move |(used, key)| (wanted && used).then_some(key))
}

fn forwards(plan: &Plan) -> bool {
    forwarding(plan).all(|key| sysctl::get(key).is_ok_and(|value| value == "1"))
}

/// Installs the routes to the peers, and removes those to peers that are none any more.
async fn install_routes(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    neighbourhood: &Neighbourhood,
    changes: &mut Changes,
) -> Result<()> {
    let former = store.record().map(|record| record.plan);
    let former = former.as_ref().map_or(&[][..], Plan::peers);
    if plan.peers().is_empty() && former.is_empty() {
        return Ok(());
    }
    let installed = installed_routes(netlink).await?;
    for route in neighbourhood.routes() {
        let known = |other: &Route| {
            other.destination == route.destination
                && other.gateway == route.gateway
                && other.interface == route.interface
        };
        if installed.iter().any(known) {
            continue;
        }
        netlink.replace_route(&route).await?;
        changes.routes.push(route);
    }
    for route in installed {
        let was = former.iter().any(|peer| peer.cidr == route.destination);
        let is = plan
            .peers()
            .iter()
            .any(|peer| peer.cidr == route.destination);
        if was && !is {
            netlink.delete_route(&route).await?;
        }
    }
    Ok(())
}

fn masquerade(plan: &Plan) -> Masquerade<'_> {
    Masquerade {
        network: &plan.network,
    }
}

fn masquerades(plan: &Plan) -> Result<bool> {
    Ok(!plan.masquerade || masquerade(plan).is_applied(&plan.pod_cidrs, &plan.cluster_cidrs())?)
}

fn apply_masquerade(plan: &Plan, changes: &mut Changes) -> Result<()> {
    if masquerades(plan)? {
        return Ok(());
    }
    let masquerade = masquerade(plan);
    changes.masquerade = !masquerade.exists()?;
    masquerade.apply(&plan.pod_cidrs, &plan.cluster_cidrs())
}

/// Brings the fast path up, or up to date.
fn load(plan: &Plan, places: &Places<'_>, changes: &mut Changes) -> Result<()> {
    let fresh = Datapath::open(&plan.datapath.bpffs, &plan.network).is_none();
    changes.datapath = fresh;
    let up = fastpath::bring_up(plan, places);
    if up.is_err() && fresh {
        changes.datapath = false;
        if let Some(datapath) = Datapath::open(&plan.datapath.bpffs, &plan.network) {
            datapath.unload().context("after a failure: unload")?;
        }
    }
    up
}

/// Takes back what a set-up made. Every step runs even if an earlier one failed; the failures are logged, as what the
/// caller reports is why it came to this.
pub(super) async fn undo(netlink: &Netlink, plan: &Plan, changes: Changes) {
    let network = &plan.network;
    let log = |done: Result<()>| {
        if let Err(error) = done {
            tracing::warn!(network, "roll-back: {error:#}");
        }
    };
    if changes.datapath
        && let Some(datapath) = Datapath::open(&plan.datapath.bpffs, network)
    {
        log(datapath.unload());
    }
    if changes.masquerade {
        log(masquerade(plan).delete());
    }
    for route in &changes.routes {
        log(netlink.delete_route(route).await);
    }
    for (index, gateway) in &changes.gateways {
        log(netlink.delete_address(*index, *gateway).await);
    }
    if let Some(index) = changes.bridge {
        log(netlink.delete(index).await);
    }
}
