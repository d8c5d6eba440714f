//! The container's side of an attachment.

use std::{net::IpAddr, time::Duration};

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
pub(super) fn add_default_routes(conf: &NetConf, lease: &mut Lease) {
    if !conf.is_default_gateway {
        return;
    }
    for ip in &lease.ips {
        let Some(gateway) = ip.gateway else { continue };
        let default = default_route(gateway);
        let there =
            |route: &LeasedRoute| route.dst == default && route.gw.is_none_or(|gw| gw == gateway);
        if !lease.routes.iter().any(there) {
            lease.routes.push(LeasedRoute {
                gw: Some(gateway),
                ..LeasedRoute::to(default)
            });
        }
    }
}

fn default_route(gateway: IpAddr) -> IpNetwork {
    match gateway {
        IpAddr::V4(_) => IpNetwork::V4(ipnetwork::Ipv4Network::from(
            std::net::Ipv4Addr::UNSPECIFIED,
        )),
        IpAddr::V6(_) => IpNetwork::V6(ipnetwork::Ipv6Network::from(
            std::net::Ipv6Addr::UNSPECIFIED,
        )),
    }
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
