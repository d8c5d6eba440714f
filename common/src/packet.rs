//! How packet logic reaches a packet.

/// The packet ends before the bytes asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

/// A packet at a tc hook, from its Ethernet header on.
pub trait Packet {
    /// Copies `N` bytes at `offset`.
    fn load<const N: usize>(&self, offset: usize) -> Result<[u8; N], TooShort>;

    /// Overwrites `N` bytes at `offset`. A checksum that the device took of the packet follows a change behind the
    /// Ethernet header; the checksums inside the packet do not.
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Result<(), TooShort>;

    /// The frame's length in bytes, from its Ethernet header on.
    fn length(&self) -> u32;

    /// The length of each transport payload that the packet will be cut into on the wire (GSO), in bytes; 0 if it
    /// goes out as it is.
    fn segment_size(&self) -> u32;

    /// Whether a VLAN tag travels beside the packet.
    fn is_tagged(&self) -> bool;

    /// Whether the frame is addressed to the interface that received it (`PACKET_HOST`).
    fn is_for_host(&self) -> bool;

    /// The network identifier of the overlay that the packet came out of, if it came out of one.
    fn vni(&self) -> Option<u32>;

    /// Whether a program of ours sends the packet here; the answer takes its mark ([`REDIRECTED`](crate::abi::REDIRECTED))
    /// away.
    fn take_redirected(&mut self) -> bool;
}

/// The `N` bytes at `offset`, which must be within.
///
/// Taken out so, and not one by one, they stay together: LLVM does not join bytes again that it has once taken apart.
#[inline(always)]
pub(crate) const fn part<const N: usize, const M: usize>(
    bytes: &[u8; M],
    offset: usize,
) -> [u8; N] {
    // All callers' offsets are constants: nothing of this is left in the program.
    match bytes.split_at(offset).1.first_chunk() {
        Some(part) => *part,
        None => [0; N],
    }
}
