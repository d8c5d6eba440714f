//! Finding the way to the peers: which link each node is on, or that only the overlay leads there.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use anyhow::{Result, bail, ensure};
use beeline_common::{Address, Mac, Peer};
use ipnetwork::IpNetwork;

use super::{
    Plan,
    overlay::{self, Overlay},
};
use crate::{
    datapath::config::{DatapathConf, PeerConf},
    net::{
        Netlink,
        link::Link,
        neighbour::Neighbour,
        overlay::overlay_hop,
        route::{Filter, PROTOCOL, Route, RouteTo},
    },
};

/// The MTU that the kernel gives a veth, which a pod's link does not exceed unless `mtu` says so.
const DEFAULT_MTU: u32 = 1500;

/// The peers and uplinks that were found, and what was not.
#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    pub(super) uplinks: Vec<Link>,
    /// Peers on an uplink's own network.
    native: Vec<(PeerConf, Link)>,
    /// Peers that only the overlay leads to, with the links that its packets leave by.
    remote: Vec<(PeerConf, Link)>,
    pub(super) overlay: Option<Overlay>,
    pub(super) problems: Vec<String>,
}

/// How a peer is reached.
enum Way {
    Native(Link),
    Overlay(Link),
}

impl Neighbourhood {
    /// Looks for the configured uplinks, and for the link that each peer's node is on. Where no uplinks are
    /// configured, the links that lead to neighbours are the uplinks. The overlay's device is found if it is there.
    pub(super) async fn find(netlink: &Netlink, plan: &Plan) -> Result<Self> {
        let (mut routes, mut links) = (HashMap::new(), Vec::new());
        // Peers are many, and on few links.
        let mut indices = HashSet::new();
        for peer in plan.peers() {
            if let Ok(Some(route)) = netlink.route_to(peer.node).await {
                indices.insert(route.interface);
                routes.insert(peer.node, route);
            }
        }
        for index in indices {
            links.extend(netlink.link_at(index).await?);
        }
        let overlay = overlay::name(&plan.network);
        for name in plan.datapath.uplinks.iter().chain([&overlay]) {
            links.extend(netlink.link(name).await?);
        }
        Ok(Self::of(plan, &links, |ip| routes.get(&ip).cloned()))
    }

    /// The same from what was read before, where `way` tells how the kernel would send to an address.
    pub(super) fn of(
        plan: &Plan,
        links: &[Link],
        mut way: impl FnMut(IpAddr) -> Option<RouteTo>,
    ) -> Self {
        let conf = &plan.datapath;
        let by_name = |name: &str| links.iter().find(|link| link.name == name).cloned();
        let mut found = Self::default();
        for name in &conf.uplinks {
            match by_name(name) {
                Some(link) => found.uplinks.push(link),
                None => found
                    .problems
                    .push(format!("uplink {name:?}: no such interface")),
            }
        }
        let by_index: HashMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
        for peer in plan.peers() {
            let route = way(peer.node);
            let link = route
                .as_ref()
                .and_then(|route| by_index.get(&route.interface));
            let way = found.choose(conf, peer, route.as_ref(), link.map(|link| (*link).clone()));
            let added = way.and_then(|way| found.add(peer, way));
            if let Err(problem) = added {
                let PeerConf { cidr, node } = peer;
                let problem = format!("peer {cidr}: node {node}: {problem}");
                found.problems.push(problem);
            }
        }
        if let Some(conf) = conf.overlay {
            let link = by_name(&overlay::name(&plan.network));
            found.overlay = link.map(|link| Overlay { conf, link });
        }
        found
    }

    fn add(&mut self, peer: &PeerConf, way: Way) -> Result<()> {
        match way {
            Way::Native(link) => self.native.push((*peer, link)),
            Way::Overlay(link) => {
                // A device has one MAC, which follows from one address of its node.
                let v4 = self.remote.first().map(|(first, _)| first.node.is_ipv4());
                ensure!(
                    v4.is_none_or(|v4| v4 == peer.node.is_ipv4()),
                    "the overlay joins nodes by their addresses of one family, which is {} here; \
                     it carries pods of both",
                    if v4 == Some(true) { "IPv4" } else { "IPv6" }
                );
                self.remote.push((*peer, link));
            }
        }
        Ok(())
    }

    /// How a peer is reached that the kernel would send to by this route and link.
    fn choose(
        &mut self,
        conf: &DatapathConf,
        peer: &PeerConf,
        route: Option<&RouteTo>,
        link: Option<Link>,
    ) -> Result<Way> {
        let Some(route) = route else {
            bail!("no route");
        };
        let Some(link) = link else {
            bail!("its link is gone");
        };
        ensure!(link.name != "lo", "is this node itself");
        let one_family = peer.cidr.is_ipv4() == peer.node.is_ipv4();
        let native = route.gateway.is_none() && one_family;
        match conf.overlay {
            Some(overlay) if overlay.always || !native => return Ok(Way::Overlay(link)),
            Some(_) => {}
            None => ensure!(
                native,
                "is behind a router, native routing needs it on an uplink's own network; \
                 datapath.overlay reaches it"
            ),
        }
        if !self.uplinks.iter().any(|known| known.index == link.index) {
            ensure!(conf.uplinks.is_empty(), "is on none of the uplinks");
            self.uplinks.push(link.clone());
        }
        Ok(Way::Native(link))
    }

