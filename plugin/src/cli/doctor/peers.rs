//! The routes to the peers, and the neighbours on the way to them.

use std::collections::{HashMap, HashSet};

use ipnetwork::IpNetwork;

use super::finding::{Commands, Finding, Severity, commands as several, count, names, or_ok};
use crate::{
    net::{
        neighbour::State,
        route::{PROTOCOL, Route},
    },
    node::survey::{Kernel, Ways},
};

const ROUTES: &str = "routes";
const NEIGHBOURS: &str = "neighbours";

/// Judges the routes to a network's peers. `can_load` tells whether `beeline load` would do more than put routes right.
pub(super) fn judge_routes(
    kernel: &Kernel,
    ways: &Ways,
    can_load: bool,
    commands: &Commands,
) -> Vec<Finding> {
    let mut installed: HashMap<IpNetwork, Vec<&Route>> = HashMap::new();
    for route in kernel.routes.iter().filter(|r| r.protocol == PROTOCOL) {
        installed.entry(route.destination).or_default().push(route);
    }
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    for route in &ways.routes {
        match installed.get(&route.destination) {
            None => missing.push(route),
            Some(held) if held.iter().any(|held| leads_alike(held, route)) => {}
            Some(_) => wrong.push(route),
        }
    }
    let mut found = down(ways);
    for (routes, message) in [
        (missing, "no route to their pods"),
        (wrong, "their route leads elsewhere"),
    ] {
        if routes.is_empty() {
            continue;
        }
        let peers: Vec<String> = routes.iter().map(|r| r.destination.to_string()).collect();
        let fix = if can_load && routes.len() > 1 {
            commands.load.clone()
        } else {
            several(routes.iter().map(|route| replace(kernel, route)))
        };
        let fix = commands.drifted(fix);
        found.push(Finding::new(
            ROUTES,
            Severity::Failure,
            format!("peers {}", names(&peers)),
            match ways.routes.len() - routes.len() {
                0 => message.to_owned(),
                others => format!("{message}; the other {others} have theirs"),
            },
            fix,
        ));
    }
    found.extend(shadows(kernel, ways));
    let ok = format!("each of {} has its route", count(ways.routes.len(), "peer"));
    or_ok(found, Finding::ok(ROUTES, "peers", ok))
}

fn leads_alike(one: &Route, other: &Route) -> bool {
    one.gateway == other.gateway && one.interface == other.interface && one.tunnel == other.tunnel
}

fn down(ways: &Ways) -> Vec<Finding> {
    let down = ways.uplinks.iter().filter(|link| !link.up);
    let finding = |name: &String| {
        Finding::new(
            ROUTES,
            Severity::Failure,
            format!("uplink {name}"),
            "is down",
            format!("ip link set dev {name} up"),
        )
    };
    down.map(|link| finding(&link.name)).collect()
}

/// The command that makes a route what it should be.
fn replace(kernel: &Kernel, route: &Route) -> String {
    let family = if route.destination.is_ipv4() {
        ""
    } else {
        "-6 "
    };
    let tunnel = route.tunnel.map_or_else(String::new, |tunnel| {
        let outer = if tunnel.node.is_ipv4() { "ip" } else { "ip6" };
        format!("encap {outer} id {} dst {} ", tunnel.id, tunnel.node)
    });
    let via = route.gateway.map_or_else(String::new, |hop| {
        let other = hop.is_ipv4() != route.destination.is_ipv4();
        format!("via {}{hop} ", if other { "inet6 " } else { "" })
    });
    let onlink = if route.onlink { " onlink" } else { "" };
    format!(
        "ip {family}route replace {} {tunnel}{via}dev {}{onlink} proto {PROTOCOL}",
        route.destination,
        kernel.name_of(route.interface)
    )
}

/// The command that deletes a route.
fn delete(kernel: &Kernel, route: &Route) -> String {
    let family = if route.destination.is_ipv4() {
        ""
    } else {
        "-6 "
    };
    let metric = route
        .priority
        .map_or_else(String::new, |metric| format!(" metric {metric}"));
    let device = match route.interface {
        0 => String::new(),
        index => format!(" dev {}", kernel.name_of(index)),
    };
    format!(
        "ip {family}route del {}{device}{metric} proto {}",
        route.destination, route.protocol
    )
}

