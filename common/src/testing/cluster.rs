//! A small cluster, seen from one of its nodes.
//!
//! ```text
//! CLIENT, SERVER, THIRD ── bridge (GATEWAY) ┬ UPLINK ── PEER    10.244.2.0/24    fd00:244:2::/64
//!                                           │        └─ SUBPEER 10.244.2.128/25  fd00:244:2:0:8000::/65
//!                                           └ OVERLAY ─ FAR     10.244.9.0/24    fd00:244:9::/64
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::HostMaps;
use crate::{Address, Features, Mac, Peer, Pod};

/// A pod of this node.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    /// The host veth's interface index.
    pub ifindex: u32,
    /// The container veth's address.
    pub mac: Mac,
    /// The pod's IPv4 address.
    pub v4: Ipv4Addr,
    /// The pod's IPv6 address.
    pub v6: Ipv6Addr,
}

/// Another node, with a pod of its.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The node's IPv4 address.
    pub v4: Ipv4Addr,
    /// The node's IPv6 address.
    pub v6: Ipv6Addr,
    /// The IPv4 address of one of its pods.
    pub pod_v4: Ipv4Addr,
    /// The IPv6 address of one of its pods.
    pub pod_v6: Ipv6Addr,
}

const fn attached(number: u8) -> Attached {
    Attached {
        ifindex: 10 + number as u32,
        mac: Mac([0x0a, 0x58, 10, 244, 1, number]),
        v4: Ipv4Addr::new(10, 244, 1, number),
        v6: Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, number as u16),
    }
}

/// The pod that most packets come from.
pub const CLIENT: Attached = attached(2);
/// The pod that most packets go to.
pub const SERVER: Attached = attached(3);
/// A third pod of the node.
pub const THIRD: Attached = attached(4);

/// The bridge's address.
pub const GATEWAY: Mac = Mac([0x0a, 0x58, 0xc0, 0xff, 0xee, 1]);
/// The uplink's interface index.
pub const UPLINK: u32 = 21;
/// The uplink's address.
pub const UPLINK_MAC: Mac = Mac([0x02, 0, 192, 168, 1, 11]);

/// The node that has the wider CIDRs.
pub const PEER: Node = Node {
    v4: Ipv4Addr::new(192, 168, 1, 12),
    v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 12),
    pod_v4: Ipv4Addr::new(10, 244, 2, 5),
    pod_v6: Ipv6Addr::new(0xfd00, 0x244, 2, 0, 0, 0, 0, 5),
};

/// The node that has the upper halves of those of [`PEER`].
pub const SUBPEER: Node = Node {
    v4: Ipv4Addr::new(192, 168, 1, 13),
    v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 13),
    pod_v4: Ipv4Addr::new(10, 244, 2, 200),
    pod_v6: Ipv6Addr::new(0xfd00, 0x244, 2, 0, 0x8000, 0, 0, 5),
};

/// The overlay device's interface index.
pub const OVERLAY: u32 = 22;
/// The overlay device's address.
pub const OVERLAY_MAC: Mac = Mac([0x02, 0xbe, 192, 168, 1, 11]);
/// The overlay's network identifier.
pub const VNI: u32 = 7;

/// The node that only the overlay reaches.
pub const FAR: Node = Node {
    v4: Ipv4Addr::new(192, 168, 9, 19),
    v6: Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 19),
    pod_v4: Ipv4Addr::new(10, 244, 9, 5),
    pod_v6: Ipv6Addr::new(0xfd00, 0x244, 9, 0, 0, 0, 0, 5),
};
/// The address of the overlay device of [`FAR`].
pub const FAR_MAC: Mac = Mac([0x02, 0xbe, 192, 168, 9, 19]);

/// A host that is no pod, and in no peer's CIDR; its node addresses are the routers to it.
pub const STRANGER: Node = Node {
    v4: Ipv4Addr::new(192, 168, 1, 1),
    v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1),
    pod_v4: Ipv4Addr::new(203, 0, 113, 9),
    pod_v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9),
};

/// The maps of the node; its uplink has an MTU of 1500.
pub fn cluster() -> HostMaps {
    let mut maps = HostMaps::default();
    for pod in [CLIENT, SERVER, THIRD] {
        let value = Pod {
            ifindex: pod.ifindex,
            flags: 0,
            mac: pod.mac,
            gateway: GATEWAY,
        };
        maps.add_pod(pod.v4, value);
        maps.add_pod(pod.v6, value);
    }
    for (node, v4_length, v6_length) in [(PEER, 24, 64), (SUBPEER, 25, 65)] {
        maps.add_peer(node.pod_v4, v4_length, peer(node.v4));
        maps.add_peer(node.pod_v6, v6_length, peer(node.v6));
    }
    let far = |node: IpAddr| Peer {
        ifindex: OVERLAY,
        mtu: 1450,
        vni: VNI,
        mac: FAR_MAC,
        source: OVERLAY_MAC,
        ..peer(node)
    };
    maps.add_peer(FAR.pod_v4, 24, far(FAR.v4.into()));
    maps.add_peer(FAR.pod_v6, 64, far(FAR.v6.into()));
    maps
}

/// What the node uses: everything.
pub const FEATURES: Features = Features {
    anti_spoof: true,
    vni: VNI,
};

fn peer(node: impl Into<IpAddr>) -> Peer {
    Peer {
        node: Address::from(node.into()),
        ifindex: UPLINK,
        mtu: 1500,
        vni: 0,
        mac: Mac::default(),
        source: Mac::default(),
    }
}
