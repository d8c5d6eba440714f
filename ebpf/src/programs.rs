//! The entry points: one program a hook.

use aya_ebpf::{Global, macros::classifier, programs::TcContext};
use beeline_common::{Features, Hook, forward};

use crate::{maps::KernelMaps, monitor, skb::Skb};

/// `globals::ANTI_SPOOF`.
#[unsafe(no_mangle)]
static ANTI_SPOOF: Global<u8> = Global::new(0);

/// `globals::VNI`.
#[unsafe(no_mangle)]
static VNI: Global<u32> = Global::new(0);

/// What this load of the object is for; the verifier knows the values, and removes what they rule out.
#[inline(always)]
fn features() -> Features {
    Features {
        anti_spoof: ANTI_SPOOF.load() != 0,
        vni: VNI.load(),
    }
}

/// Runs at tc ingress of a host veth: everything the pod sends.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    monitor::look(&skb);
    let ifindex = skb.ifindex();
    let verdict = forward::from_pod(&mut skb, &KernelMaps, features(), ifindex);
    skb.carry_out(Hook::FromPod, verdict)
}

/// Runs at tc ingress of an uplink: everything that comes from other nodes.
#[classifier]
pub(crate) fn from_uplink(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    monitor::look(&skb);
    let verdict = forward::from_uplink(&mut skb, &KernelMaps);
    skb.carry_out(Hook::FromUplink, verdict)
}

/// Runs at tc ingress of the overlay's device: everything that comes from other nodes by it.
#[classifier]
pub(crate) fn from_overlay(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    monitor::look(&skb);
    let verdict = forward::from_overlay(&mut skb, &KernelMaps, features());
    skb.carry_out(Hook::FromOverlay, verdict)
}

/// Runs at tc egress of a host veth: everything the stack delivers to the pod.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    let skb = Skb(&ctx);
    monitor::look(&skb);
    let verdict = forward::to_pod(&skb, &KernelMaps);
    skb.carry_out(Hook::ToPod, verdict)
}

/// Runs at tc egress of an uplink and of the overlay's device: everything that leaves the node there.
#[classifier]
pub(crate) fn to_uplink(ctx: TcContext) -> i32 {
    let mut skb = Skb(&ctx);
    monitor::look(&skb);
    let verdict = forward::to_uplink(&mut skb, &KernelMaps);
    skb.carry_out(Hook::ToUplink, verdict)
}
