//! What is in the memory of a program that is stopped, and behind its descriptors.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::path::PathBuf;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// Longer strings are cut.
const MOST: usize = 256;

/// As many bytes at an address as can be read, at most `len`.
pub(super) fn read(pid: Pid, base: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let remote = RemoteIoVec {
        base: base as usize,
        len,
    };
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &[remote]);
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// Eight bytes at an address, as a number; 0 if they cannot be read.
pub(super) fn number(pid: Pid, base: u64) -> u64 {
    let bytes = read(pid, base, 8);
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// A string that ends with a zero.
pub(super) fn string(pid: Pid, base: u64) -> String {
    // Up to the end of a page first: what follows may not be there.
    let to_page = 4096 - (base % 4096) as usize;
    let mut bytes = read(pid, base, MOST.min(to_page));
    if !bytes.contains(&0) && bytes.len() == to_page {
        bytes.extend(read(pid, base + to_page as u64, MOST - to_page));
    }
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// Writes over what is at an address.
pub(super) fn write(pid: Pid, base: u64, bytes: &[u8]) -> nix::Result<()> {
    let remote = RemoteIoVec {
        base: base as usize,
        len: bytes.len(),
    };
    process_vm_writev(pid, &[IoSlice::new(bytes)], &[remote]).map(drop)
}

/// What a descriptor of a thread's is: a path, or such as `socket:[4711]`.
pub(super) fn descriptor(pid: Pid, fd: u64) -> String {
    let link = PathBuf::from(format!("/proc/{pid}/fd/{}", fd as i32));
    fs::read_link(link).map_or_else(
        |_| format!("fd {}", fd as i32),
        |to| to.display().to_string(),
    )
}
