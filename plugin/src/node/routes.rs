//! The kernel's routes to the peers, by which the slow path and the host reach them.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use ipnetwork::IpNetwork;

use super::{
    Plan, Store,
    cluster::ClusterPeer,
    drift::Drift,
    overlay,
    peers::{Neighbourhood, installed_routes},
};
use crate::net::{Netlink, neighbour::Neighbour, overlay::overlay_hop, route::Route};

/// Installs the routes to the peers that were found, and what the overlay must know of them; `added` are the routes that
/// were not there before, also if others fail.
pub(super) async fn install(
    netlink: &Netlink,
    found: &Neighbourhood,
    installed: &[Route],
    added: &mut Vec<Route>,
) -> Result<()> {
    if let Some((index, neighbours)) = found.neighbours() {
        let known: HashSet<Neighbour> = netlink.neighbours(index).await?.into_iter().collect();
        for neighbour in neighbours.into_iter().filter(|n| !known.contains(n)) {
            netlink.replace_neighbour(index, neighbour).await?;
        }
    }
    let known = by_destination(installed);
    for route in found.routes() {
        if known
            .get(&route.destination)
            .is_some_and(|other| is_same(other, &route))
        {
            continue;
        }
        netlink.replace_route(&route).await?;
        added.push(route);
    }
    Ok(())
}

/// Adds the routes to peers that are new, or have another node.
pub(super) async fn add(netlink: &Netlink, found: &Neighbourhood) -> Result<()> {
    if let Some((index, neighbours)) = found.neighbours() {
        for neighbour in neighbours {
            netlink.replace_neighbour(index, neighbour).await?;
        }
    }
    for route in found.routes() {
        netlink.replace_route(&route).await?;
    }
    Ok(())
}

/// Removes the routes to peers that are none any more.
pub(super) async fn remove(netlink: &Netlink, plan: &Plan, removed: &[IpNetwork]) -> Result<()> {
    if removed.is_empty() {
        return Ok(());
    }
    let removed: HashSet<&IpNetwork> = removed.iter().collect();
    let staying: HashSet<IpNetwork> = plan.peers().iter().map(|peer| peer.cidr).collect();
    for route in installed_routes(netlink).await? {
        if removed.contains(&route.destination) && !staying.contains(&route.destination) {
            netlink.delete_route(&route).await?;
        }
    }
    Ok(())
}

/// Removes what the overlay knew of these peers.
pub(super) async fn forget_neighbours(
    netlink: &Netlink,
    plan: &Plan,
    gone: &[ClusterPeer],
) -> Result<()> {
    let Some(link) = netlink.link(&overlay::name(&plan.network)).await? else {
        return Ok(());
    };
    for peer in gone {
        let hop = overlay_hop(peer.cidr, peer.node);
        netlink.flush_neighbour(link.index, hop).await?;
    }
    Ok(())
}

/// Removes all that leads to no peer: where an agent was killed, nobody knows any more to whom it led.
pub(super) async fn sweep(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    found: &Neighbourhood,
    installed: &[Route],
) -> Result<()> {
    for route in strays(store, found, installed) {
        netlink.delete_route(route).await?;
    }
    if let Some(link) = netlink.link(&overlay::name(&plan.network)).await? {
        for neighbour in stray_neighbours(netlink, link.index, found).await? {
            netlink.flush_neighbour(link.index, neighbour.ip).await?;
        }
    }
    Ok(())
}

/// What is missing or left over, one line each.
pub(super) async fn drift(
    netlink: &Netlink,
    plan: &Plan,
    store: &Store,
    found: &Neighbourhood,
    installed: &[Route],
) -> Result<Vec<Drift>> {
    let known = by_destination(installed);
    let missing = found.routes().into_iter().filter(|route| {
        let other = known.get(&route.destination);
        other.is_none_or(|other| !is_same(other, route))
    });
    let route = |route: &Route, how| Drift::new("route", format!("{}: {how}", route.destination));
    let neighbour = |n: &Neighbour, how| Drift::new("neighbour", format!("{}: {how}", n.ip));
    let mut drifts: Vec<Drift> = missing
        .map(|missing| route(&missing, "missing, or another one"))
        .collect();
    let strays = strays(store, found, installed);
    drifts.extend(strays.map(|stray| route(stray, "leads to no peer")));
    if let Some((index, neighbours)) = found.neighbours() {
        let known: HashSet<Neighbour> = netlink.neighbours(index).await?.into_iter().collect();
        let missing = neighbours.iter().filter(|n| !known.contains(n));
        drifts.extend(missing.map(|missing| neighbour(missing, "missing")));
    }
    if let Some(link) = netlink.link(&overlay::name(&plan.network)).await? {
        let strays = stray_neighbours(netlink, link.index, found).await?;
        drifts.extend(strays.iter().map(|stray| neighbour(stray, "of no peer")));
    }
    Ok(drifts)
}

fn by_destination(routes: &[Route]) -> HashMap<IpNetwork, &Route> {
    routes
        .iter()
        .map(|route| (route.destination, route))
        .collect()
}

fn is_same(one: &Route, other: &Route) -> bool {
    one.gateway == other.gateway && one.interface == other.interface
}

/// Routes of beeline's that lead to no peer, of this network or another.
fn strays<'a>(
    store: &Store,
    found: &Neighbourhood,
    installed: &'a [Route],
) -> impl Iterator<Item = &'a Route> {
    let mut wanted = store.peers_of_others();
    wanted.extend(found.peers().map(|peer| peer.cidr));
    installed
        .iter()
        .filter(move |route| !wanted.contains(&route.destination))
}

async fn stray_neighbours(
    netlink: &Netlink,
    index: u32,
    found: &Neighbourhood,
) -> Result<Vec<Neighbour>> {
    let wanted = found
        .neighbours()
        .map_or(Vec::new(), |(_, neighbours)| neighbours);
    let wanted: HashSet<Neighbour> = wanted.into_iter().collect();
    let mut known = netlink.neighbours(index).await?;
    known.retain(|neighbour| !wanted.contains(neighbour));
    Ok(known)
}
