//! What the kernel tells of its own accord: datagrams of a multicast subscription.

use std::io::ErrorKind;

use anyhow::{Context, Result};
use netlink_sys::{
    AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};
use nix::libc;

/// More than any one notice needs.
const BUFFER: usize = 64 * 1024;

/// A subscription to groups of route netlink's.
pub(super) struct Notices {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl Notices {
    /// Subscribes in the calling thread's network namespace, within a runtime: what changes after this returns is not
    /// missed. `prepare` may set options of the socket first.
    pub(super) fn open(
        groups: &[u32],
        prepare: impl Fn(&Socket) -> std::io::Result<()>,
    ) -> std::io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        prepare(socket.socket_ref())?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            socket.socket_ref().add_membership(*group)?;
        }
        Ok(Self {
            socket,
            datagram: Vec::with_capacity(BUFFER),
        })
    }

    /// Waits for the next datagram; `None` says that some were lost, and what waited has been thrown away.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>> {
        self.datagram.clear();
        match self.socket.recv_from(&mut self.datagram).await {
            Ok(_) => Ok(Some(&self.datagram)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.drain()?;
                Ok(None)
            }
            Err(error) => Err(error).context("netlink: receive changes"),
        }
    }

    /// Throws away what is waiting: until then the kernel drops each new notice too, and tells that only once.
    fn drain(&mut self) -> Result<()> {
        loop {
            self.datagram.clear();
            match self.socket.socket_ref().recv_from(&mut self.datagram, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("netlink: receive changes"),
            }
        }
    }

    /// Leaves room for few notices only.
    #[cfg(test)]
    pub(super) fn shrink(&self) -> Result<()> {
        Ok(self.socket.socket_ref().set_rx_buf_sz(1_i32)?)
    }
}
