//! The maps, laid out by `beeline_common::abi`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use beeline_common::{
    Address, Cidr, Count, Family, Flow, Hook, Maps, Outcome, Peer, Pod, Port, PrefixTable, Table,
    abi, stats,
};

#[map]
static PODS: HashMap<Address, Pod> = HashMap::pinned(abi::MAX_PODS, BPF_F_NO_PREALLOC);

#[map]
static PORTS: HashMap<u32, Port> = HashMap::pinned(abi::MAX_PODS, BPF_F_NO_PREALLOC);

#[map]
static PEERS: HashMap<Cidr, Peer> = HashMap::pinned(abi::MAX_PEERS, BPF_F_NO_PREALLOC);

#[map]
static PREFIXES: Array<PrefixTable> = Array::pinned(2, 0);

/// The loader sets how many it holds.
#[map]
static STACK_FLOWS: LruHashMap<Flow, u32> = LruHashMap::pinned(abi::MIN_FLOWS, 0);

/// The loader sets how many it holds.
#[map]
static STACK_CONNS: LruHashMap<Flow, u32> = LruHashMap::pinned(abi::MIN_FLOWS, 0);

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
    fn port(&self, ifindex: u32) -> Option<Port> {
        // SAFETY: as for `PODS`.
        unsafe { PORTS.get(ifindex) }.copied()
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

    #[inline(always)]
    fn flow(&self, table: Table, flow: &Flow) -> Option<u32> {
        // SAFETY: a word, whole whenever it is read; an entry that is pushed out and used anew meanwhile is of
        // another flow, which costs this packet the path that the other flow has.
        unsafe { flows(table).get(flow) }.copied()
    }

    #[inline(always)]
    fn remember(&self, table: Table, flow: &Flow, value: u32) {
        // Fails only if other CPUs hold every entry that could make room at this moment; the next packet tries again.
        let _ = flows(table).insert(flow, value, 0);
    }

    #[inline(always)]
    fn forget(&self, table: Table, flow: &Flow) {
        // Already gone is as good.
        let _ = flows(table).remove(flow);
    }
}

#[inline(always)]
const fn flows(table: Table) -> &'static LruHashMap<Flow, u32> {
    match table {
        Table::Flows => &STACK_FLOWS,
        Table::Conns => &STACK_CONNS,
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
