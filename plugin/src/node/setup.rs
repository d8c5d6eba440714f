//! Setting a node up for a network, and taking that back if the ADD that did it fails.

use anyhow::{Context as _, Result, bail};
use beeline_common::Hook;
use ipnetwork::IpNetwork;

use super::{
    Plan, Record, Store,
    bridge::{self, Bridge},
    fastpath::{self, Places},
    firewall, gone, overlay,
    peers::{Neighbourhood, installed_routes, leads_to},
    remove, routes, vlan,
    whole::{Whole, is_clustered},
};
use crate::{
    datapath::{
        Datapath,
        config::{Mode, OverlayConf},
    },
    net::{Netlink, route::Route, sysctl},
    nft::Masquerade,
};

/// Why a node is on the plain bridge that an administrator put there.
pub(super) const OFF: &str = "turned off by `beeline unload`; `beeline load` turns it on";

/// What one set-up made that was not there before.
#[derive(Debug, Default)]
pub(super) struct Changes {
    bridge: Option<u32>,
    /// Parameters, with the values that they had.
    forwarding: Vec<(&'static str, String)>,
    vlan_gateway: Option<u32>,
    overlay: Option<u32>,
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
    let as_planned = |record: &Record| record.plan == *plan && !remove::is_removed(record);
    let Some(record) = store.try_record()?.filter(as_planned) else {
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
        && masquerades(plan, is_clustered(plan, store))?
        // In cluster mode the agent looks.
        && (is_clustered(plan, store)
            || peers_reachable(netlink, plan, &record, datapath.as_ref()).await?);
    Ok(settled.then_some((bridge, record)))
}

/// Whether the routes are there and the programs are attached, as far as the last set-up could do that.
async fn peers_reachable(
    netlink: &Netlink,
    plan: &Plan,
    record: &Record,
    datapath: Option<&Datapath>,
) -> Result<bool> {
    let attached = |hook, ifindex| datapath.is_none_or(|d| d.is_attached(hook, ifindex));
    if plan.peers().is_empty() && plan.datapath.uplinks.is_empty() {
        return Ok(true);
    }
    let mut reachable = plan.peers().to_vec();
    if !record.problems.is_empty() {
        // A peer that had a problem may have none by now.
        let found = Neighbourhood::find(netlink, plan).await?;
        if found.problems != record.problems {
            return Ok(false);
        }
        reachable = found.peers().copied().collect();
    }
    let installed = installed_routes(netlink).await?;
    let settled = reachable.iter().all(|peer| {
        let mut routes = installed.iter();
        routes
            .find(|route| leads_to(route, peer))
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
    let (mut bridge, created) = bridge::ensure(netlink, &plan.bridge).await?;
    changes.bridge = created.then_some(bridge.index);
    changes.vlan_gateway = vlan::ensure_gateway(netlink, &plan.bridge, &mut bridge).await?;
    let whole = Whole::of(plan, store);
    let clustered = whole.is_clustered();
    let whole = &whole.plan;
    for key in forwarding(whole) {
        let value = sysctl::get(key)?;
        if value != "1" {
            sysctl::ensure(key, "1")?;
            changes.forwarding.push((key, value));
        }
    }
    let mut neighbourhood = Neighbourhood::find(netlink, whole).await?;
    remove_former_overlay(netlink, plan, store).await?;
    changes.overlay = neighbourhood.ensure_overlay(netlink, whole).await?;
    // Before routes lead there: no flow begins with an address that it would not keep.
    apply_masquerade(whole, clustered, changes)?;
    install_routes(netlink, plan, store, clustered, &neighbourhood, changes).await?;
    let off = store.try_record()?.is_some_and(|record| record.off);
    gone::disown(netlink, store).await?;
    let places = Places::find(&bridge, &neighbourhood, store)?;
    let firewall = match plan.datapath.mode {
        _ if plan.bars_fast_path().is_some() => Vec::new(),
        Mode::Bridge => Vec::new(),
        Mode::Auto | Mode::Ebpf => firewall::defeated(whole, &neighbourhood),
    };
    let degraded = if off {
        (plan.datapath.mode != Mode::Bridge).then(|| OFF.to_owned())
    } else {
        bring_up(plan, &places, &firewall, changes)?
    };
    let record = Record {
        plan: plan.clone(),
        pod_mtu: neighbourhood.pod_mtu(),
        degraded,
        problems: neighbourhood.problems,
        firewall,
        off,
    };
    // Once: at set-up, not at every ADD.
    record.warn();
    store.save_record(&record)?;
    changes.record = true;
    Ok((bridge, record))
}

/// Brings the fast path up as far as the mode wants it; says why it is not, if it should be.
fn bring_up(
    plan: &Plan,
    places: &Places<'_>,
    firewall: &[String],
    changes: &mut Changes,
) -> Result<Option<String>> {
    let problems = &places.neighbourhood.problems;
    let mode = plan.datapath.mode;
    if let Some(reason) = plan.bars_fast_path().filter(|_| mode != Mode::Bridge) {
        unload(plan)?;
        return Ok(Some(reason.to_owned()));
    }
    match mode {
        Mode::Bridge => Ok(None),
        Mode::Ebpf if !problems.is_empty() => bail!("datapath: {}", problems.join("; ")),
        Mode::Ebpf => load(plan, places, changes).map(|()| None),
        Mode::Auto if !firewall.is_empty() => {
            unload(plan)?;
            Ok(Some(firewall::reason(firewall)))
        }
        Mode::Auto => {
            let failed = load(plan, places, changes).err();
            Ok(failed.map(|error| format!("{error:#}")))
        }
    }
}

/// The settings that make the node a router for its pods.
pub(super) fn forwarding(plan: &Plan) -> impl Iterator<Item = &'static str> {
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
    clustered: bool,
    neighbourhood: &Neighbourhood,
    changes: &mut Changes,
) -> Result<()> {
    let former = store.record().map(|record| record.plan);
    let former = former.as_ref().map_or(&[][..], Plan::peers);
    if !clustered && plan.peers().is_empty() && former.is_empty() {
        return Ok(());
    }
    let installed = installed_routes(netlink).await?;
    routes::install(netlink, neighbourhood, &installed, &mut changes.routes).await?;
    if clustered {
        return routes::sweep(netlink, plan, store, neighbourhood, &installed).await;
    }
    let former: Vec<IpNetwork> = former.iter().map(|peer| peer.cidr).collect();
    routes::remove(netlink, plan, &former).await
}

/// Removes the device of an overlay that there is none of any more, or whose port has changed; its routes go with it.
async fn remove_former_overlay(netlink: &Netlink, plan: &Plan, store: &Store) -> Result<()> {
    let former = store
        .record()
        .and_then(|record| record.plan.datapath.overlay);
    let port = |conf: OverlayConf| conf.port;
    if former.is_some()
        && former.map(port) != plan.datapath.overlay.map(port)
        && let Some(link) = netlink.link(&overlay::name(&plan.network)).await?
    {
        netlink.delete(link.index).await?;
    }
    Ok(())
}

fn masquerade(plan: &Plan) -> Masquerade<'_> {
    Masquerade {
        network: &plan.network,
    }
}

/// Whether the table is as this plan wants it; in cluster mode, but for the peers, which are the agent's to keep.
pub(super) fn masquerades(plan: &Plan, clustered: bool) -> Result<bool> {
    if !plan.masquerade {
        return Ok(true);
    }
    match clustered {
        true => masquerade(plan).is_applied_changing(&plan.pod_cidrs),
        false => masquerade(plan).is_applied(&plan.pod_cidrs, &plan.cluster_cidrs()),
    }
}

fn apply_masquerade(plan: &Plan, clustered: bool, changes: &mut Changes) -> Result<()> {
    // Whether all of the cluster's CIDRs are in the table takes as long to tell as to write them.
    if !plan.masquerade || !clustered && masquerades(plan, false)? {
        return Ok(());
    }
    let masquerade = masquerade(plan);
    changes.masquerade = !masquerade.exists()?;
    let (pods, cluster) = (&plan.pod_cidrs, plan.cluster_cidrs());
    match clustered {
        true => masquerade.apply_changing(pods, &cluster),
        false => masquerade.apply(pods, &cluster),
    }
}

/// Brings the fast path up, or up to date.
fn load(plan: &Plan, places: &Places<'_>, changes: &mut Changes) -> Result<()> {
    let fresh = Datapath::open(&plan.datapath.bpffs, &plan.network).is_none();
    changes.datapath = fresh;
    let up = fastpath::bring_up(plan, places);
    if up.is_err() && fresh {
        changes.datapath = false;
        // Part of it may be there.
        remove_datapath(plan).context("after a failure: unload")?;
    }
    up
}

/// Takes the fast path off, if it is there.
pub(super) fn unload(plan: &Plan) -> Result<()> {
    match Datapath::open(&plan.datapath.bpffs, &plan.network) {
        Some(datapath) => datapath.unload(),
        None => Ok(()),
    }
}

fn remove_datapath(plan: &Plan) -> Result<()> {
    Datapath::remove(&plan.datapath.bpffs, &plan.network)
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
    if changes.datapath {
        log(remove_datapath(plan));
    }
    if changes.masquerade {
        log(masquerade(plan).delete());
    }
    for route in &changes.routes {
        log(netlink.delete_route(route).await);
    }
    if let Some(index) = changes.overlay {
        log(netlink.delete(index).await);
    }
    for (index, gateway) in &changes.gateways {
        log(netlink.delete_address(*index, *gateway).await);
    }
    for index in [changes.vlan_gateway, changes.bridge].into_iter().flatten() {
        log(netlink.delete(index).await);
    }
    // Another network's pods need it too.
    if Store::new(plan).is_only() {
        for (key, value) in &changes.forwarding {
            log(sysctl::ensure(key, value));
        }
    }
}
