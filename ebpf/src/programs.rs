//! The entry points: one program a hook.

use aya_ebpf::{macros::classifier, programs::TcContext};
use beeline_common::{Hook, forward};

use crate::{maps::KernelMaps, skb::Skb};

/// Runs at tc ingress of a host veth: everything the pod sends.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    let ifindex = skb.ifindex();
    let verdict = forward::from_pod(&mut skb, &KernelMaps, ifindex);
    skb.carry_out(Hook::FromPod, verdict)
}

/// Runs at tc ingress of an uplink: everything that comes from other nodes.
#[classifier]
pub(crate) fn from_uplink(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    let verdict = forward::from_uplink(&mut skb, &KernelMaps);
    skb.carry_out(Hook::FromUplink, verdict)
}
