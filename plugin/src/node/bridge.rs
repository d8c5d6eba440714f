//! The bridge of a network.

use std::{error::Error, fmt};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;

use super::BridgePlan;
use crate::net::{Netlink, address::Dad, link::Link, mac::Mac, sysctl};

/// What the configuration asks of the bridge collides with what is there.
#[derive(Debug)]
pub struct Conflict(String);

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Conflict {}

/// A bridge that is there and up.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address, which is the pods' gateway's.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// The bridge, if it is as planned.
pub(super) async fn find(netlink: &Netlink, plan: &BridgePlan) -> Result<Option<Bridge>> {
    let Some(link) = netlink.link(&plan.name).await? else {
        return Ok(None);
    };
    let planned = is_bridge(&link) && link.up && (link.promiscuous || !plan.promiscuous);
    Ok(planned.then(|| bridge(link)).flatten())
}

/// Makes the bridge as planned; says whether it was created.
///
/// # Errors
///
/// The name belongs to an interface of another kind.
pub(super) async fn ensure(netlink: &Netlink, plan: &BridgePlan) -> Result<(Bridge, bool)> {
    let name = &plan.name;
    let created = netlink.create_bridge(name, Mac::random(), plan.mtu).await?;
    let link = netlink.link(name).await?;
    let link = link.with_context(|| format!("bridge {name:?}: gone as soon as created"))?;
    if !is_bridge(&link) {
        let kind = link.kind.as_deref().unwrap_or("unknown kind");
        return Err(Conflict(format!(
            "bridge {name:?}: an interface of this name exists and is no bridge ({kind})"
        ))
        .into());
    }
    if let Err(error) = settle(netlink, plan, &link, created).await {
        if created {
            netlink.delete(link.index).await?;
        }
        return Err(error);
    }
    let bridge = bridge(link).with_context(|| format!("bridge {name:?}: has no MAC"))?;
    Ok((bridge, created))
}

async fn settle(netlink: &Netlink, plan: &BridgePlan, link: &Link, created: bool) -> Result<()> {
    if created {
        let of_router = [
            // It listens to no router advertisements that pods send.
            ("accept_ra", "0"),
            // It asks for its pods' MACs with its link-local address, which nobody else can have made of its random MAC.
            // While duplicates of that are looked for, all that others send to its pods is lost.
            ("accept_dad", "0"),
        ];
        for (name, value) in of_router {
            let key = format!("net/ipv6/conf/{}/{name}", plan.name);
            if sysctl::get(&key).is_ok() {
                sysctl::ensure(&key, value)?;
            }
        }
    } else {
        // One that was never given an address takes those of its ports in turn.
        if let Some(mac) = link.mac {
            netlink.set_mac(link.index, mac).await?;
        }
        if !link.up {
            netlink.set_up(link.index).await?;
        }
    }
    if plan.promiscuous && !link.promiscuous {
        netlink.set_promiscuous(link.index).await?;
    }
    Ok(())
}

/// Gives the bridge a gateway address; says whether it had not got it.
///
/// # Errors
///
/// It has another one that would conflict, and `force` does not allow to replace it: for IPv4 any other, for IPv6 one
/// whose network overlaps.
pub(super) async fn ensure_gateway(
    netlink: &Netlink,
    bridge: &Bridge,
    gateway: IpNetwork,
    force: bool,
) -> Result<bool> {
    for held in netlink.addresses(bridge.index).await? {
        let held = held.network;
        if held == gateway {
            return Ok(false);
        }
        if !conflicts(held, gateway) {
            continue;
        }
        if !force {
            let name = &bridge.name;
            return Err(Conflict(format!(
                "bridge {name:?}: already has an IP address different from {gateway}: {held}; \
                 forceAddress replaces it"
            ))
            .into());
        }
        netlink.delete_address(bridge.index, held).await?;
    }
    netlink.add_address(bridge.index, gateway, Dad::Off).await?;
    Ok(true)
}

fn conflicts(held: IpNetwork, wanted: IpNetwork) -> bool {
    match (held, wanted) {
        (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
        (IpNetwork::V6(held), IpNetwork::V6(wanted)) => {
            held.contains(wanted.network()) || wanted.contains(held.network())
        }
        _ => false,
    }
}

fn is_bridge(link: &Link) -> bool {
    link.kind.as_deref() == Some("bridge")
}

fn bridge(link: Link) -> Option<Bridge> {
    Some(Bridge {
        index: link.index,
        name: link.name,
        mac: link.mac?,
        mtu: link.mtu,
    })
}
