//! The maps, laid out by `beeline_common::abi`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use beeline_common::{
    Address, Cidr, Count, Family, Hook, Maps, Outcome, Peer, Pod, PrefixTable, abi, stats,
};

#[map]
static PODS: HashMap<Address, Pod> = HashMap::pinned(abi::MAX_PODS, BPF_F_NO_PREALLOC);

#[map]
static PEERS: HashMap<Cidr, Peer> = HashMap::pinned(abi::MAX_PEERS, BPF_F_NO_PREALLOC);

#[map]
static PREFIXES: Array<PrefixTable> = Array::pinned(2, 0);

#[map]
static STATS: PerCpuArray<Count> = PerCpuArray::pinned(stats::HOOKS * stats::OUTCOMES, 0);

/// The maps as the packet logic sees them.
pub(crate) struct KernelMaps;

impl Maps for KernelMaps {
    #[inline(always)]
    fn pod(&self, address: &Address) -> Option<Pod> {
        // SAFETY: an entry that is replaced meanwhile is freed only after the program has ended (RCU); user space
        // replaces whole entries.
        unsafe { PODS.get(address) }.copied()
    }

    #[inline(always)]
    fn prefixes(&self, family: Family) -> Option<&PrefixTable> {
        PREFIXES.get(family as u32)
    }

    #[inline(always)]
    fn peer(&self, cidr: &Cidr) -> Option<Peer> {
        // SAFETY: as for `PODS`.
        unsafe { PEERS.get(cidr) }.copied()
    }
}

/// Counts a packet of `bytes` bytes.
#[inline(always)]
pub(crate) fn count(hook: Hook, outcome: Outcome, bytes: u32) {
    if let Some(count) = STATS.get_ptr_mut(stats::index(hook, outcome)) {
        // SAFETY: the entry is this CPU's own, and a tc program is not interrupted by another on its CPU.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += u64::from(bytes);
    }
}
