//! An echo client over a raw socket, which also sees hop limits and ICMP errors.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrStorage, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Namespace;
use crate::plan::{Family, family};
use crate::wait::patient;

/// Tells pings of one process apart, as raw sockets in one namespace see each other's replies.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// What to send.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Where to.
    pub target: IpAddr,
    /// How many requests, one after the other.
    pub count: usize,
    /// Time to live of requests, or their hop limit.
    pub ttl: u8,
    /// Payload in each request.
    pub size: usize,
    /// How long to wait for each reply.
    pub timeout: Duration,
}

impl Echo {
    /// One small request.
    pub fn to(target: impl Into<IpAddr>) -> Self {
        Self {
            target: target.into(),
            count: 1,
            ttl: 64,
            size: 56,
            timeout: Duration::from_secs(1),
        }
    }
}

/// What an ICMP error complains of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The destination cannot be reached, with the family's own code.
    Unreachable(u8),
    /// The packet does not fit into so many bytes and may not be fragmented.
    TooBig(u32),
    /// The packet met too many routers.
    TimeExceeded,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Whom it asked.
    pub target: IpAddr,
    /// Requests sent.
    pub sent: usize,
    /// Round-trip time of each reply.
    pub rtts: Vec<Duration>,
    /// Time to live, or hop limit, that each reply arrived with.
    pub ttls: Vec<u8>,
    /// ICMP errors that came instead, and who sent them.
    pub errors: Vec<(Problem, IpAddr)>,
    /// Why a request could not be sent, if so.
    pub failure: Option<String>,
}

impl Ping {
    /// Replies received.
    pub fn received(&self) -> usize {
        self.rtts.len()
    }

    /// Whether every request was answered.
    pub fn is_complete(&self) -> bool {
        self.failure.is_none() && self.received() == self.sent
    }

    /// Panics unless every request was answered.
    #[track_caller]
    pub fn assert_received(&self) -> &Self {
        assert!(self.is_complete(), "{self}");
        self
    }

    /// Senders of "time exceeded".
    pub fn time_exceeded(&self) -> Vec<IpAddr> {
        self.errors
            .iter()
            .filter(|(problem, _)| *problem == Problem::TimeExceeded)
            .map(|(_, from)| *from)
            .collect()
    }
}

impl std::fmt::Display for Ping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ping {}: {} of {} answered",
            self.target,
            self.received(),
            self.sent
        )?;
        for (problem, from) in &self.errors {
            write!(f, "; {problem:?} from {from}")?;
        }
        self.failure
            .iter()
            .try_for_each(|failure| write!(f, "; {failure}"))
    }
}

/// Sends echo requests from inside a namespace.
pub fn ping(namespace: &Namespace, echo: &Echo) -> Ping {
    let mut ping = Ping {
        target: echo.target,
        sent: 0,
        rtts: Vec::new(),
        ttls: Vec::new(),
        errors: Vec::new(),
        failure: None,
    };
    if let Err(error) = namespace
        .within(|| open(echo))
        .and_then(|socket| run(&socket, echo, &mut ping))
    {
        ping.failure = Some(format!("{error:#}"));
    }
    ping
}

fn open(echo: &Echo) -> Result<OwnedFd> {
    let open = |family, protocol| {
        socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).context("raw socket")
    };
    let socket = match family(echo.target) {
        Family::V4 => {
            let socket = open(AddressFamily::Inet, SockProtocol::Icmp)?;
            setsockopt(&socket, sockopt::Ipv4Ttl, &i32::from(echo.ttl)).context("TTL")?;
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true).context("TTLs")?;
            socket
        }
        Family::V6 => {
            let socket = open(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
            setsockopt(&socket, sockopt::Ipv6Ttl, &i32::from(echo.ttl)).context("hop limit")?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true).context("hop limits")?;
            socket
        }
    };
    // Short, so that deadlines are kept although other traffic wakes the socket.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).context("timeout")?;
    Ok(socket)
}

fn run(socket: &OwnedFd, echo: &Echo, ping: &mut Ping) -> Result<()> {
    let wire = Wire::of(family(echo.target));
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let to = SockaddrStorage::from(SocketAddr::new(echo.target, 0));
    let wait_at_most = patient(echo.timeout);
    for sequence in 0..echo.count as u16 {
        let request = wire.request(id, sequence, echo.size);
        ping.sent += 1;
        let start = Instant::now();
        sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(&request)],
            &[],
            MsgFlags::empty(),
            Some(&to),
        )
        .context("send")?;
        match wait(socket, echo, id, sequence, start + wait_at_most) {
            Some((Answer::Reply, received)) => {
                ping.rtts.push(start.elapsed());
                ping.ttls.push(received.ttl);
            }
            Some((Answer::Error(problem), received)) => ping.errors.push((problem, received.from)),
            None => {}
        }
    }
    Ok(())
}

/// What a socket says of a packet beside its bytes.
struct Received {
    length: usize,
    from: IpAddr,
    ttl: u8,
}

