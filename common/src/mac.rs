//! Ethernet addresses.

use crate::packet::part;

/// An Ethernet address, in the order of the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct Mac(pub [u8; 6]);

/// Compared as a word and a half-word: on arrays LLVM calls `bcmp`, which is a loop in BPF.
impl PartialEq for Mac {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Mac {
    #[inline(always)]
    const fn parts(&self) -> MacParts {
        MacParts(
            u32::from_ne_bytes(part(&self.0, 0)),
            u16::from_ne_bytes(part(&self.0, 4)),
        )
    }
}

/// An Ethernet address in registers: as six bytes LLVM would put it on the stack, at an odd place that the verifier
/// refuses ("misaligned stack access").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacParts(u32, u16);

impl From<[u8; 6]> for MacParts {
    #[inline(always)]
    fn from(bytes: [u8; 6]) -> Self {
        Mac(bytes).parts()
    }
}

impl PartialEq<Mac> for MacParts {
    #[inline(always)]
    fn eq(&self, mac: &Mac) -> bool {
        *self == mac.parts()
    }
}
