//! The container's side of an attachment.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;

use super::NetConf;
use crate::{
    ipam::{Lease, Route as LeasedRoute},
    net::{Netlink, address::Dad, netns::Netns, route::Route, sysctl, with_netlink},
};

/// As long as the reference plugin waits for duplicate address detection.
const DAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Routes that a pod's own are marked as, as those that an administrator adds (`RTPROT_BOOT`).
const PROTOCOL_BOOT: u8 = 3;

/// The scope of destinations on the link (`RT_SCOPE_LINK`); what is nearer has a higher one.
const SCOPE_LINK: u8 = 253;

/// Says what the lease leaves to the bridge: with `isGateway` the gateway, which is the first address of the network, and
/// with `isDefaultGateway` the default routes.
pub(crate) fn complete(conf: &NetConf, lease: &mut Lease) -> Result<()> {
    if conf.is_gateway {
        for ip in &mut lease.ips {
            ip.gateway = ip.gateway.or_else(|| first_of(ip.address));
        }
    }
    if conf.is_default_gateway {
        add_default_routes(lease)?;
    }
    Ok(())
}

/// Adds one default route a family with a gateway, unless the lease has one with a gateway, or one that would be the same
/// to the kernel.
fn add_default_routes(lease: &mut Lease) -> Result<()> {
    for ip in &lease.ips {
        let Some(gateway) = ip.gateway else { continue };
        let everywhere = match gateway {
            IpAddr::V4(_) => IpNetwork::new(Ipv4Addr::UNSPECIFIED.into(), 0)?,
            IpAddr::V6(_) => IpNetwork::new(Ipv6Addr::UNSPECIFIED.into(), 0)?,
        };
        let mut routes = lease.routes.iter().filter(|route| route.dst == everywhere);
        let is_there =
            routes.any(|route| route.gw.is_some() || (route.table, route.priority) == (None, None));
        if !is_there {
            lease.routes.push(LeasedRoute {
                gw: Some(gateway),
                ..LeasedRoute::to(everywhere)
            });
        }
    }
    Ok(())
}

/// Gives the container's interface its addresses and routes, and brings it up.
pub(super) fn configure(netns: &Netns, ifname: &str, conf: &NetConf, lease: &Lease) -> Result<()> {
    let configured = netns.within(|| {
        set_sysctls(ifname, conf, lease)?;
        with_netlink(async |container| {
            let link = container.link(ifname).await?.context("gone")?;
            let dad = if conf.enable_dad { Dad::On } else { Dad::Off };
            for ip in &lease.ips {
                container.add_address(link.index, ip.address, dad).await?;
            }
            if !conf.disable_container_interface {
                container.set_up(link.index).await?;
            }
            if conf.enable_dad {
                container.wait_for_dad(link.index, DAD_TIMEOUT).await?;
            }
            add_routes(container, link.index, lease).await
        })
    });
    configured.with_context(|| format!("container interface {ifname:?}"))
}

/// Brings the container's interface up before it has addresses.
pub(super) fn set_up(netns: &Netns, ifname: &str) -> Result<()> {
    let up = netns.within(|| {
        with_netlink(async |container| {
            let link = container.link(ifname).await?.context("gone")?;
            container.set_up(link.index).await
        })
    });
    up.with_context(|| format!("container interface {ifname:?}"))
}

/// The settings that the reference plugin makes before an interface has addresses.
fn set_sysctls(ifname: &str, conf: &NetConf, lease: &Lease) -> Result<()> {
    if lease.ips.is_empty() {
        return Ok(());
    }
    // Announces the addresses when the interface comes up: others may know former owners of them.
    prefer(&format!("net/ipv4/conf/{ifname}/arp_notify"), "1");
    let key = |name: &str| format!("net/ipv6/conf/{ifname}/{name}");
    if conf.enable_dad {
        prefer(&key("enhanced_dad"), "1");
    }
    // Also without an IPv6 address: the interface gives itself one.
    prefer(&key("accept_dad"), if conf.enable_dad { "1" } else { "0" });
    if !lease.ips.iter().any(|ip| ip.address.is_ipv6()) {
        return Ok(());
    }
    for interface in ["lo", ifname] {
        sysctl::set(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
    }
    prefer(&key("ndisc_notify"), "1");
    sysctl::set(&key("keep_addr_on_down"), "1")
}

/// Makes a setting that a pod works without, where `/proc/sys` can be written.
fn prefer(key: &str, value: &str) {
    if let Err(error) = sysctl::set_if_there(key, value) {
        tracing::warn!("{error:#}");
    }
}

/// The address after the network's own; none if that is of another network.
fn first_of(address: IpNetwork) -> Option<IpAddr> {
    let first = match address.network() {
        IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits().checked_add(1)?).into(),
        IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits().checked_add(1)?).into(),
    };
    address.contains(first).then_some(first)
}

