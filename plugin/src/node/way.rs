//! Where the kernel would send packets, worked out from a dump of its routes: with thousands of peers to ask after, it is
//! not asked for each.

use std::{collections::HashMap, net::IpAddr};

use anyhow::Result;
use ipnetwork::IpNetwork;

use crate::{
    datapath::config::PeerConf,
    net::{
        Netlink,
        route::{Route, RouteTo},
    },
};

/// The routes by destination, of several to one the one that wins.
pub(super) struct Table<'a> {
    routes: HashMap<IpNetwork, &'a Route>,
    /// The prefix lengths in use, the longest first.
    lengths: Vec<u8>,
    /// What the kernel said of destinations that have several next hops.
    resolved: HashMap<IpNetwork, Option<RouteTo>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(routes: &'a [Route]) -> Self {
        let mut best: HashMap<IpNetwork, &Route> = HashMap::new();
        for route in routes {
            let held = best.entry(route.destination).or_insert(route);
            if route.priority.unwrap_or(0) < held.priority.unwrap_or(0) {
                *held = route;
            }
        }
        let mut lengths: Vec<u8> = best.keys().map(IpNetwork::prefix).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self {
            routes: best,
            lengths,
            resolved: HashMap::new(),
        }
    }

    /// Asks the kernel where the dump does not tell: once a route, not once a peer.
    pub(super) async fn resolve(&mut self, netlink: &Netlink, peers: &[PeerConf]) -> Result<()> {
        for peer in peers {
            let unclear = self.find(peer.node).filter(|route| route.interface == 0);
            if let Some(route) = unclear
                && !self.resolved.contains_key(&route.destination)
            {
                let answer = netlink.route_to(peer.node).await?;
                self.resolved.insert(route.destination, answer);
            }
        }
        Ok(())
    }

    /// How the kernel would send to an address.
    pub(super) fn way_to(&self, ip: IpAddr) -> Option<RouteTo> {
        let route = self.find(ip)?;
        if let Some(answer) = self.resolved.get(&route.destination) {
            return answer.clone();
        }
        Some(RouteTo {
            interface: route.interface,
            gateway: route.gateway,
            source: None,
        })
    }

    fn find(&self, ip: IpAddr) -> Option<&'a Route> {
        let networks = self.lengths.iter().filter_map(|length| {
            let network = IpNetwork::new(ip, *length).ok()?.network();
            IpNetwork::new(network, *length).ok()
        });
        networks
            .filter_map(|network| self.routes.get(&network))
            .copied()
            .next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>, interface: u32) -> Route {
        let gateway = gateway.map(|ip| ip.parse().unwrap());
        Route::new(destination.parse().unwrap(), gateway, interface)
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let metric = |priority, route: Route| Route {
            priority: Some(priority),
            ..route
        };
        let routes = [
            route("0.0.0.0/0", Some("10.0.0.1"), 2),
            metric(200, route("192.168.1.0/24", None, 3)),
            metric(100, route("192.168.1.0/24", None, 4)),
            route("192.168.1.12/32", Some("10.0.0.9"), 5),
            route("fd00::/64", None, 6),
        ];
        let table = Table::new(&routes);
        let way = |ip: &str| {
            let way = table.way_to(ip.parse().unwrap())?;
            Some((way.interface, way.gateway.is_some()))
        };
        assert_eq!(way("192.168.1.11"), Some((4, false)));
        assert_eq!(way("192.168.1.12"), Some((5, true)));
        assert_eq!(way("8.8.8.8"), Some((2, true)));
        assert_eq!(way("fd00::1"), Some((6, false)));
        assert_eq!(way("fd01::1"), None);
    }
}
