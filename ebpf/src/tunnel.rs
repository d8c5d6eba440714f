//! The overlay: what a packet carries beside its bytes into and out of a vxlan device in collect-metadata mode.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
};
use beeline_common::{Address, Family};

use crate::{
    aligned::{Shifted, word},
    skb::Skb,
};

/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// Without the local address, which Linux 6.0 added (commit 26101f5ab6bd): all kernels take this length.
const KEY_LENGTH: u32 = offset_of!(bpf_tunnel_key, __bindgen_anon_3) as u32;

/// As `bpf_tunnel_key` without the local address: identifier, remote address, then what is left to the node's defaults.
type Key = Shifted<4>;

const _: () = assert!(KEY_LENGTH == 28);

/// The identifier that the packet came with, if it came out of a tunnel.
#[inline(always)]
pub(crate) fn vni(skb: &Skb<'_>) -> Option<u32> {
    let mut key = key(0, &Address::from_v4([0; 4]));
    // The helper insists on the family that the tunnel has.
    for flags in [0, BPF_F_TUNINFO_IPV6] {
        // SAFETY: the key is at least as long as is passed, and outlives the call.
        let failed =
            unsafe { bpf_skb_get_tunnel_key(skb.raw(), key.start(), KEY_LENGTH, u64::from(flags)) };
        if failed == 0 {
            let [_, _, _, _, a, b, c, d] = key.0[0].to_ne_bytes();
            return Some(u32::from_ne_bytes([a, b, c, d]));
        }
    }
    None
}

/// Sends the packet through the tunnel device of `ifindex` to the node.
#[inline(always)]
pub(crate) fn redirect(skb: &Skb<'_>, ifindex: u32, node: &Address, vni: u32) -> i32 {
    let mut key = key(vni, node);
    let flags = match node.family() {
        // The inner checksums do; with an outer one, NAT and offloads have failed others (flannel issue 1282).
        Family::V4 => BPF_F_ZERO_CSUM_TX,
        Family::V6 => BPF_F_TUNINFO_IPV6,
    };
    // SAFETY: as in `vni`.
    let failed =
        unsafe { bpf_skb_set_tunnel_key(skb.raw(), key.start(), KEY_LENGTH, u64::from(flags)) };
    if failed != 0 {
        // Without memory for the key the packet would leave without one.
        return DROP;
    }
    // SAFETY: no pointers are passed.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

#[inline(always)]
const fn key(vni: u32, node: &Address) -> Key {
    let [first, second] = match node.family() {
        // In the host's order, unlike IPv6.
        Family::V4 => [word(u32::from_be_bytes(node.v4_octets()), 0), 0],
        Family::V6 => node.words(),
    };
    Shifted([word(0, vni), first, second, 0])
}