/// Adds the routes; two that say the same are one.
async fn add_routes(container: &Netlink, index: u32, lease: &Lease) -> Result<()> {
    let mut added: Vec<Route> = Vec::new();
    for leased in &lease.routes {
        // What is on the link is behind no gateway.
        let is_near = leased.scope.is_some_and(|scope| scope >= SCOPE_LINK);
        let gateway = leased.gw;
        let gateway = gateway.or_else(|| gateway_for(lease, leased.dst).filter(|_| !is_near));
        let mut route = Route {
            mtu: leased.mtu,
            advmss: leased.advmss,
            priority: leased.priority,
            scope: leased.scope,
            protocol: PROTOCOL_BOOT,
            ..Route::new(leased.dst, gateway, index)
        };
        if let Some(table) = leased.table {
            route.table = table;
        }
        if !added.contains(&route) {
            container.add_route(&route).await?;
            added.push(route);
        }
    }
    Ok(())
}

/// A route without a gateway of its own goes to that of the first address of its family.
fn gateway_for(lease: &Lease, destination: IpNetwork) -> Option<IpAddr> {
    let same_family = lease
        .ips
        .iter()
        .filter(|ip| ip.address.is_ipv4() == destination.is_ipv4());
    same_family.filter_map(|ip| ip.gateway).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cni::Command, ipam::LeasedIp};

    fn route(destination: &str) -> LeasedRoute {
        LeasedRoute::to(destination.parse().unwrap())
    }

    /// What becomes of a lease; without a gateway that is `-`.
    fn completed(conf: serde_json::Value, ips: &[(&str, &str)], routes: &[LeasedRoute]) -> Lease {
        let mut document = serde_json::json!({"cniVersion": "1.0.0", "name": "net"});
        for (key, value) in conf.as_object().unwrap() {
            document[key] = value.clone();
        }
        let conf = NetConf::parse(document.to_string().into(), Command::Add).unwrap();
        let ip = |(address, gateway): &(&str, &str)| LeasedIp {
            address: address.parse().unwrap(),
            gateway: gateway.parse().ok(),
        };
        let mut lease = Lease {
            ips: ips.iter().map(ip).collect(),
            routes: routes.to_vec(),
            ..Lease::default()
        };
        complete(&conf, &mut lease).unwrap();
        lease
    }

    /// The default routes of a pod with addresses of either family, beside the routes of its lease.
    fn default_routes(
        is_default_gateway: bool,
        routes: &[LeasedRoute],
    ) -> Vec<(String, Option<IpAddr>)> {
        let conf = serde_json::json!({"isDefaultGateway": is_default_gateway});
        let ips = [
            ("10.1.0.2/24", "10.1.0.1"),
            ("10.2.0.2/24", "10.2.0.1"),
            ("fd00::2/64", "fd00::1"),
        ];
        let routes = completed(conf, &ips, routes).routes.into_iter();
        routes
            .map(|route| (route.dst.to_string(), route.gw))
            .collect()
    }

    #[test]
    fn a_default_gateway_is_one_route_a_family() {
        let gateway = |text: &str| Some(text.parse().unwrap());
        let expected = [
            ("0.0.0.0/0".to_owned(), gateway("10.1.0.1")),
            ("::/0".to_owned(), gateway("fd00::1")),
        ];
        assert_eq!(default_routes(true, &[]), expected);
        assert!(default_routes(false, &[]).is_empty());
    }

    #[test]
    fn a_default_route_of_the_lease_is_not_added_again() {
        let expected = [("0.0.0.0/0".to_owned(), None), ("::/0".to_owned(), None)];
        let routes = [route("0.0.0.0/0"), route("::/0")];
        assert_eq!(default_routes(true, &routes), expected);
    }

    #[test]
    fn a_default_route_of_another_table_is_one_beside_it_unless_it_has_a_gateway() {
        let elsewhere = LeasedRoute {
            table: Some(100),
            ..route("0.0.0.0/0")
        };
        assert_eq!(
            default_routes(true, &[elsewhere.clone(), route("::/0")]).len(),
            3
        );
        let by_gateway = LeasedRoute {
            gw: "10.1.0.9".parse().ok(),
            ..elsewhere
        };
        assert_eq!(default_routes(true, &[by_gateway, route("::/0")]).len(), 2);
    }

    #[test]
    fn a_gateway_is_the_first_address_of_the_network_unless_ipam_says_another() {
        let gateways = |conf| -> Vec<_> {
            let ips = [
                ("10.1.2.9/23", "-"),
                ("10.1.2.9/24", "10.1.2.254"),
                ("fd00::9/64", "-"),
                ("10.1.2.9/32", "-"),
                ("255.255.255.255/32", "-"),
            ];
            let lease = completed(conf, &ips, &[]);
            let gateways = lease
                .ips
                .iter()
                .map(|ip| ip.gateway.map(|ip| ip.to_string()));
            gateways.map(Option::unwrap_or_default).collect()
        };
        let expected = ["10.1.2.1", "10.1.2.254", "fd00::1", "", ""];
        assert_eq!(gateways(serde_json::json!({"isGateway": true})), expected);
        let as_they_are = ["", "10.1.2.254", "", "", ""];
        assert_eq!(gateways(serde_json::json!({})), as_they_are);
    }
}
