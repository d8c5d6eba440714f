//! The kernel's table of connections.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::netns::Namespace;

/// New (`IPCTNL_MSG_CT_NEW`) of the connections' subsystem.
const NEW: u16 = 1 << 8;
/// `NLM_F_REQUEST | NLM_F_EXCL | NLM_F_CREATE`: without acknowledgements.
const CREATE: u16 = 1 | 0x200 | 0x400;
const NESTED: u16 = 1 << 15;
/// So many are made by one system call.
const TOGETHER: u32 = 256;
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

/// Makes connections, in which nobody takes part, until a namespace can track no more; they are none that the kernel would
/// forget to make room.
pub fn fill(namespace: &Namespace) -> Result<()> {
    let filled = namespace.within(|| -> Result<()> {
        let number = |key: &str| -> Result<u32> {
            let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{key}"))?;
            Ok(text.trim().parse()?)
        };
        let (socket, most) = (open()?, number("max")?);
        let kernel = NetlinkAddr::new(0, 0);
        let mut made = 0;
        while number("count")? < most {
            ensure!(made < 2 * most, "{made} connections are not {most}");
            let batch: Vec<u8> = (made..made + TOGETHER).flat_map(connection).collect();
            sendto(socket.as_raw_fd(), &batch, &kernel, MsgFlags::empty())?;
            made += TOGETHER;
        }
        Ok(())
    });
    filled.with_context(|| format!("{}: conntrack: fill", namespace.name()))
}

/// The message that makes an answered connection of UDP, by number.
fn connection(number: u32) -> Vec<u8> {
    let client = [
        (0x0ac8_0000 + (number >> 16)).to_be_bytes(),
        [10, 201, 0, 1],
    ];
    let ports = [(number as u16).to_be_bytes(), 53_u16.to_be_bytes()];
    let tuple = |from: usize, to: usize| {
        let addresses = [attribute(1, &client[from]), attribute(2, &client[to])].concat();
        let ports = [attribute(2, &ports[from]), attribute(3, &ports[to])].concat();
        let protocol = [attribute(1, &[17]), ports].concat();
        [
            attribute(1 | NESTED, &addresses),
            attribute(2 | NESTED, &protocol),
        ]
        .concat()
    };
    // `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED`, and an hour.
    let (status, timeout) = (14_u32.to_be_bytes(), 3600_u32.to_be_bytes());
    let attributes = [
        attribute(1 | NESTED, &tuple(0, 1)),
        attribute(2 | NESTED, &tuple(1, 0)),
        attribute(3, &status),
        attribute(7, &timeout),
    ]
    .concat();
    let mut message = Vec::with_capacity(20 + attributes.len());
    message.extend((20 + attributes.len() as u32).to_ne_bytes());
    message.extend(NEW.to_ne_bytes());
    message.extend(CREATE.to_ne_bytes());
    message.extend([0; 8]);
    // The family, IPv4.
    message.extend([2, 0, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(4 + value.len());
    attribute.extend((4 + value.len() as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn open() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
}

fn exchange() -> nix::Result<Vec<u8>> {
    let socket = open()?;
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
