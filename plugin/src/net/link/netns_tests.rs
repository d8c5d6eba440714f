//! Links in namespaces of their own. Needs root.

use std::{fs, os::fd::AsFd};

use anyhow::ensure;

use super::*;
use crate::net::{
    netns::Netns,
    testing::{self, new_netns},
    with_netlink,
};

const HOST_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x01]);
const CONTAINER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x02]);

fn spec(netns: &Netns, controller: u32) -> VethSpec<'_> {
    VethSpec {
        host_name: "veth1",
        host_mac: HOST_MAC,
        container_name: "eth0",
        container_mac: CONTAINER_MAC,
        netns: netns.as_fd(),
        controller,
        mtu: Some(1400),
        port: PortFlags::default(),
        vlans: None,
    }
}

async fn bridge(netlink: &Netlink) -> Result<Link> {
    netlink
        .create_bridge("br0", Mac([0x02, 0xbe, 0, 0, 0, 0x0b]), None)
        .await?;
    netlink.link("br0").await?.context("br0")
}

fn link_in(netns: &Netns, name: &str) -> Result<Link> {
    netns.within(|| with_netlink(async |netlink| netlink.link(name).await?.context("link")))
}

#[test]
fn a_bridge_keeps_the_mac_it_was_created_with() {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let before = bridge(netlink).await?;
        assert_eq!(before.mac, Some(Mac([0x02, 0xbe, 0, 0, 0, 0x0b])));
        assert_eq!(before.kind.as_deref(), Some("bridge"));
        assert!(before.up && before.port.is_none() && before.controller.is_none());
        netlink.create_veth(&spec(&container, before.index)).await?;
        assert_eq!(bridge(netlink).await?.mac, before.mac);
        Ok(())
    });
}

#[test]
fn a_bridge_that_exists_is_left_as_it_is() {
    testing::netlink(async |netlink| {
        assert!(netlink.create_bridge("br0", HOST_MAC, Some(1400)).await?);
        let before = netlink.link("br0").await?;
        assert!(
            !netlink
                .create_bridge("br0", CONTAINER_MAC, Some(9000))
                .await?
        );
        assert_eq!(netlink.link("br0").await?, before);
        assert_eq!(before.context("br0")?.mtu, 1400);
        Ok(())
    });
}

#[test]
fn both_ends_of_a_veth_are_born_as_described() {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let bridge = bridge(netlink).await?;
        let index = netlink.create_veth(&spec(&container, bridge.index)).await?;
        let host = netlink.link_at(index).await?.context("host veth")?;
        let inside = link_in(&container, "eth0")?;
        assert_eq!(host.name, "veth1");
        assert_eq!(
            (host.mac, inside.mac),
            (Some(HOST_MAC), Some(CONTAINER_MAC))
        );
        assert_eq!((host.mtu, inside.mtu), (1400, 1400));
        assert_eq!((host.up, inside.up), (true, false));
        assert_eq!(host.controller, Some(bridge.index));
        assert_eq!(host.port, Some(PortFlags::default()));
        assert_eq!(
            (host.peer_index, inside.peer_index),
            (Some(inside.index), Some(host.index))
        );
        Ok(())
    });
}

#[test]
fn the_host_end_gets_no_ipv6_address_of_its_own() {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let bridge = bridge(netlink).await?;
        let index = netlink.create_veth(&spec(&container, bridge.index)).await?;
        let inside = link_in(&container, "eth0")?;
        container.within(|| with_netlink(async |inner| inner.set_up(inside.index).await))?;
        assert_eq!(
            fs::read_to_string("/proc/sys/net/ipv6/conf/veth1/addr_gen_mode")?,
            "1\n"
        );
        // The bridge, which has a carrier now, gets one in the same moment.
        for _ in 0..100 {
            if !netlink.addresses(bridge.index).await?.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_ne!(netlink.addresses(bridge.index).await?, []);
        assert_eq!(netlink.addresses(index).await?, []);
        Ok(())
    });
}

#[test]
fn port_flags_are_set_at_creation_and_later() {
    let (first, second) = (new_netns(), new_netns());
    testing::netlink(async |netlink| {
        let bridge = bridge(netlink).await?;
        let hairpin = PortFlags {
            hairpin: true,
            isolated: false,
        };
        let both = PortFlags {
            hairpin: true,
            isolated: true,
        };
        let one = netlink
            .create_veth(&VethSpec {
                port: hairpin,
                ..spec(&first, bridge.index)
            })
            .await?;
        let two = netlink
            .create_veth(&VethSpec {
                host_name: "veth2",
                ..spec(&second, bridge.index)
            })
            .await?;
        netlink.set_port(two, both).await?;
        assert_eq!(
            netlink.link_at(one).await?.context("veth1")?.port,
            Some(hairpin)
        );
        assert_eq!(
            netlink.link_at(two).await?.context("veth2")?.port,
            Some(both)
        );
        Ok(())
    });
}