/// Routes of others that take packets to some of a peer's pods.
fn shadows(kernel: &Kernel, ways: &Ways) -> Option<Finding> {
    let priority = |route: &Route| {
        let kernels = if route.destination.is_ipv4() { 0 } else { 1024 };
        route.priority.unwrap_or(kernels)
    };
    let peers: HashMap<IpNetwork, u32> = ways
        .routes
        .iter()
        .map(|route| (route.destination, priority(route)))
        .collect();
    let lengths: HashSet<u8> = peers.keys().map(IpNetwork::prefix).collect();
    let shadowed = |route: &Route| {
        let within = lengths.iter().filter_map(|length| {
            let network = IpNetwork::new(route.destination.ip(), *length)
                .ok()?
                .network();
            let peer = IpNetwork::new(network, *length).ok()?;
            peers
                .get_key_value(&peer)
                .filter(|_| *length <= route.destination.prefix())
        });
        let wins = |(peer, ours): &(&IpNetwork, &u32)| {
            route.destination.prefix() > peer.prefix() || priority(route) < **ours
        };
        within.filter(wins).map(|(peer, _)| *peer).next()
    };
    let foreign = kernel.routes.iter().filter(|r| r.protocol != PROTOCOL);
    let shadows: Vec<(&Route, IpNetwork)> = foreign
        .filter_map(|route| Some((route, shadowed(route)?)))
        .collect();
    if shadows.is_empty() {
        return None;
    }
    let described: Vec<String> = shadows
        .iter()
        .map(|(route, peer)| format!("{} (peer {peer})", route.destination))
        .collect();
    Some(Finding::new(
        ROUTES,
        Severity::Warning,
        format!("routes {}", names(&described)),
        "are not beeline's and take what the stack sends to these pods of peers",
        several(shadows.iter().map(|(route, _)| delete(kernel, route))),
    ))
}

/// Judges routes of beeline's own that lead to no peer of any network of the node.
pub(super) fn judge_strays(
    kernel: &Kernel,
    peers: &HashSet<IpNetwork>,
    commands: &Commands,
) -> Option<Finding> {
    let strays: Vec<&Route> = kernel
        .routes
        .iter()
        .filter(|route| route.protocol == PROTOCOL && !peers.contains(&route.destination))
        .collect();
    if strays.is_empty() {
        return None;
    }
    let destinations: Vec<String> = strays.iter().map(|r| r.destination.to_string()).collect();
    Some(Finding::new(
        ROUTES,
        Severity::Warning,
        format!("routes {}", names(&destinations)),
        "are beeline's (proto 190), but no network of this node has such a peer",
        commands.drifted(several(strays.iter().map(|route| delete(kernel, route)))),
    ))
}

/// Judges the neighbours by which peers on an uplink's own link are reached.
pub(super) fn judge_neighbours(kernel: &Kernel, ways: &Ways) -> Vec<Finding> {
    let native: HashSet<_> = ways
        .routes
        .iter()
        .filter(|route| route.tunnel.is_none())
        .filter_map(|route| Some((route.interface, route.gateway?)))
        .collect();
    let silent: Vec<_> = kernel
        .neighbours
        .iter()
        .filter(|entry| matches!(entry.state, State::Failed | State::Incomplete))
        .filter(|entry| native.contains(&(entry.interface, entry.ip)))
        .collect();
    let mut found = Vec::new();
    if !silent.is_empty() {
        let nodes: Vec<String> = silent
            .iter()
            .map(|entry| {
                let state = match entry.state {
                    State::Failed => "FAILED",
                    _ => "INCOMPLETE",
                };
                let link = kernel.name_of(entry.interface);
                format!("{} on {link} ({state})", entry.ip)
            })
            .collect();
        let flush = silent.iter().map(|entry| {
            let link = kernel.name_of(entry.interface);
            format!("ip neigh flush to {} dev {link} nud all", entry.ip)
        });
        found.push(Finding::new(
            NEIGHBOURS,
            Severity::Warning,
            format!("nodes {}", names(&nodes)),
            "do not answer who has their address: are they up, and on this link?",
            several(flush),
        ));
    }
    let ok = format!("none of {} is silent", count(native.len(), "node"));
    or_ok(found, Finding::ok(NEIGHBOURS, "uplinks", ok))
}

#[cfg(test)]
#[path = "peers_tests.rs"]
pub(super) mod tests;
