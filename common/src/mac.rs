//! Ethernet addresses.

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
    const fn parts(&self) -> (u32, u16) {
        let [a, b, c, d, e, f] = self.0;
        (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
    }
}
