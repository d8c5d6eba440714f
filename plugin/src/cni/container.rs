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

/// Adds the default routes of `isDefaultGateway`: one a family with a gateway, unless the lease has one already.
pub(super) fn add_default_routes(conf: &NetConf, lease: &mut Lease) -> Result<()> {
    if !conf.is_default_gateway {
        return Ok(());
    }
    for ip in &lease.ips {
        let Some(gateway) = ip.gateway else { continue };
        let everywhere = match gateway {
            IpAddr::V4(_) => IpNetwork::new(Ipv4Addr::UNSPECIFIED.into(), 0)?,
            IpAddr::V6(_) => IpNetwork::new(Ipv6Addr::UNSPECIFIED.into(), 0)?,
        };
        if !lease.routes.iter().any(|route| route.dst == everywhere) {
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
            container.set_up(link.index).await?;
            fault!("add-container-up");
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

/// The settings that the reference plugin makes before the interface has addresses.
fn set_sysctls(ifname: &str, conf: &NetConf, lease: &Lease) -> Result<()> {
    // Announces the addresses when the interface comes up: others may know former owners of them.
    sysctl::ensure(&format!("net/ipv4/conf/{ifname}/arp_notify"), "1")?;
    if !lease.ips.iter().any(|ip| ip.address.is_ipv6()) {
        return Ok(());
    }
    for interface in ["lo", ifname] {
        sysctl::ensure(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
    }
    let key = |name: &str| format!("net/ipv6/conf/{ifname}/{name}");
    let dad = if conf.enable_dad { "1" } else { "0" };
    sysctl::ensure(&key("accept_dad"), dad)?;
    sysctl::ensure(&key("enhanced_dad"), dad)?;
    sysctl::ensure(&key("keep_addr_on_down"), "1")?;
    sysctl::ensure(&key("ndisc_notify"), "1")
}

/// Adds the routes; two that say the same are one.
async fn add_routes(container: &Netlink, index: u32, lease: &Lease) -> Result<()> {
    let mut added: Vec<Route> = Vec::new();
    for leased in &lease.routes {
        let gateway = leased.gw.or_else(|| gateway_for(lease, leased.dst));
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

    /// The default routes of a pod with an address of either family, beside the routes of its lease.
    fn default_routes(is_default_gateway: bool, routes: &[&str]) -> Vec<(String, Option<IpAddr>)> {
        let conf = serde_json::json!({
            "cniVersion": "1.0.0", "name": "net", "isDefaultGateway": is_default_gateway,
        });
        let conf = NetConf::parse(conf.to_string().into(), Command::Add).unwrap();
        let ip = |address: &str, gateway: &str| LeasedIp {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
        };
        let mut lease = Lease {
            ips: vec![
                ip("10.1.0.2/24", "10.1.0.1"),
                ip("10.2.0.2/24", "10.2.0.1"),
                ip("fd00::2/64", "fd00::1"),
            ],
            routes: routes
                .iter()
                .map(|route| LeasedRoute::to(route.parse().unwrap()))
                .collect(),
            ..Lease::default()
        };
        add_default_routes(&conf, &mut lease).unwrap();
        let routes = lease.routes.into_iter();
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
        assert_eq!(default_routes(true, &["0.0.0.0/0", "::/0"]), expected);
    }
}