#[test]
fn a_taken_name_is_named() {
    let (first, second) = (new_netns(), new_netns());
    testing::netlink(async |netlink| {
        let bridge = bridge(netlink).await?;
        netlink.create_veth(&spec(&first, bridge.index)).await?;
        let host = netlink
            .create_veth(&spec(&second, bridge.index))
            .await
            .unwrap_err();
        assert_eq!(
            format!("{host:#}"),
            "interface \"veth1\": already exists: EEXIST: File exists"
        );
        assert!(
            !host
                .downcast_ref::<AlreadyExists>()
                .context("type")?
                .in_container
        );
        let again = VethSpec {
            host_name: "veth2",
            ..spec(&first, bridge.index)
        };
        let container = netlink.create_veth(&again).await.unwrap_err();
        assert_eq!(
            container.to_string(),
            "interface \"eth0\": already exists in the container"
        );
        ensure!(
            netlink.link("veth2").await?.is_none(),
            "half a veth pair was left"
        );
        Ok(())
    });
}

#[test]
fn a_veth_that_cannot_join_its_bridge_is_not_left_behind() {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let error = netlink
            .create_veth(&spec(&container, 4711))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "veth \"veth1\": create");
        ensure!(
            netlink.link("veth1").await?.is_none(),
            "half a veth pair was left"
        );
        Ok(())
    });
}

#[test]
fn a_tiny_mtu_without_ipv6_is_no_error() {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let bridge = bridge(netlink).await?;
        let port = PortFlags {
            hairpin: true,
            isolated: false,
        };
        let tiny = VethSpec {
            mtu: Some(600),
            port,
            ..spec(&container, bridge.index)
        };
        let index = netlink.create_veth(&tiny).await?;
        assert_eq!(
            netlink.link_at(index).await?.context("veth1")?.port,
            Some(port)
        );
        Ok(())
    });
}

#[test]
fn links_change_and_can_be_deleted_twice() {
    testing::netlink(async |netlink| {
        let index = bridge(netlink).await?.index;
        netlink.set_promiscuous(index).await?;
        netlink.set_mac(index, CONTAINER_MAC).await?;
        netlink.set_mtu(index, 1300).await?;
        netlink.set_down(index).await?;
        let changed = netlink.link_at(index).await?.context("br0")?;
        assert_eq!(
            (changed.promiscuous, changed.up, changed.mtu),
            (true, false, 1300)
        );
        assert_eq!(changed.mac, Some(CONTAINER_MAC));
        assert_eq!(
            netlink
                .links()
                .await?
                .iter()
                .map(|link| &link.name[..])
                .collect::<Vec<_>>(),
            ["lo", "br0"]
        );
        netlink.delete(index).await?;
        netlink.delete(index).await?;
        assert_eq!(netlink.link("br0").await?, None);
        assert_eq!(netlink.link_at(index).await?, None);
        // As records have it of pods without an interface.
        assert_eq!(netlink.link_at(0).await?, None);
        assert_eq!(netlink.other_end(0).await?, None);
        let error = netlink.set_up(index).await.unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!("link {index}: set up: ENODEV: No such device")
        );
        Ok(())
    });
}

/// The bridge, and a container whose port is in VLAN 100; `None` if the kernel's bridges know no VLANs.
async fn port_in_vlan_100(
    netlink: &Netlink,
    container: &Netns,
    bridge: u32,
) -> Result<Option<u32>> {
    let vlans = PortVlans {
        native: Some(100),
        ..PortVlans::default()
    };
    let spec = VethSpec {
        vlans: Some(&vlans),
        ..spec(container, bridge)
    };
    match netlink.create_veth(&spec).await {
        Err(error) if error.is::<NoVlanFiltering>() => Ok(None),
        created => created.map(Some),
    }
}

#[test]
fn a_kernel_without_vlan_filtering_is_told_from_one_that_has_it_and_nothing_is_left() {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let filtering = netlink.create_vlan_bridge("br1", HOST_MAC, None).await;
        let bridge = bridge(netlink).await?.index;
        let port = port_in_vlan_100(netlink, &container, bridge).await?;
        if let Ok(created) = filtering {
            assert!(created && port.is_some());
            assert!(netlink.link("br1").await?.context("br1")?.filters_vlans);
            assert!(!netlink.create_vlan_bridge("br1", HOST_MAC, None).await?);
            return Ok(());
        }
        let error = filtering.unwrap_err();
        assert!(error.is::<NoVlanFiltering>(), "{error:#}");
        assert!(error.to_string().contains("cannot filter by VLAN"));
        assert_eq!(port, None);
        let left = netlink.links().await?;
        let names: Vec<_> = left.iter().map(|link| &*link.name).collect();
        assert_eq!(names, ["lo", "br0"]);
        Ok(())
    });
}

#[test]
fn a_change_of_the_mac_inside_is_heard_and_seen_from_the_host() {
    let container = new_netns();
    testing::netlink(async |netlink| {
        let bridge = bridge(netlink).await?;
        let index = netlink.create_veth(&spec(&container, bridge.index)).await?;
        let mut watch = inside::Watch::open()?;
        let other = Mac([0x02, 0, 0, 0, 0, 0x03]);
        container.within(|| {
            with_netlink(async |netlink| {
                let eth = netlink.link("eth0").await?.context("eth0")?;
                netlink.set_mac(eth.index, other).await
            })
        })?;
        let heard = async {
            while watch.next().await? != inside::Change::Mac(index, other) {}
            anyhow::Ok(())
        };
        tokio::time::timeout(testing::PATIENCE, heard).await??;
        let seen = netlink.other_end(index).await?.context("the other end")?;
        assert_eq!((seen.mac, &*seen.name), (Some(other), "eth0"));
        assert_eq!(netlink.other_end(bridge.index).await?, None);
        netlink.delete(index).await?;
        assert_eq!(netlink.other_end(index).await?, None);
        Ok(())
    });
}
