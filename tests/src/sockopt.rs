//! What sockets know that neither the standard library nor nix asks them.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, c_int, socklen_t};

/// The MTU in bytes of a connection's path, as far as it is known.
pub fn path_mtu(stream: &TcpStream) -> Result<u32> {
    let mtu = if stream.peer_addr()?.is_ipv4() {
        get(stream, libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        get(stream, libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    Ok(mtu.context("path MTU")?.try_into()?)
}

#[expect(unsafe_code, reason = "nix does not know these options")]
fn get(socket: &impl AsRawFd, level: c_int, name: c_int) -> nix::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `value` has, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| value)
}
