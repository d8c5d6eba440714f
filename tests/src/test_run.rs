//! `BPF_PROG_TEST_RUN` with all that the kernel takes for an skb; aya offers all of it but the flags.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::libc;

const BPF_PROG_TEST_RUN: libc::c_long = 10;
/// On recent kernels: gives the skb a device's checksum (`CHECKSUM_COMPLETE`), and fails with `EBADMSG` if it is wrong
/// when the program has run.
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;

/// The members of `union bpf_attr` for the command.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

/// `struct __sk_buff`, of which the kernel takes the named members and wants the others 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    others: [u32; 2],
    /// The mark.
    pub mark: u32,
    others_2: [u32; 7],
    /// The interface that received the packet, in the caller's network namespace.
    pub ifindex: u32,
    others_3: [[u32; 11]; 3],
    /// The length of each segment's payload; 0 without GSO.
    pub gso_size: u32,
    others_4: [u32; 3],
}

const _: () = assert!(size_of::<Context>() == 192);
const _: () = assert!(std::mem::offset_of!(Context, mark) == 8);
const _: () = assert!(std::mem::offset_of!(Context, ifindex) == 40);
const _: () = assert!(std::mem::offset_of!(Context, gso_size) == 176);

/// What runs left behind.
#[derive(Debug)]
pub struct Output {
    /// What the last run returned.
    pub code: i32,
    /// The packet after all runs.
    pub bytes: Vec<u8>,
    /// The context after all runs.
    pub context: Context,
    /// The mean duration of a run.
    pub nanoseconds: u32,
}

/// Runs the program so many times, each time on what the run before made of the packet.
#[expect(
    unsafe_code,
    reason = "no safe library has BPF_PROG_TEST_RUN with a context"
)]
pub fn test_run(
    program: BorrowedFd<'_>,
    bytes: &[u8],
    context: Context,
    repeat: u32,
    device_checksum: bool,
) -> io::Result<Output> {
    let mut output = Output {
        code: 0,
        bytes: vec![0; bytes.len() + 64],
        context,
        nanoseconds: 0,
    };
    let mut attributes = Attributes {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: bytes.len() as u32,
        data_size_out: output.bytes.len() as u32,
        data_in: bytes.as_ptr() as u64,
        data_out: output.bytes.as_mut_ptr() as u64,
        repeat,
        ctx_size_in: size_of::<Context>() as u32,
        ctx_size_out: size_of::<Context>() as u32,
        ctx_in: (&raw const context) as u64,
        ctx_out: (&raw mut output.context) as u64,
        flags: if device_checksum {
            BPF_F_TEST_SKB_CHECKSUM_COMPLETE
        } else {
            0
        },
        ..Attributes::default()
    };
    // SAFETY: the pointers are of buffers of the sizes beside them, which outlive the call; any bits are valid in them.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    output.nanoseconds = attributes.duration;
    output.code = attributes.retval as i32;
    output.bytes.truncate(attributes.data_size_out as usize);
    Ok(output)
}
