//! The layout of the pinned maps.
//!
//! Programs and user space of different builds meet in these maps: whoever changes a name, key or value raises
//! [`ABI_VERSION`]. Everything is a multiple of its alignment and has no hidden padding, as the kernel compares keys
//! byte by byte.

use crate::{Address, Mac};

/// The version of everything in this module; part of the path of the pins.
pub const ABI_VERSION: u32 = 2;

/// Map names, as the kernel and the pins have them (at most 15 characters).
pub mod names {
    /// HASH, [`Address`](crate::Address) → [`Pod`](crate::Pod): the pods of this node.
    pub const PODS: &str = "PODS";
    /// HASH, [`Cidr`](crate::Cidr) → [`Peer`](crate::Peer): the pod CIDRs of other nodes.
    pub const PEERS: &str = "PEERS";
    /// HASH, interface index → [`Port`](crate::Port): the host veths, whoever their pods say they are.
    pub const PORTS: &str = "PORTS";
    /// ARRAY, [`Family`](crate::Family) → [`PrefixTable`](crate::PrefixTable): the prefix lengths in `PEERS`.
    pub const PREFIXES: &str = "PREFIXES";
    /// LRU_HASH, [`Flow`](crate::Flow) → 0: what the stack delivered or sent and has not been answered over TCP.
    pub const STACK_FLOWS: &str = "STACK_FLOWS";
    /// LRU_HASH, [`Flow`](crate::Flow) → [`sticky`](crate::sticky) bits: TCP connections through the stack.
    pub const STACK_CONNS: &str = "STACK_CONNS";
    /// PERCPU_ARRAY, [`stats::index`](crate::stats::index) → [`Count`](crate::Count).
    pub const STATS: &str = "STATS";
    /// PERF_EVENT_ARRAY, CPU → [`Event`](crate::Event) and bytes of the packet. Not pinned: each load has its own, and
    /// without a reader it holds nothing.
    pub const EVENTS: &str = "EVENTS";
}

/// The most pods that a node can have on the fast path; a bridge has 1,023 ports, a pod may have several addresses.
pub const MAX_PODS: u32 = 16_384;

/// The most peer CIDRs.
pub const MAX_PEERS: u32 = 65_536;

/// The most different prefix lengths that the peer CIDRs of one family can have.
pub const MAX_PREFIXES: usize = 8;

/// The priority of our classic filters that redirect: behind those that people number, and those that the kernel does,
/// which counts down from 49,152 or from the lowest that is there above 32,767.
pub const FILTER_PRIORITY: u16 = 0xfffe;

/// The priority of our classic filters that look on: before those of others.
pub const OBSERVER_FILTER_PRIORITY: u16 = 0xbe;

/// The handle of our classic filters.
pub const FILTER_HANDLE: u32 = 0xbee1;

/// The fewest flows that each of the maps of flows holds.
pub const MIN_FLOWS: u32 = 1_024;

/// The most flows that each of the maps of flows holds.
pub const MAX_FLOWS: u32 = 1 << 20;

/// Read-only globals of the object: what a node does not use is not in its programs.
pub mod globals {
    /// `u8`, 0 or 1: what a pod forges is dropped.
    pub const ANTI_SPOOF: &str = "ANTI_SPOOF";
    /// `u32`: the VNI of the overlay; 0 if there is none.
    pub const VNI: &str = "VNI";
    /// `u32`: how many bytes of each packet go to `EVENTS`, up to [`MAX_CAPTURED`](super::MAX_CAPTURED); 0 if nobody
    /// monitors.
    pub const MONITOR: &str = "MONITOR";
}

/// The mark of packets between the program that redirects them and the one that sees them leave, so that these are not
/// taken for the stack's. It is on no packet anywhere else.
pub const REDIRECTED: u32 = 0xbee1_1e55;