    /// Makes the overlay's device if peers need it; says its index if it was created.
    pub(super) async fn ensure_overlay(
        &mut self,
        netlink: &Netlink,
        plan: &Plan,
    ) -> Result<Option<u32>> {
        let (Some(conf), Some((peer, _))) = (plan.datapath.overlay, self.remote.first()) else {
            return Ok(None);
        };
        // The narrowest of the links that its packets may leave by.
        let links = self.remote.iter().map(|(_, link)| link);
        let Some(uplink) = links.min_by_key(|link| link.mtu) else {
            return Ok(None);
        };
        let (overlay, created) = overlay::ensure(netlink, plan, conf, uplink, peer).await?;
        let index = overlay.link.index;
        self.overlay = Some(overlay);
        Ok(created.then_some(index))
    }

    /// The MTU that a pod's link must have so that all that it sends fits the way to every peer; none if the kernel's
    /// own does.
    pub(super) fn pod_mtu(&self) -> Option<u32> {
        let links = self.native.iter().map(|(_, link)| link.mtu);
        let overlay = self.overlay.iter().map(|overlay| overlay.link.mtu);
        links.chain(overlay).min().filter(|mtu| *mtu < DEFAULT_MTU)
    }

    /// All interfaces that lead to other nodes.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        let overlay = self.overlay.iter().map(|overlay| &overlay.link);
        self.uplinks.iter().chain(overlay)
    }

    /// What the links that the overlay's packets leave by allow its device for an MTU; none if no peer needs it.
    pub(super) fn overlay_mtu(&self) -> Option<u32> {
        let links = self.remote.iter();
        let mtus = links.map(|(peer, link)| overlay::mtu(link, peer));
        mtus.min()
    }

    /// The peers that can be reached.
    pub(super) fn peers(&self) -> impl Iterator<Item = &PeerConf> {
        self.native.iter().chain(&self.remote).map(|(peer, _)| peer)
    }

    /// The peers as the fast path needs them.
    pub(super) fn entries(&self) -> Vec<(IpNetwork, Peer)> {
        let native = self.native.iter().map(|(peer, link)| {
            let entry = Peer {
                node: Address::from(peer.node),
                ifindex: link.index,
                mtu: link.mtu,
                vni: 0,
                mac: Mac::default(),
                source: Mac::default(),
            };
            (peer.cidr, entry)
        });
        let remote = self.overlay.iter().flat_map(|overlay| {
            let peers = self.remote.iter();
            peers.map(|(peer, _)| (peer.cidr, overlay.entry(peer)))
        });
        native.chain(remote).collect()
    }

    /// The peers as the slow path needs them.
    pub(super) fn routes(&self) -> Vec<Route> {
        let native = self.native.iter().map(|(peer, link)| Route {
            protocol: PROTOCOL,
            ..Route::new(peer.cidr, Some(peer.node), link.index)
        });
        let remote = self.overlay.iter().flat_map(|overlay| {
            let peers = self.remote.iter();
            peers.map(|(peer, _)| overlay.route(peer))
        });
        native.chain(remote).collect()
    }

    /// Whether peers were found that only the overlay leads to.
    pub(super) fn needs_overlay(&self) -> bool {
        !self.remote.is_empty()
    }

    /// Whether the overlay's device is there, if it is needed, and fits the links that its packets leave by.
    pub(super) fn has_overlay_for_all(&self) -> bool {
        let fits = |overlay: &Overlay| {
            let mut links = self.remote.iter().map(|(_, link)| link);
            links.all(|link| overlay.link.mtu < link.mtu)
        };
        !self.needs_overlay() || self.overlay.as_ref().is_some_and(fits)
    }

    /// The overlay's device, and whom it has to know.
    pub(super) fn neighbours(&self) -> Option<(u32, Vec<Neighbour>)> {
        let overlay = self.overlay.as_ref()?;
        let peers = self.remote.iter();
        let neighbours = peers.map(|(peer, _)| overlay.neighbour(peer)).collect();
        Some((overlay.link.index, neighbours))
    }
}

/// Whether a route is one of ours to the peer.
pub(super) fn leads_to(route: &Route, peer: &PeerConf) -> bool {
    let hops = [peer.node, overlay_hop(peer.cidr, peer.node)];
    route.destination == peer.cidr && route.gateway.is_some_and(|hop| hops.contains(&hop))
}

/// beeline's own routes in the kernel.
pub(super) async fn installed_routes(netlink: &Netlink) -> Result<Vec<Route>> {
    let filter = Filter {
        protocol: Some(PROTOCOL),
        ..Filter::default()
    };
    netlink.routes(filter).await
}
