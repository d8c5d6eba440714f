//! The layout of the pinned maps.
//!
//! Programs and user space of different builds meet in these maps: whoever changes a name, key or value raises
//! [`ABI_VERSION`]. Everything is a multiple of its alignment and has no hidden padding, as the kernel compares keys
//! byte by byte.

use crate::{Address, Mac};

/// The version of everything in this module; part of the path of the pins.
pub const ABI_VERSION: u32 = 1;

/// Map names, as the kernel and the pins have them (at most 15 characters).
pub mod names {
    /// HASH, [`Address`](crate::Address) → [`Pod`](crate::Pod): the pods of this node.
    pub const PODS: &str = "PODS";
    /// HASH, [`Cidr`](crate::Cidr) → [`Peer`](crate::Peer): the pod CIDRs of other nodes.
    pub const PEERS: &str = "PEERS";
    /// ARRAY, [`Family`](crate::Family) → [`PrefixTable`](crate::PrefixTable): the prefix lengths in `PEERS`.
    pub const PREFIXES: &str = "PREFIXES";
    /// PERCPU_ARRAY, [`stats::index`](crate::stats::index) → [`Count`](crate::Count).
    pub const STATS: &str = "STATS";
}

/// The most pods that a node can have on the fast path; a bridge has 1,023 ports, a pod may have several addresses.
pub const MAX_PODS: u32 = 16_384;

/// The most peer CIDRs.
pub const MAX_PEERS: u32 = 65_536;

/// The most different prefix lengths that the peer CIDRs of one family can have.
pub const MAX_PREFIXES: usize = 8;

/// Value of `PODS`: where a pod of this node is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The host veth's interface index.
    pub ifindex: u32,
    /// The container veth's address.
    pub mac: Mac,
    /// The bridge's address, to which the pod sends what the node shall route.
    pub gateway: Mac,
}

const _: () = assert!(size_of::<Pod>() == 16);

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
    /// The node's address on the link.
    pub node: Address,
    /// The uplink's interface index.
    pub ifindex: u32,
    /// The uplink's MTU in bytes.
    pub mtu: u32,
}

const _: () = assert!(size_of::<Peer>() == 24);

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

#[cfg(feature = "user")]
mod user {
    use super::{Cidr, Peer, Pod, PrefixTable};
    use crate::{Address, Count};

    // SAFETY: `repr(C)`, `Copy`, without padding (the size asserts) and valid for any bits.
    unsafe impl aya::Pod for Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Cidr {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Count {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Peer {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Pod {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PrefixTable {}
}