/// Value of `PODS`: where a pod of this node is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The host veth's interface index.
    pub ifindex: u32,
    /// [`Pod::SLOW`] and [`Pod::ISOLATED`].
    pub flags: u32,
    /// The container veth's address.
    pub mac: Mac,
    /// The bridge's address, to which the pod sends what the node shall route.
    pub gateway: Mac,
}

const _: () = assert!(size_of::<Pod>() == 20);

impl Pod {
    /// All that the pod sends and receives takes the stack: something in its way must see every packet.
    pub const SLOW: u32 = 1;
    /// The pod exchanges no packets with others of its kind on the same bridge.
    pub const ISOLATED: u32 = 2;

    /// Whether the flag is set.
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Value of `PORTS`: a host veth.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The container veth's address.
    pub mac: Mac,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Port>() == 8);

/// Key of `PEERS`: a destination CIDR.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The network's address, host bits clear.
    pub address: Address,
    /// Prefix length in bits of the 16-byte address: 96 more than an IPv4 CIDR says.
    pub length: u64,
}

const _: () = assert!(size_of::<Cidr>() == 24);

/// Value of `PEERS`: the node behind a CIDR.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node's address: on the uplink's link, or where its end of the overlay is.
    pub node: Address,
    /// The interface index of the uplink, or of the overlay's device.
    pub ifindex: u32,
    /// That interface's MTU in bytes.
    pub mtu: u32,
    /// The overlay's network identifier (RFC 7348); 0 if the peer is reached natively.
    pub vni: u32,
    /// The address of the peer's overlay device.
    pub mac: Mac,
    /// The address of this node's overlay device.
    pub source: Mac,
}

const _: () = assert!(size_of::<Peer>() == 40);

/// One prefix length that some peer's CIDR has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// [`Address::mask`] of the length.
    pub mask: Address,
    /// The length in bits, as in [`Cidr::length`]; 0 ends the table.
    pub length: u64,
}

const _: () = assert!(size_of::<Prefix>() == 24);

/// Value of `PREFIXES`: the prefix lengths in use in one family, longest first.
///
/// A lookup in `PEERS` probes each length once, which in practice is one probe, however many peers there are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixTable {
    /// The lengths, ended by one of length 0 unless full.
    pub prefixes: [Prefix; MAX_PREFIXES],
}

const _: () = assert!(size_of::<PrefixTable>() == 192);

impl PrefixTable {
    /// A table of no lengths.
    pub const EMPTY: Self = Self {
        prefixes: [Prefix {
            mask: Address::mask(0),
            length: 0,
        }; MAX_PREFIXES],
    };
}

/// The most bytes of a packet that an event carries: the kernel counts a record's length in 16 bits.
pub const MAX_CAPTURED: u32 = 0xff00;

/// How many of its first bytes a packet brings along as they were: those that the programs may change, up to the
/// checksum of an IPv4 header.
pub const HEAD: usize = 32;

/// What the programs tell of a packet while somebody monitors; bytes of the packet follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The interface that the program is attached to.
    pub ifindex: u32,
    /// The interface that the packet was redirected to; 0 if it was not.
    pub target: u32,
    /// The packet's length in bytes, with its Ethernet header.
    pub length: u32,
    /// How many bytes of the packet follow: as it goes on, not as it came.
    pub captured: u32,
    /// [`Hook`](crate::Hook).
    pub hook: u16,
    /// [`Outcome::number`](crate::Outcome::number).
    pub outcome: u16,
    /// 1 if `head` is the start of the packet as it came; 0 if that is too short to be changed.
    pub has_head: u32,
    /// The start of the packet as it came.
    pub head: [u8; HEAD],
}

const _: () = assert!(size_of::<Event>() == 64);

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya asks for a promise of each type in a map")]
mod user {
    use super::{Cidr, Event, Peer, Pod, Port, PrefixTable};
    use crate::{Address, Count, Flow};

    // SAFETY: `repr(C)`, `Copy`, without padding (the size asserts) and valid for any bits.
    unsafe impl aya::Pod for Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Cidr {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Count {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Peer {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Pod {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Port {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PrefixTable {}
}
