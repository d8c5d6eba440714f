//! From a configuration to what it asks of the node.

use ipnetwork::IpNetwork;

use super::NetConf;
use crate::{
    ipam::{AttachmentId, IpamConf},
    node::{BridgePlan, Plan},
};

/// What the pods of the configured network share on this node. The addresses of external IPAM are known only once it
/// gave them, hence no pod CIDRs then.
pub(super) fn plan(conf: &NetConf, host_local: Option<&IpamConf>) -> Plan {
    let pod_cidrs = host_local.map(IpamConf::subnets).unwrap_or_default();
    Plan {
        network: conf.name.clone(),
        bridge: BridgePlan {
            name: conf.bridge.clone(),
            mtu: conf.mtu.map(u32::from),
            promiscuous: conf.promisc_mode,
            gateway: conf.is_gateway,
            vlans: conf.vlans.clone(),
        },
        pod_cidrs,
        masquerade: conf.ip_masq && conf.ipam.is_some(),
        datapath: conf.datapath.clone(),
    }
}

/// The host veth's name: `veth` and eleven hexadecimal digits, the most that fit. It is the same for each call about an
/// attachment, by whatever build, so that DEL finds it without having been told.
pub(super) fn host_veth_name(network: &str, id: &AttachmentId) -> String {
    const DIGITS: u64 = 0xfff_ffff_ffff;
    let parts = [network, &id.container_id, &id.ifname].map(str::as_bytes);
    format!("veth{:011x}", fnv1a(&parts.join(&0)) & DIGITS)
}

/// The 64-bit FNV-1a hash (RFC 9923); the standard library's hashes may change with the compiler.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The addresses that lie outside the plan's pod CIDRs.
pub(super) fn outside(plan: &Plan, addresses: &[IpNetwork]) -> Vec<IpNetwork> {
    let outside = addresses.iter().filter(|address| !plan.holds(address.ip()));
    outside.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn host_veths_of_different_attachments_have_different_names_that_fit() {
        let name = |network, container, ifname| {
            host_veth_name(network, &AttachmentId::new(container, ifname))
        };
        let names = [
            name("net", "c1", "eth0"),
            name("net", "c1", "eth1"),
            name("net", "c1e", "th0"),
            name("other", "c1", "eth0"),
        ];
        for (index, one) in names.iter().enumerate() {
            assert_eq!(one.len(), 15);
            assert!(!names[..index].contains(one));
        }
    }
}
