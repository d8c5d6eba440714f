//! The kernel's network configuration: links, addresses, routes, neighbours, traffic control, sysctls and network
//! namespaces.
//!
//! Everything here acts on the network namespace of the calling thread; [`netns::Netns::within`] moves there.
//! Deleting what is already gone succeeds, as a CNI DEL may come twice.

use std::{
    io,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::Handle;

pub mod address;
pub mod clsact;
pub mod conntrack;
pub(crate) mod exchange;
pub mod ipsec;
pub mod link;
pub mod mac;
pub mod neighbour;
pub mod netns;
mod notices;
pub mod overlay;
pub mod route;
pub mod sysctl;
pub mod tc;
#[cfg(test)]
pub(crate) mod testing;

/// One route netlink connection, bound to the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    handle: Mutex<Handle>,
}

/// Opens a netlink connection in the calling thread's network namespace, and runs `f` with it to the end.
pub fn with_netlink<T>(f: impl AsyncFnOnce(&Netlink) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("netlink: start runtime")?;
    runtime.block_on(async {
        let handle = connect().context("netlink: open route socket")?;
        let netlink = Netlink {
            handle: Mutex::new(handle),
        };
        f(&netlink).await
    })
}

/// Opens a connection, within a runtime.
fn connect() -> io::Result<Handle> {
    // Strict checking (Linux 4.20) lets the kernel filter dumps; without it the same filters run here.
    let (mut connection, handle, _unsolicited) =
        rtnetlink::new_connection_with_strict_check().or_else(|_| rtnetlink::new_connection())?;
    // Without these an answer that ends well looks like a connection that broke.
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    tokio::spawn(connection);
    Ok(handle)
}

impl Netlink {
    /// Sends one request and collects what the kernel answers until it acknowledges.
    ///
    /// An acknowledgement is always asked for, even by a get: a reply that this netlink library cannot decode
    /// is dropped by it, and the wait for it would otherwise never end.
    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        let answered = self.ask(message, flags).await;
        // A connection ends with the first request that cannot be sent; what is made is to be taken back by another.
        if answered == Err(Errno::ECONNRESET)
            && let Ok(handle) = connect()
        {
            *self.handle() = handle;
        }
        answered
    }

    fn handle(&self) -> MutexGuard<'_, Handle> {
        // Whoever panicked has left nothing half done.
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut handle = self.handle().clone();
        let mut answers = pin!(handle.request(request).map_err(|_| Errno::ECONNRESET)?);
        let mut replies = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(reply) => replies.push(reply),
                NetlinkPayload::Error(error) => match error.raw_code() {
                    0 => return Ok(replies),
                    code => return Err(Errno::from_raw(code.saturating_neg())),
                },
                NetlinkPayload::Done(done) => match done.code {
                    0.. => return Ok(replies),
                    code => return Err(Errno::from_raw(code.saturating_neg())),
                },
                NetlinkPayload::Overrun(_) => return Err(Errno::ENOBUFS),
                _ => {}
            }
        }
        Err(Errno::ECONNRESET)
    }
}

/// The netlink address family of an IP address.
fn family(ip: std::net::IpAddr) -> AddressFamily {
    if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}
