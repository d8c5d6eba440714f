//! Routes as netlink messages, and back.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteIpTunnel,
        RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage, RouteMetric, RouteScope, RouteType,
        RouteVia,
    },
};

use super::{Family, Filter, Route, RouteTo, Tunnel};
use crate::net::family;

impl Route {
    pub(super) fn message(&self) -> RouteMessage {
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
        if self.onlink {
            header.flags |= RouteFlags::Onlink;
        }
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
            .extend(self.tunnel.iter().flat_map(Tunnel::attributes));
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

    pub(crate) fn read(message: RouteMessage) -> Option<Self> {
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
        route.onlink = message.header.flags.contains(RouteFlags::Onlink);
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
                RouteAttribute::Encap(parts) => route.tunnel = Tunnel::read(&parts),
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

impl Tunnel {
    fn attributes(&self) -> [RouteAttribute; 2] {
        let id = self.id.into();
        let (kind, parts) = match self.node {
            IpAddr::V4(node) => (
                RouteLwEnCapType::Ip,
                [RouteIpTunnel::Id(id), RouteIpTunnel::Destination(node)]
                    .map(RouteLwTunnelEncap::Ip),
            ),
            IpAddr::V6(node) => (
                RouteLwEnCapType::Ip6,
                [RouteIp6Tunnel::Id(id), RouteIp6Tunnel::Destination(node)]
                    .map(RouteLwTunnelEncap::Ip6),
            ),
        };
        [
            RouteAttribute::EncapType(kind),
            RouteAttribute::Encap(parts.into()),
        ]
    }

    fn read(parts: &[RouteLwTunnelEncap]) -> Option<Self> {
        let (mut id, mut node) = (None, None);
        for part in parts {
            match part {
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Id(network))
                | RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(network)) => id = Some(*network),
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(ip)) => node = Some((*ip).into()),
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(ip)) => {
                    node = Some((*ip).into());
                }
                _ => {}
            }
        }
        Some(Self {
            id: u32::try_from(id?).ok()?,
            node: node?,
        })
    }
}

impl Filter {
    pub(super) fn query(&self, family: Family) -> RouteMessage {
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
    pub(super) fn matches(&self, family: Family, route: &Route) -> bool {
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

fn ip(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}
