//! An echo client over a raw socket, which also sees TTLs and ICMP errors.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Namespace;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;

/// Tells pings of one process apart, as raw sockets in one namespace see each other's replies.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// What to send.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Where to.
    pub target: Ipv4Addr,
    /// How many requests, one after the other.
    pub count: usize,
    /// Time to live of requests.
    pub ttl: u8,
    /// Payload in each request.
    pub size: usize,
    /// How long to wait for each reply.
    pub timeout: Duration,
}

impl Echo {
    /// One small request.
    pub fn to(target: Ipv4Addr) -> Self {
        Self {
            target,
            count: 1,
            ttl: 64,
            size: 56,
            timeout: Duration::from_secs(1),
        }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Whom it asked.
    pub target: Ipv4Addr,
    /// Requests sent.
    pub sent: usize,
    /// Round-trip time of each reply.
    pub rtts: Vec<Duration>,
    /// Time to live that each reply arrived with.
    pub ttls: Vec<u8>,
    /// ICMP errors that came instead: type and sender.
    pub errors: Vec<(u8, Ipv4Addr)>,
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
    pub fn time_exceeded(&self) -> Vec<Ipv4Addr> {
        self.errors
            .iter()
            .filter(|(kind, _)| *kind == TIME_EXCEEDED)
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
        for (kind, from) in &self.errors {
            write!(f, "; ICMP type {kind} from {from}")?;
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
    let protocol = SockProtocol::Icmp;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )
    .context("raw socket")?;
    setsockopt(&socket, sockopt::Ipv4Ttl, &i32::from(echo.ttl)).context("TTL")?;
    // Short, so that deadlines are kept although other traffic wakes the socket.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).context("timeout")?;
    Ok(socket)
}

fn run(socket: &OwnedFd, echo: &Echo, ping: &mut Ping) -> Result<()> {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let to = SockaddrIn::from(SocketAddrV4::new(echo.target, 0));
    for sequence in 0..echo.count as u16 {
        let request = request(id, sequence, echo.size);
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
        match wait(socket, id, sequence, start + echo.timeout) {
            Some(Answer::Reply { ttl }) => {
                ping.rtts.push(start.elapsed());
                ping.ttls.push(ttl);
            }
            Some(Answer::Error { kind, from }) => ping.errors.push((kind, from)),
            None => {}
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Reply { ttl: u8 },
    Error { kind: u8, from: Ipv4Addr },
}

fn wait(socket: &OwnedFd, id: u16, sequence: u16, deadline: Instant) -> Option<Answer> {
    let mut buffer = vec![0; 64 * 1024];
    while Instant::now() < deadline {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let length = recv(socket.as_raw_fd(), &mut slices[0], MsgFlags::empty()).unwrap_or(0);
        if let Some(answer) = answer(&buffer[..length], id, sequence) {
            return Some(answer);
        }
    }
    None
}

/// Understands a received packet, from its IP header on, if it answers this request.
fn answer(packet: &[u8], id: u16, sequence: u16) -> Option<Answer> {
    let icmp = payload(packet)?;
    let ours =
        |icmp: &[u8]| icmp.get(4..8) == Some(&[id.to_be_bytes(), sequence.to_be_bytes()].concat());
    match *icmp.first()? {
        ECHO_REPLY if ours(icmp) => Some(Answer::Reply { ttl: packet[8] }),
        // An error quotes the request, from its IP header on, after its own eight bytes.
        kind @ (UNREACHABLE | TIME_EXCEEDED) if ours(payload(icmp.get(8..)?)?) => {
            let from: [u8; 4] = packet[12..16].try_into().ok()?;
            Some(Answer::Error {
                kind,
                from: from.into(),
            })
        }
        _ => None,
    }
}

fn payload(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if header < 20 {
        None
    } else {
        packet.get(header..)
    }
}

fn request(id: u16, sequence: u16, size: usize) -> Vec<u8> {
    let mut packet = vec![ECHO, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend((0..size).map(|i| i as u8));
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
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

    fn with_header(ttl: u8, from: [u8; 4], icmp: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        (packet[0], packet[8]) = (0x45, ttl);
        packet[12..16].copy_from_slice(&from);
        [packet.as_slice(), icmp].concat()
    }

    #[test]
    fn a_reply_and_an_error_are_told_from_other_packets() {
        let request = request(7, 1, 3);
        assert_eq!(checksum(&request), 0);
        let reply = [&[ECHO_REPLY, 0], &request[2..]].concat();
        assert_eq!(
            answer(&with_header(62, [10, 0, 0, 2], &reply), 7, 1),
            Some(Answer::Reply { ttl: 62 })
        );
        assert_eq!(
            answer(&with_header(62, [10, 0, 0, 2], &reply), 7, 2),
            None,
            "another sequence number"
        );
        assert_eq!(
            answer(&with_header(62, [10, 0, 0, 2], &request), 7, 1),
            None,
            "a request"
        );
        let error = [
            &[TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0],
            with_header(1, [0; 4], &request).as_slice(),
        ]
        .concat();
        let from = Ipv4Addr::new(10, 244, 1, 1);
        let expected = Some(Answer::Error {
            kind: TIME_EXCEEDED,
            from,
        });
        assert_eq!(
            answer(&with_header(64, from.octets(), &error), 7, 1),
            expected
        );
        assert_eq!(answer(&[0x4f], 7, 1), None, "truncated");
    }
}
