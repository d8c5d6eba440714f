//! The bridge of a network.

use std::{error::Error, fmt};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;

use super::{
    BridgePlan,
    vlan::{self, VlanGateway},
};
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
    /// Whether it sends: without a pod that is up it does not.
    pub operational: bool,
    /// The interface in the pods' VLAN that is their gateway instead of the bridge.
    pub vlan_gateway: Option<VlanGateway>,
}

impl Bridge {
    /// The index and the name of the interface that has the gateway's addresses and knows the pods as its neighbours.
    pub fn gateway(&self) -> (u32, &str) {
        match &self.vlan_gateway {
            Some(gateway) => (gateway.index, &gateway.name),
            None => (self.index, &self.name),
        }
    }
}

/// The bridge, if it is as planned.
pub(super) async fn find(netlink: &Netlink, plan: &BridgePlan) -> Result<Option<Bridge>> {
    let Some(link) = netlink.link(&plan.name).await? else {
        return Ok(None);
    };
    let planned = is_bridge(&link) && link.up && (link.promiscuous || !plan.promiscuous);
    let Some(mut bridge) = planned.then(|| bridge(link)).flatten() else {
        return Ok(None);
    };
    if let Some((_, name)) = vlan::gateway(plan) {
        bridge.vlan_gateway = vlan::find(netlink, &name).await?;
        if bridge.vlan_gateway.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(bridge))
}

/// Makes the bridge as planned; says whether it was created.
///
/// # Errors
///
/// The name belongs to an interface of another kind.
pub(super) async fn ensure(netlink: &Netlink, plan: &BridgePlan) -> Result<(Bridge, bool)> {
    let name = &plan.name;
    let mac = Mac::random();
    let created = match plan.vlans {
        Some(_) => netlink.create_vlan_bridge(name, mac, plan.mtu).await?,
        None => netlink.create_bridge(name, mac, plan.mtu).await?,
    };
    let settled = settle(netlink, plan, created).await;
    if settled.is_err()
        && created
        && let Some(link) = netlink.link(name).await?
    {
        netlink.delete(link.index).await?;
    }
    Ok((settled?, created))
}

async fn settle(netlink: &Netlink, plan: &BridgePlan, created: bool) -> Result<Bridge> {
    let name = &plan.name;
    let link = netlink.link(name).await?;
    let link = link.with_context(|| format!("bridge {name:?}: gone as soon as created"))?;
    if !is_bridge(&link) {
        let kind = link.kind.as_deref().unwrap_or("unknown kind");
        return Err(Conflict(format!(
            "bridge {name:?}: an interface of this name exists and is no bridge ({kind})"
        ))
        .into());
    }
    settle_link(netlink, plan, &link, created).await?;
    bridge(link).with_context(|| format!("bridge {name:?}: has no MAC"))
}

async fn settle_link(
    netlink: &Netlink,
    plan: &BridgePlan,
    link: &Link,
    created: bool,
) -> Result<()> {
    if created {
        settle_gateway(netlink, link).await?;
    } else {
        sysctl::refuse_router_advertisements(&link.name)?;
        // One that was never given an address takes those of its ports in turn.
        if let Some(mac) = link.mac {
            netlink.set_mac(link.index, mac).await?;
        }
        if !link.up {
            netlink.set_up(link.index).await?;
        }
        if plan.vlans.is_some() && !link.filters_vlans {
            // The reference plugin leaves it so without a word: whoever made the bridge has to know.
            let bridge = &plan.name;
            tracing::warn!(
                bridge,
                "vlan, vlanTrunk: do not hold, as the bridge was made without vlan_filtering"
            );
        }
    }
    if plan.promiscuous && !link.promiscuous {
        netlink.set_promiscuous(link.index).await?;
    }
    Ok(())
}

/// Makes a new interface of the node what its pods' gateway has to be.
pub(super) async fn settle_gateway(netlink: &Netlink, link: &Link) -> Result<()> {
    // It is a router's interface: pods could send it router advertisements.
    sysctl::refuse_router_advertisements(&link.name)?;
    // It asks for its pods' MACs with its link-local address. The kernel's own cannot be used for the first second or two:
    // it looks for duplicates, which nobody can have made of a random MAC.
    if let Some(mac) = link.mac
        && sysctl::get(&format!("net/ipv6/conf/{}/disable_ipv6", link.name))
            .is_ok_and(|disabled| disabled == "0")
    {
        let address = IpNetwork::new(mac.link_local().into(), 64)?;
        netlink.add_address(link.index, address, Dad::Off).await?;
    }
    Ok(())
}

/// Gives the gateway's interface an address; says whether it had not got it.
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
    let (index, name) = bridge.gateway();
    for held in netlink.addresses(index).await? {
        let held = held.network;
        if held == gateway {
            return Ok(false);
        }
        if !conflicts(held, gateway) {
            continue;
        }
        if !force {
            return Err(Conflict(format!(
                "bridge {name:?}: already has an IP address different from {gateway}: {held}; \
                 forceAddress replaces it"
            ))
            .into());
        }
        netlink.delete_address(index, held).await?;
    }
    netlink.add_address(index, gateway, Dad::Off).await?;
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
        operational: link.operational,
        vlan_gateway: None,
    })
}
