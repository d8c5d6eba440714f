//! Finding the way to the peers: which link each node is on.

use anyhow::{Result, ensure};
use beeline_common::{Address, Peer};
use ipnetwork::IpNetwork;

use crate::{
    datapath::config::{DatapathConf, PeerConf},
    net::{
        Netlink,
        link::Link,
        route::{Filter, PROTOCOL, Route},
    },
};

/// The peers and uplinks that were found, and what was not.
#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    pub(super) uplinks: Vec<Link>,
    pub(super) overlay: Option<Link>,
    pub(super) peers: Vec<(PeerConf, Link)>,
    pub(super) problems: Vec<String>,
}

impl Neighbourhood {
    /// Looks for the configured uplinks, and for the link that each peer's node is on. Where no uplinks are
    /// configured, the links that lead to peers are the uplinks.
    pub(super) async fn find(netlink: &Netlink, conf: &DatapathConf) -> Result<Self> {
        let mut found = Self::default();
        for name in &conf.uplinks {
            match netlink.link(name).await? {
                Some(link) => found.uplinks.push(link),
                None => found
                    .problems
                    .push(format!("uplink {name:?}: no such interface")),
            }
        }
        let any = conf.uplinks.is_empty();
        for peer in &conf.peers {
            match found.link_to(netlink, peer, any).await {
                Ok(link) => found.peers.push((*peer, link)),
                Err(problem) => found
                    .problems
                    .push(format!("peer {}: node {}: {problem}", peer.cidr, peer.node)),
            }
        }
        Ok(found)
    }

    async fn link_to(&mut self, netlink: &Netlink, peer: &PeerConf, any: bool) -> Result<Link> {
        let route = netlink.route_to(peer.node).await?;
        let Some(route) = route else {
            anyhow::bail!("no route");
        };
        ensure!(
            route.gateway.is_none(),
            "is behind a router, native routing needs it on an uplink's own network"
        );
        let known = |link: &&Link| link.index == route.interface;
        if let Some(link) = self.uplinks.iter().find(known) {
            return Ok(link.clone());
        }
        ensure!(any, "is on none of the uplinks");
        let link = netlink.link_at(route.interface).await?;
        let Some(link) = link else {
            anyhow::bail!("its link is gone");
        };
        ensure!(link.name != "lo", "is this node itself");
        self.uplinks.push(link.clone());
        Ok(link)
    }

    /// The indices of all interfaces that lead to other nodes.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = u32> {
        let links = self.uplinks.iter().chain(&self.overlay);
        links.map(|link| link.index)
    }

    /// The peers as the fast path needs them.
    pub(super) fn entries(&self) -> Vec<(IpNetwork, Peer)> {
        let entry = |(peer, link): &(PeerConf, Link)| {
            let node = Peer {
                node: Address::from(peer.node),
                ifindex: link.index,
                mtu: link.mtu,
                vni: 0,
                mac: beeline_common::Mac::default(),
                source: beeline_common::Mac::default(),
            };
            (peer.cidr, node)
        };
        self.peers.iter().map(entry).collect()
    }

    /// The peers as the slow path needs them.
    pub(super) fn routes(&self) -> Vec<Route> {
        let route = |(peer, link): &(PeerConf, Link)| Route {
            protocol: PROTOCOL,
            ..Route::new(peer.cidr, Some(peer.node), link.index)
        };
        self.peers.iter().map(route).collect()
    }
}

/// beeline's own routes in the kernel.
pub(super) async fn installed_routes(netlink: &Netlink) -> Result<Vec<Route>> {
    let filter = Filter {
        protocol: Some(PROTOCOL),
        ..Filter::default()
    };
    netlink.routes(filter).await
}
