//! The kernel's table of connections.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::netns::Namespace;

/// Delete (`IPCTNL_MSG_CT_DELETE`) of the connections' subsystem (`NFNL_SUBSYS_CTNETLINK`).
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`
const FLAGS: u16 = 1 | 4;

/// Forgets all connections of a namespace, like `conntrack --flush`, which is not on every machine.
pub fn flush(namespace: &Namespace) -> Result<()> {
    let reply = namespace.within(exchange);
    let reply = reply.with_context(|| format!("{}: conntrack", namespace.name()))?;
    let errno = reply.get(16..20).and_then(|bytes| bytes.first_chunk());
    let errno = errno.copied().map(i32::from_ne_bytes);
    ensure!(
        errno == Some(0),
        "{}: conntrack: flush: error {errno:?}",
        namespace.name()
    );
    Ok(())
}

fn exchange() -> nix::Result<Vec<u8>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    // A header of 20 bytes without attributes, which would choose among the connections.
    let mut request = Vec::with_capacity(20);
    request.extend(20_u32.to_ne_bytes());
    request.extend(DELETE.to_ne_bytes());
    request.extend(FLAGS.to_ne_bytes());
    request.extend([0; 12]);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut reply = vec![0; 128];
    let length = recv(socket.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    reply.truncate(length);
    Ok(reply)
}
