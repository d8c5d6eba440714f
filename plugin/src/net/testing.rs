//! Namespaces for tests, which touch nothing of the host and so run in parallel.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, socket},
};

use super::{Netlink, netns::Netns, sysctl, with_netlink};

/// Ends a test whose packet was lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Makes an empty network namespace.
pub(crate) fn new_netns() -> Netns {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("this test needs root (CAP_SYS_ADMIN); run with `--skip netns_tests` without");
        Netns::current().expect("open the new network namespace")
    });
    thread.join().expect("make a network namespace")
}

/// Runs `f` in an empty network namespace of its own.
pub(crate) fn isolated<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> T {
    new_netns()
        .within(f)
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// Runs `f` with a netlink connection to an empty network namespace of its own.
pub(crate) fn netlink<T: Send>(f: impl AsyncFnOnce(&Netlink) -> Result<T> + Send) -> T {
    isolated(|| with_netlink(f))
}

/// Asks an address for an echo, from one of the namespace's own, until it comes; returns the identifier it had.
///
/// The first may be lost, as a link that was just made may not have a carrier yet.
pub(crate) fn echo(from: IpAddr, to: IpAddr) -> Result<u16> {
    sysctl::ensure("net/ipv4/ping_group_range", "0\t0")?;
    let (family, protocol, request) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let echo = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let address = SockaddrStorage::from(SocketAddr::new(from, 0));
    bind(echo.as_raw_fd(), &address)?;
    let echo = UdpSocket::from(echo);
    let pause = Duration::from_millis(200);
    echo.set_read_timeout(Some(pause))?;
    for _ in 0..PATIENCE.div_duration_f32(pause) as usize {
        echo.send_to(&[request, 0, 0, 0, 0, 0, 0, 1], (to, 0))?;
        if echo.recv(&mut [0; 8]).is_ok() {
            return Ok(echo.local_addr()?.port());
        }
    }
    bail!("no echo from {to} to {from}")
}
