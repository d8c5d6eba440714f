//! Unicast routes, and where the kernel would send a packet.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage},
};
use nix::errno::Errno;

use super::{Netlink, family, overlay::overlay_hop};

mod message;
#[cfg(test)]
mod netns_tests;

/// Marks the routes that beeline made, as `proto 190` in `ip route`.
pub const PROTOCOL: u8 = 0xbe;

/// The routing table that is used unless a rule says otherwise.
pub const TABLE_MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Where a route's packets are tunnelled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The network inside the tunnel, such as a VXLAN's VNI.
    pub id: u32,
    /// The other end.
    pub node: IpAddr,
}

/// A unicast route through one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is for; a prefix of length 0 is the default route.
    pub destination: IpNetwork,
    /// The next hop, which may be of the other family; none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the interface; 0 in the reported routes that have several next hops.
    pub interface: u32,
    /// Whether the next hop is taken to be on the interface's link, though no address says so.
    pub onlink: bool,
    /// What a tunnel device that takes it from routes is told.
    pub tunnel: Option<Tunnel>,
    /// MTU of the path, if smaller than the interface's.
    pub mtu: Option<u32>,
    /// TCP maximum segment size to advertise.
    pub advmss: Option<u32>,
    /// Its metric: of routes to one destination the lowest wins. None is 0 for IPv4, 1024 for IPv6.
    pub priority: Option<u32>,
    /// The routing table.
    pub table: u32,
    /// How far the destination is; if none, a link without and everywhere with a gateway.
    pub scope: Option<u8>,
    /// Who made it.
    pub protocol: u8,
}

/// Which routes to list; what is none matches every route.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// The routing table.
    pub table: Option<u32>,
    /// Who made it.
    pub protocol: Option<u8>,
    /// Index of the interface.
    pub interface: Option<u32>,
    /// The address family.
    pub family: Option<Family>,
}

/// An address family that has routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the kernel would send to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// Index of the interface; loopback for the node's own addresses.
    pub interface: u32,
    /// The next hop, if the address is not on the link.
    pub gateway: Option<IpAddr>,
    /// The source address it would choose.
    pub source: Option<IpAddr>,
}

impl Route {
    /// A route of beeline's own in the main table.
    pub fn new(destination: IpNetwork, gateway: Option<IpAddr>, interface: u32) -> Self {
        Self {
            destination,
            gateway,
            interface,
            onlink: false,
            tunnel: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: TABLE_MAIN,
            scope: None,
            protocol: PROTOCOL,
        }
    }

    /// A route of beeline's own to the pods of a tunnel's node, through an overlay device.
    pub fn overlay(pods: IpNetwork, tunnel: Tunnel, interface: u32) -> Self {
        Self {
            onlink: true,
            tunnel: Some(tunnel),
            ..Self::new(pods, Some(overlay_hop(pods, tunnel.node)), interface)
        }
    }
}

impl Netlink {
    /// Adds a route, also beside others with the same destination, priority and table that have other next hops; the same
    /// once more is an error (EEXIST).
    pub async fn add_route(&self, route: &Route) -> Result<()> {
        let added = self.request(RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE);
        added
            .await
            .map(drop)
            .with_context(|| format!("route {}: add", route.destination))
    }

    /// Adds a route, or replaces the one with the same destination, priority and table.
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let replaced = self.request(
            RouteNetlinkMessage::NewRoute(route.message()),
            NLM_F_CREATE | NLM_F_REPLACE,
        );
        replaced
            .await
            .map(drop)
            .with_context(|| format!("route {}: replace", route.destination))
    }

    /// Deletes a route; already gone, also with its interface, is success.
    pub async fn delete_route(&self, route: &Route) -> Result<()> {
        match self
            .request(RouteNetlinkMessage::DelRoute(route.message()), 0)
            .await
        {
            Ok(_) | Err(Errno::ESRCH | Errno::ENODEV) => Ok(()),
            Err(errno) => {
                Err(errno).with_context(|| format!("route {}: delete", route.destination))
            }
        }
    }

    /// Lists unicast routes.
    pub async fn routes(&self, filter: Filter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [Family::V4, Family::V6] {
            if filter.family.is_some_and(|wanted| wanted != family) {
                continue;
            }
            let replies = match self
                .request(
                    RouteNetlinkMessage::GetRoute(filter.query(family)),
                    NLM_F_DUMP,
                )
                .await
            {
                Ok(replies) => replies,
                // The table, the interface or the whole family is not there.
                Err(Errno::ENOENT | Errno::ENODEV | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {
                    continue;
                }
                Err(errno) => return Err(errno).context("routes: list"),
            };
            let listed = replies
                .into_iter()
                .filter_map(reported)
                .filter_map(Route::read);
            routes.extend(listed.filter(|route| filter.matches(family, route)));
        }
        Ok(routes)
    }

    /// Asks how the kernel would send to an address; none if it could not.
    pub async fn route_to(&self, ip: IpAddr) -> Result<Option<RouteTo>> {
        let mut query = RouteMessage::default();
        query.header.address_family = family(ip);
        query.header.destination_prefix_length = IpNetwork::from(ip).prefix();
        query.attributes = vec![RouteAttribute::Destination(ip.into())];
        match self.request(RouteNetlinkMessage::GetRoute(query), 0).await {
            Ok(replies) => {
                let route = replies.into_iter().find_map(reported).map(RouteTo::from);
                route.map(Some).ok_or(Errno::EBADMSG)
            }
            Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => Ok(None),
            Err(errno) => Err(errno),
        }
        .with_context(|| format!("route to {ip}: get"))
    }

    /// Asks which of this node's own addresses the kernel would send from to an address; none if it could not.
    pub async fn source_to(&self, ip: IpAddr) -> Result<Option<IpAddr>> {
        Ok(self.route_to(ip).await?.and_then(|route| route.source))
    }
}

fn reported(reply: RouteNetlinkMessage) -> Option<RouteMessage> {
    match reply {
        RouteNetlinkMessage::NewRoute(message) => Some(message),
        _ => None,
    }
}
