//! The Ethernet header.

use crate::{Mac, Packet, Pass, TooShort, mac::MacParts, packet::part};

/// The parts of the Ethernet header that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Who shall receive the frame.
    pub destination: MacParts,
    /// Who sends it.
    pub source: MacParts,
    /// What it carries.
    pub kind: u16,
}

impl Ethernet {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// A tagged frame, or one that is cut off.
    #[inline(always)]
    pub fn load<P: Packet>(packet: &P) -> Result<Self, Pass> {
        if packet.is_tagged() {
            return Err(Pass::Tagged);
        }
        let bytes: [u8; 14] = packet.load(0)?;
        Ok(Self {
            destination: part(&bytes, 0).into(),
            source: part(&bytes, 6).into(),
            kind: u16::from_be_bytes(part(&bytes, 12)),
        })
    }

    /// Writes other addresses.
    #[inline(always)]
    pub fn readdress<P: Packet>(
        packet: &mut P,
        destination: Mac,
        source: Mac,
    ) -> Result<(), TooShort> {
        let [a, b, c, d, e, f] = destination.0;
        let [g, h, i, j, k, l] = source.0;
        packet.store(0, [a, b, c, d, e, f, g, h, i, j, k, l])
    }
}
