//! A program that does nothing: what running any program costs.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// The first members of `union bpf_attr` for the command; the kernel takes the others for 0.
#[repr(C)]
struct Attributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
}

/// `r0 = -1; exit`: passes on, as a program that leaves the packet to the stack does.
const INSTRUCTIONS: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

/// Loads the program.
pub(super) fn load() -> Result<OwnedFd> {
    let attributes = Attributes {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        instruction_count: INSTRUCTIONS.len() as u32,
        instructions: INSTRUCTIONS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
    };
    // SAFETY: the pointers are of static data, and the kernel reads no more than the sizes beside them say.
    let loaded = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if loaded < 0 {
        return Err(io::Error::last_os_error()).context("empty program: load");
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded as i32) })
}
