//! Unicast routes, and where the kernel would send a packet.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteScope,
        RouteType, RouteVia,
    },
};
use nix::errno::Errno;

use super::{Netlink, family};

#[cfg(test)]
mod netns_tests;

/// Marks the routes that beeline made, as `proto 190` in `ip route`.
pub const PROTOCOL: u8 = 0xbe;

/// The routing table that is used unless a rule says otherwise.
pub const TABLE_MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// A unicast route through one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is for; a prefix of length 0 is the default route.
    pub destination: IpNetwork,
    /// The next hop, which may be of the other family; none if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the interface; 0 in the reported routes that have several next hops.
    pub interface: u32,
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
            mtu: None,
            advmss: None,
            priority: None,
            table: TABLE_MAIN,
            scope: None,
            protocol: PROTOCOL,
        }
    }
}

impl Netlink {
    /// Adds a route; one with the same destination, priority and table is an error (EEXIST).
    pub async fn add_route(&self, route: &Route) -> Result<()> {
        let added = self.request(
            RouteNetlinkMessage::NewRoute(route.message()),
            NLM_F_CREATE | NLM_F_EXCL,
        );
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
}

impl Route {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.destination.ip());
        header.destination_prefix_length = self.destination.prefix();
        header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        header.protocol = self.protocol.into();
        header.kind = RouteType::Unicast;
        header.scope = match (self.scope, self.gateway) {
            (Some(scope), _) => scope.into(),
            (None, Some(_)) => RouteScope::Universe,
            (None, None) => RouteScope::Link,
        };
        // The kernel refuses a destination with host bits.
        message.attributes = vec![
            RouteAttribute::Destination(self.destination.network().into()),
            RouteAttribute::Oif(self.interface),
            RouteAttribute::Table(self.table),
        ];
        message.attributes.extend(
            self.gateway
                .map(|gateway| match (self.destination, gateway) {
                    (IpNetwork::V4(_), IpAddr::V6(ip)) => RouteAttribute::Via(RouteVia::Inet6(ip)),
                    (IpNetwork::V6(_), IpAddr::V4(ip)) => RouteAttribute::Via(RouteVia::Inet(ip)),
                    _ => RouteAttribute::Gateway(gateway.into()),
                }),
        );
        message
            .attributes
            .extend(self.priority.map(RouteAttribute::Priority));
        let metrics = [
            self.mtu.map(RouteMetric::Mtu),
            self.advmss.map(RouteMetric::Advmss),
        ];
        let metrics: Vec<_> = metrics.into_iter().flatten().collect();
        message
            .attributes
            .extend((!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics)));
        message
    }

    fn read(message: RouteMessage) -> Option<Self> {
        if message.header.kind != RouteType::Unicast {
            return None;
        }
        let unspecified = match message.header.address_family {
            AddressFamily::Inet => IpAddr::from([0; 4]),
            AddressFamily::Inet6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let mut route = Self::new(IpNetwork::new(unspecified, 0).ok()?, None, 0);
        route.table = message.header.table.into();
        route.protocol = message.header.protocol.into();
        route.scope = Some(message.header.scope.into());
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => {
                    route.destination =
                        IpNetwork::new(ip(to)?, message.header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Gateway(hop) => route.gateway = ip(hop),
                RouteAttribute::Via(RouteVia::Inet(hop)) => route.gateway = Some(hop.into()),
                RouteAttribute::Via(RouteVia::Inet6(hop)) => route.gateway = Some(hop.into()),
                RouteAttribute::Oif(index) => route.interface = index,
                RouteAttribute::Priority(priority) => route.priority = Some(priority),
                RouteAttribute::Table(table) => route.table = table,
                RouteAttribute::Metrics(metrics) => route.read_metrics(&metrics),
                _ => {}
            }
        }
        Some(route)
    }

    fn read_metrics(&mut self, metrics: &[RouteMetric]) {
        for metric in metrics {
            match *metric {
                RouteMetric::Mtu(mtu) => self.mtu = Some(mtu),
                RouteMetric::Advmss(advmss) => self.advmss = Some(advmss),
                _ => {}
            }
        }
    }
}

impl Filter {
    fn query(&self, family: Family) -> RouteMessage {
        let mut query = RouteMessage::default();
        query.header.address_family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        query.header.protocol = self.protocol.unwrap_or_default().into();
        query
            .attributes
            .extend(self.table.map(RouteAttribute::Table));
        query
            .attributes
            .extend(self.interface.map(RouteAttribute::Oif));
        query
    }

    /// Kernels without strict checking list everything, and IPv4's instead of IPv6's where that is disabled.
    fn matches(&self, family: Family, route: &Route) -> bool {
        route.destination.is_ipv4() == (family == Family::V4)
            && self.table.is_none_or(|table| route.table == table)
            && self
                .protocol
                .is_none_or(|protocol| route.protocol == protocol)
            && self
                .interface
                .is_none_or(|interface| route.interface == interface)
    }
}

impl From<RouteMessage> for RouteTo {
    fn from(message: RouteMessage) -> Self {
        let mut route = Self {
            interface: 0,
            gateway: None,
            source: None,
        };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => route.interface = index,
                RouteAttribute::Gateway(hop) => route.gateway = ip(hop),
                RouteAttribute::Via(RouteVia::Inet(hop)) => route.gateway = Some(hop.into()),
                RouteAttribute::Via(RouteVia::Inet6(hop)) => route.gateway = Some(hop.into()),
                RouteAttribute::PrefSource(from) => route.source = ip(from),
                _ => {}
            }
        }
        route
    }
}

fn reported(reply: RouteNetlinkMessage) -> Option<RouteMessage> {
    match reply {
        RouteNetlinkMessage::NewRoute(message) => Some(message),
        _ => None,
    }
}

fn ip(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}