fn wait(
    socket: &OwnedFd,
    echo: &Echo,
    id: u16,
    sequence: u16,
    deadline: Instant,
) -> Option<(Answer, Received)> {
    let wire = Wire::of(family(echo.target));
    let mut buffer = vec![0; 64 * 1024];
    while Instant::now() < deadline {
        let Some(received) = receive(socket, &mut buffer) else {
            continue;
        };
        match wire.answer(&buffer[..received.length], id, sequence) {
            // A program would not take the reply of another host for one: it was not translated back.
            Some(Answer::Reply) if received.from != echo.target => {}
            Some(answer) => return Some((answer, received)),
            None => {}
        }
    }
    None
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<Received> {
    let mut control = nix::cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let message =
        recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), MsgFlags::empty()).ok()?;
    let from = message.address?;
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::from(from.ip()));
    let from = v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::from(from.ip())))?;
    let ttl = message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => Some(ttl),
        _ => None,
    });
    Some(Received {
        length: message.bytes,
        from,
        ttl: ttl.and_then(|ttl| u8::try_from(ttl).ok())?,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Reply,
    Error(Problem),
}

/// How the two families differ.
#[derive(Debug)]
struct Wire {
    request: u8,
    reply: u8,
    /// Understands the type and the first eight bytes of an error.
    problem: fn(&[u8]) -> Option<Problem>,
    /// Takes the IP header from a packet.
    payload: fn(&[u8]) -> Option<&[u8]>,
    /// Whether the socket delivers the IP header as well.
    with_header: bool,
}

static V4: Wire = Wire {
    request: 8,
    reply: 0,
    problem: |icmp| match *icmp.first_chunk::<8>()? {
        [3, 4, _, _, _, _, high, low] => {
            Some(Problem::TooBig(u16::from_be_bytes([high, low]).into()))
        }
        [3, code, ..] => Some(Problem::Unreachable(code)),
        [11, ..] => Some(Problem::TimeExceeded),
        _ => None,
    },
    payload: |packet| {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        packet.get(header..).filter(|_| header >= 20)
    },
    with_header: true,
};

static V6: Wire = Wire {
    request: 128,
    reply: 129,
    problem: |icmp| match *icmp.first_chunk::<8>()? {
        [1, code, ..] => Some(Problem::Unreachable(code)),
        [2, _, _, _, a, b, c, d] => Some(Problem::TooBig(u32::from_be_bytes([a, b, c, d]))),
        [3, ..] => Some(Problem::TimeExceeded),
        _ => None,
    },
    payload: |packet| packet.get(40..),
    with_header: false,
};

impl Wire {
    fn of(family: Family) -> &'static Self {
        match family {
            Family::V4 => &V4,
            Family::V6 => &V6,
        }
    }

    /// Understands a received packet, if it answers this request.
    fn answer(&self, packet: &[u8], id: u16, sequence: u16) -> Option<Answer> {
        let icmp = if self.with_header {
            (self.payload)(packet)?
        } else {
            packet
        };
        let own = [id.to_be_bytes(), sequence.to_be_bytes()].concat();
        let ours = |icmp: &[u8]| icmp.get(4..8) == Some(&own);
        if *icmp.first()? == self.reply {
            return ours(icmp).then_some(Answer::Reply);
        }
        let problem = (self.problem)(icmp)?;
        // An error quotes the request, from its IP header on, after its own eight bytes.
        let quoted = (self.payload)(icmp.get(8..)?)?;
        ours(quoted).then_some(Answer::Error(problem))
    }

    fn request(&self, id: u16, sequence: u16, size: usize) -> Vec<u8> {
        let mut packet = vec![self.request, 0, 0, 0];
        packet.extend(id.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend((0..size).map(|i| i as u8));
        // Of IPv6 the kernel makes it, as it also covers the addresses.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum = words.sum::<u32>();
    let folded = (sum >> 16) + (sum & 0xffff);
    !((folded >> 16) + (folded & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(icmp: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        [packet.as_slice(), icmp].concat()
    }

    #[test]
    fn a_reply_and_an_error_are_told_from_other_packets() {
        let request = V4.request(7, 1, 3);
        assert_eq!(checksum(&request), 0);
        let reply = [&[V4.reply, 0], &request[2..]].concat();
        let answer = |icmp: &[u8], sequence| V4.answer(&with_header(icmp), 7, sequence);
        assert_eq!(answer(&reply, 1), Some(Answer::Reply));
        assert_eq!(answer(&reply, 2), None, "another sequence number");
        assert_eq!(answer(&request, 1), None, "a request");
        let exceeded = [&[11, 0, 0, 0, 0, 0, 0, 0], with_header(&request).as_slice()].concat();
        let expected = Some(Answer::Error(Problem::TimeExceeded));
        assert_eq!(answer(&exceeded, 1), expected);
        assert_eq!(V4.answer(&[0x4f], 7, 1), None, "truncated");
    }

    #[test]
    fn what_is_too_big_says_what_is_not() {
        let request = V4.request(7, 1, 3);
        let error = [
            &[3, 4, 0, 0, 0, 0, 5, 0x78],
            with_header(&request).as_slice(),
        ]
        .concat();
        let expected = Some(Answer::Error(Problem::TooBig(1400)));
        assert_eq!(V4.answer(&with_header(&error), 7, 1), expected);
        let request = V6.request(7, 1, 3);
        let error = [&[2, 0, 0, 0, 0, 0, 5, 0x78], [0; 40].as_slice(), &request].concat();
        assert_eq!(V6.answer(&error, 7, 1), expected);
    }
}
