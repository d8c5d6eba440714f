//! The overlay's device on a node, which leads to the peers that are no neighbours.

use anyhow::{Context as _, Result};
use beeline_common::{self as abi, Peer};

use super::Plan;
use crate::{
    datapath::config::{OverlayConf, PeerConf},
    hash::fnv1a,
    net::{
        Netlink,
        link::{Link, VxlanSpec},
        neighbour::Neighbour,
        overlay::{overlay_hop, overlay_mac},
        route::{PROTOCOL, Route, Tunnel},
    },
};

/// What vxlan puts before a packet: Ethernet, VXLAN and UDP headers, and the outer IP header (RFC 7348, section 5).
const fn overhead(v4: bool) -> u32 {
    14 + 8 + 8 + if v4 { 20 } else { 40 }
}

/// What an uplink leaves for packets that are tunnelled to a peer.
pub(super) fn mtu(uplink: &Link, peer: &PeerConf) -> u32 {
    uplink.mtu.saturating_sub(overhead(peer.node.is_ipv4()))
}

/// The device as it is or shall be.
#[derive(Clone, Debug)]
pub(super) struct Overlay {
    pub(super) conf: OverlayConf,
    pub(super) link: Link,
}

/// The device's name: another network on the node has another one.
pub(super) fn name(network: &str) -> String {
    let hash = fnv1a(network.as_bytes());
    format!("bl-{hash:08x}")
}

/// Makes the device, for tunnels through `uplink` to a peer such as `peer`; says whether it was created.
///
/// # Errors
///
/// The UDP port is taken, by another network's overlay for example.
pub(super) async fn ensure(
    netlink: &Netlink,
    plan: &Plan,
    conf: OverlayConf,
    uplink: &Link,
    peer: &PeerConf,
) -> Result<(Overlay, bool)> {
    let name = name(&plan.network);
    let source = netlink.source_to(peer.node).await?;
    let own = source.with_context(|| format!("node {}: no address towards it", peer.node))?;
    let spec = VxlanSpec {
        name: &name,
        mac: overlay_mac(own),
        mtu: mtu(uplink, peer),
        port: conf.port,
    };
    if let Some(link) = netlink.link(&name).await?
        && link.vxlan.is_some()
        && (link.mac != Some(spec.mac) || link.mtu != spec.mtu)
    {
        // The node's address or its uplink's MTU is another one by now.
        netlink.delete(link.index).await?;
    }
    let (link, created) = netlink.create_vxlan(&spec).await?;
    Ok((Overlay { conf, link }, created))
}

impl Overlay {
    /// The peer as the fast path needs it.
    pub(super) fn entry(&self, peer: &PeerConf) -> Peer {
        Peer {
            node: peer.node.into(),
            ifindex: self.link.index,
            mtu: self.link.mtu,
            vni: self.conf.vni,
            mac: abi::Mac(overlay_mac(peer.node).0),
            source: abi::Mac(self.link.mac.map_or([0; 6], |mac| mac.0)),
        }
    }

    /// The peer as the slow path needs it.
    pub(super) fn route(&self, peer: &PeerConf) -> Route {
        let tunnel = Tunnel {
            id: self.conf.vni,
            node: peer.node,
        };
        Route {
            protocol: PROTOCOL,
            ..Route::overlay(peer.cidr, tunnel, self.link.index)
        }
    }

    /// What the slow path must know to write the peer's MAC.
    pub(super) fn neighbour(&self, peer: &PeerConf) -> Neighbour {
        Neighbour {
            ip: overlay_hop(peer.cidr, peer.node),
            mac: overlay_mac(peer.node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(name("pods").len(), 11);
        assert_ne!(name("pods"), name("others"));
    }

    #[test]
    fn the_overhead_is_the_known_one() {
        assert_eq!((overhead(true), overhead(false)), (50, 70));
    }
}
