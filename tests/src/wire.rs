//! Whole frames, sent and seen at an interface: what no socket of a kind programs use would send.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Namespace;
use crate::wait;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// Opens one; from here on it sees all that the interface sends and receives.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let opened = namespace.within(|| -> Result<OwnedFd> {
            let socket = packet_socket(if_nametoindex(interface)?, libc::ETH_P_ALL as u16)?;
            // Short, so that a deadline is kept although other frames wake the socket.
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 10_000))?;
            Ok(socket)
        });
        let context = || format!("{}: packet socket on {interface}", namespace.name());
        Ok(Self(opened.with_context(context)?))
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).context("send a frame")?;
        Ok(())
    }

    /// Reads frames until one is as wanted, which it returns, or the time is over.
    pub fn find(&self, time: Duration, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let deadline = wait::deadline(time);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if wanted(&buffer[..length]) => {
                    return Ok(Some(buffer[..length].to_vec()));
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) if Instant::now() >= deadline => return Ok(None),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("receive a frame"),
            }
        }
    }
}

/// A socket that sends whole frames out of an interface, and receives those of a protocol there; none if it is 0.
#[expect(
    unsafe_code,
    reason = "nix makes no address of a packet socket with a protocol"
)]
pub fn packet_socket(ifindex: u32, protocol: u16) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is of the size that is passed, and outlives the call.
    let failed = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    match failed {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}
