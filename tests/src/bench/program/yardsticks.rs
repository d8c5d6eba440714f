//! Programs that the datapath's are held against: one that does nothing, and the one that a first attempt would be.

use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use beeline_common::Pod;

use super::bytecode::{Assembler, If, Register::*, Width};

/// Passes on, as a program that leaves the packet to the stack does.
const TC_ACT_UNSPEC: i32 = -1;

/// Helpers (`linux/bpf.h`).
const MAP_LOOKUP_ELEM: i32 = 1;
const SKB_STORE_BYTES: i32 = 9;
const REDIRECT_PEER: i32 = 155;

/// Offsets of `data` and `data_end` in `struct __sk_buff`.
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

/// Offsets of a frame, whose IPv4 header has no options.
const ETHER_TYPE: i16 = 12;
const DESTINATION: i16 = 14 + 16;
const HEADERS: i32 = 14 + 20;

const ETHERTYPE_V4: u16 = 0x0800;

/// Where the key, an `Address`, is on the stack: an IPv4 address behind twelve bytes that say so.
const KEY: i16 = -16;
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

/// Both of a frame's addresses, which are those of a `Pod` in its order.
const MACS: i32 = 12;
const _: () = assert!(offset_of!(Pod, gateway) == offset_of!(Pod, mac) + 6);

/// Loads the program that does nothing: what running any program costs.
pub(super) fn empty() -> Result<OwnedFd> {
    let program = Assembler::default().exit(TC_ACT_UNSPEC);
    program.load_program().context("empty program")
}

/// Loads the program that a first attempt would be: it sends an IPv4 packet to the pod that has the destination, and
/// asks for nothing else.
pub(super) fn naive(pods: BorrowedFd<'_>) -> Result<OwnedFd> {
    let program = Assembler::default()
        .copy(R6, R1)
        // Is it IPv4?
        .load(Width::Word, R2, R6, SKB_DATA)
        .load(Width::Word, R3, R6, SKB_DATA_END)
        .copy(R4, R2)
        .add(R4, HEADERS)
        .exit_if_register(R4, If::Greater, R3)
        .load(Width::Half, R5, R2, ETHER_TYPE)
        .exit_if(R5, If::NotEqual, ETHERTYPE_V4.to_be().into())
        // Whose is the destination?
        .load(Width::Word, R5, R2, DESTINATION)
        .store_value(Width::Double, R10, KEY, 0)
        .store_value(Width::Word, R10, KEY + 8, i32::from_ne_bytes(MAPPED))
        .store(Width::Word, R10, KEY + 12, R5)
        .map(R1, pods)
        .copy(R2, R10)
        .add(R2, KEY.into())
        .call(MAP_LOOKUP_ELEM)
        .exit_if(R0, If::Equal, 0)
        .load(Width::Word, R7, R0, offset_of!(Pod, ifindex) as i16)
        // To the pod, from the gateway.
        .copy(R1, R6)
        .set(R2, 0)
        .copy(R3, R0)
        .add(R3, offset_of!(Pod, mac) as i32)
        .set(R4, MACS)
        .set(R5, 0)
        .call(SKB_STORE_BYTES)
        .copy(R1, R7)
        .set(R2, 0)
        .call(REDIRECT_PEER)
        .end()
        .exit(TC_ACT_UNSPEC);
    program.load_program().context("naive program")
}
