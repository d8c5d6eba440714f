//! A packet in memory.

use std::vec::Vec;

use crate::{Mac, Packet, TooShort};

/// A frame, and what the kernel knows of it beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame from its Ethernet header on.
    pub bytes: Vec<u8>,
    /// [`Packet::segment_size`].
    pub segment_size: u32,
    /// [`Packet::is_tagged`].
    pub tagged: bool,
    /// [`Packet::is_for_host`].
    pub for_host: bool,
    /// [`Packet::vni`].
    pub vni: Option<u32>,
    /// [`Packet::take_redirected`].
    pub redirected: bool,
}

impl Frame {
    /// A frame without a tag that goes out as it is, addressed to the interface that received it.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            segment_size: 0,
            tagged: false,
            for_host: true,
            vni: None,
            redirected: false,
        }
    }

    /// The frame as an aggregate of segments with `size` bytes of payload.
    pub fn segmented(mut self, size: u32) -> Self {
        self.segment_size = size;
        self
    }

    /// The frame with a VLAN tag beside it.
    pub fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// The frame as an interface receives it that does not have its address.
    pub fn for_somebody_else(mut self) -> Self {
        self.for_host = false;
        self
    }

    /// The frame as it comes out of an overlay.
    pub const fn tunnelled(mut self, vni: u32) -> Self {
        self.vni = Some(vni);
        self
    }

    /// The frame as a program of ours sends it.
    pub const fn redirected(mut self) -> Self {
        self.redirected = true;
        self
    }

    /// The frame with `bytes` written at `offset`.
    pub fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The frame's first `length` bytes.
    pub fn truncated(mut self, length: usize) -> Self {
        self.bytes.truncate(length);
        self
    }

    /// Who is to receive the frame; `None` if it is cut off.
    pub fn destination(&self) -> Option<Mac> {
        self.bytes.first_chunk().copied().map(Mac)
    }
}

impl Packet for Frame {
    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn load<const N: usize>(&self, offset: usize) -> Result<[u8; N], TooShort> {
        let bytes = self.bytes.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or(TooShort)
    }

    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Result<(), TooShort> {
        let rest = self.bytes.get_mut(offset..).ok_or(TooShort)?;
        *rest.first_chunk_mut().ok_or(TooShort)? = bytes;
        Ok(())
    }

    fn segment_size(&self) -> u32 {
        self.segment_size
    }

    fn is_tagged(&self) -> bool {
        self.tagged
    }

    fn is_for_host(&self) -> bool {
        self.for_host
    }

    fn vni(&self) -> Option<u32> {
        self.vni
    }

    fn take_redirected(&mut self) -> bool {
        core::mem::take(&mut self.redirected)
    }
}
