//! Arguments of helpers that are made on the stack, word by word.

/// A structure of the kernel's that begins with four bytes which addresses follow: behind four bytes that are not its
/// own, the addresses are aligned.
///
/// VERIFIER: words on the stack are aligned. Of the structures as bindgen has them, which are aligned to four bytes,
/// LLVM writes two fields as one word wherever they are ("misaligned stack access").
pub(crate) struct Shifted<const N: usize>(pub(crate) [u64; N]);

impl<const N: usize> Shifted<N> {
    /// Where the kernel's structure begins.
    #[inline(always)]
    pub(crate) const fn start<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast::<u32>().wrapping_add(1).cast()
    }
}

/// Two halves as the word that has them in this order in memory.
#[inline(always)]
pub(crate) const fn word(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
