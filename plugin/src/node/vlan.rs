//! The gateway of pods that are in a VLAN: an interface `<bridge>.<vlan>`, whose other end is a port of the bridge in
//! that VLAN, as the reference plugin makes it.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, ensure};

use super::{Bridge, BridgePlan, bridge::settle_gateway};
use crate::{
    hash::fnv1a,
    net::{
        Netlink,
        link::{PortFlags, PortVlans, VethSpec},
        mac::Mac,
        netns::Netns,
        sysctl,
    },
};

/// The interface that is the gateway of a VLAN's pods.
#[derive(Clone, Debug)]
pub struct VlanGateway {
    /// Its interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: Mac,
}

/// The VLAN that the bridge's gateway is in, and the name of its interface, if it has one of its own.
pub(super) fn gateway(plan: &BridgePlan) -> Option<(u16, String)> {
    let vlans = plan.vlans.as_ref()?;
    Some((vlans.id?, vlans.gateway_interface(&plan.name)?))
}

/// The interface, if it is there and up.
pub(super) async fn find(netlink: &Netlink, name: &str) -> Result<Option<VlanGateway>> {
    let link = netlink.link(name).await?.filter(|link| link.up);
    Ok(link.and_then(|link| {
        Some(VlanGateway {
            index: link.index,
            name: link.name,
            mac: link.mac?,
        })
    }))
}

/// Makes the interface of the bridge's gateway, if it has one of its own; returns its index if it was not there before.
/// One that is there is taken for what it should be, as the reference plugin does.
pub(super) async fn ensure_gateway(
    netlink: &Netlink,
    plan: &BridgePlan,
    bridge: &mut Bridge,
) -> Result<Option<u32>> {
    let Some((id, name)) = gateway(plan) else {
        return Ok(None);
    };
    let created = match netlink.link(&name).await? {
        Some(link) => {
            netlink.set_up(link.index).await?;
            None
        }
        None => {
            let keep_default = plan
                .vlans
                .as_ref()
                .is_some_and(|vlans| vlans.port.keep_default);
            let made = create(
                netlink,
                bridge,
                &name,
                PortVlans {
                    native: Some(id),
                    keep_default,
                    ..PortVlans::default()
                },
            );
            Some(made.await?)
        }
    };
    bridge.vlan_gateway = find(netlink, &name).await?;
    ensure!(
        bridge.vlan_gateway.is_some(),
        "interface {name:?}: has no MAC"
    );
    Ok(created)
}

async fn create(netlink: &Netlink, bridge: &Bridge, name: &str, vlans: PortVlans) -> Result<u32> {
    let here = Netns::current()?;
    let spec = VethSpec {
        host_name: &port_name(name),
        host_mac: Mac::random(),
        container_name: name,
        container_mac: Mac::random(),
        netns: here.as_fd(),
        controller: bridge.index,
        mtu: Some(bridge.mtu),
        port: PortFlags::default(),
        vlans: Some(&vlans),
    };
    let port = netlink.create_veth(&spec).await?;
    let settled = async {
        let link = netlink
            .link(name)
            .await?
            .context("gone as soon as created")?;
        // As soon as it is up the kernel may be first to give it its link-local address.
        sysctl::set_if_there(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
        netlink.set_up(link.index).await?;
        settle_gateway(netlink, &link).await?;
        Ok(link.index)
    };
    let settled: Result<u32> = settled.await;
    if settled.is_err() {
        // What matters is the first error.
        let _ = netlink.delete(port).await;
    }
    settled.with_context(|| format!("interface {name:?}"))
}

/// The name of the end that is the bridge's port; longer names would not fit.
fn port_name(gateway: &str) -> String {
    format!("veth{:08x}", fnv1a(gateway.as_bytes()))
}

#[cfg(test)]
mod netns_tests {
    use super::*;
    use crate::{
        net::{link::NoVlanFiltering, testing},
        node::{VlanPlan, bridge},
    };

    fn plan() -> BridgePlan {
        BridgePlan {
            name: "br0".to_owned(),
            mtu: Some(1400),
            promiscuous: false,
            gateway: true,
            vlans: Some(VlanPlan {
                id: Some(100),
                port: PortVlans::default(),
                gateway: true,
            }),
        }
    }

    /// A bridge as the plan has it, but that every kernel can make.
    async fn plain_bridge(netlink: &Netlink) -> Result<Bridge> {
        let plain = BridgePlan {
            vlans: None,
            ..plan()
        };
        Ok(bridge::ensure(netlink, &plain).await?.0)
    }

    #[test]
    fn the_gateways_interface_is_up_and_its_other_end_a_port_of_the_bridge() {
        testing::netlink(async |netlink| {
            let bridge = plain_bridge(netlink).await?;
            // In no VLAN, which every kernel can do; those are other messages.
            let made = create(netlink, &bridge, "br0.100", PortVlans::default()).await?;
            let gateway = netlink.link("br0.100").await?.context("br0.100")?;
            assert_eq!((gateway.index, gateway.mtu, gateway.up), (made, 1400, true));
            assert_eq!(gateway.controller, None);
            let port = gateway.peer_index.context("no veth")?;
            let port = netlink.link_at(port).await?.context("port")?;
            assert_eq!(port.controller, Some(bridge.index));
            let own = gateway.mac.context("no MAC")?.link_local();
            let addresses = netlink.addresses(made).await?;
            let [address] = &addresses[..] else {
                panic!("{addresses:?}");
            };
            assert_eq!(address.network.ip(), own);
            assert!(!address.tentative);
            Ok(())
        });
    }

    #[test]
    fn an_interface_of_the_name_is_the_gateway_and_gets_the_addresses() {
        testing::netlink(async |netlink| {
            let mut bridge = plain_bridge(netlink).await?;
            netlink
                .create_bridge("br0.100", Mac::random(), None)
                .await?;
            let index = netlink.link("br0.100").await?.context("br0.100")?.index;
            netlink.set_down(index).await?;
            assert!(bridge::find(netlink, &plan()).await?.is_none(), "is down");
            let made = ensure_gateway(netlink, &plan(), &mut bridge).await?;
            assert_eq!(made, None);
            assert_eq!(bridge.gateway(), (index, "br0.100"));
            let found = bridge::find(netlink, &plan()).await?.context("not found")?;
            assert_eq!(found.gateway(), (index, "br0.100"));
            let address = "10.1.0.1/24".parse()?;
            assert!(bridge::ensure_gateway(netlink, &found, address, false).await?);
            assert_eq!(netlink.addresses(index).await?[0].network, address);
            netlink.delete(index).await?;
            assert!(bridge::find(netlink, &plan()).await?.is_none(), "is gone");
            Ok(())
        });
    }

    #[test]
    fn a_gateway_that_cannot_be_in_its_vlan_is_not_left_behind() {
        testing::netlink(async |netlink| {
            let mut bridge = plain_bridge(netlink).await?;
            match ensure_gateway(netlink, &plan(), &mut bridge).await {
                Ok(made) => assert_eq!(made, Some(bridge.gateway().0)),
                Err(error) => {
                    assert!(error.is::<NoVlanFiltering>(), "{error:#}");
                    assert_eq!(netlink.links().await?.len(), 2, "lo and br0");
                }
            }
            Ok(())
        });
    }
}
