//! Packets gone wrong, always the same ones.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{
    CLIENT, FAR, FAR_MAC, Frame, GATEWAY, OVERLAY_MAC, PEER, SERVER, STRANGER, SUBPEER, THIRD,
    UPLINK_MAC,
};
use crate::{Mac, ip::ETHERNET};

/// A small generator of numbers that look random (xorshift64, Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`, which must not be 0.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    /// One of `items`, which must not be empty.
    pub const fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Makes up to three changes, to the parts that decide more often than to others.
///
/// The frame keeps `at_least` bytes, if it has them.
pub fn mutate(frame: &mut Frame, random: &mut Random, at_least: usize) {
    for _ in 0..random.below(4) {
        mutate_once(frame, random, at_least);
    }
}

fn mutate_once(frame: &mut Frame, random: &mut Random, at_least: usize) {
    match random.below(16) {
        0 => {
            let at = 6 * random.below(2);
            write(frame, at, &random.pick(&MACS).0);
        }
        1 => {
            let kinds = [0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x0600, 0x05ff];
            write(frame, 12, &random.pick(&kinds).to_be_bytes());
        }
        2..=7 => mutate_header(frame, random, ETHERNET),
        // What an ICMP error quotes.
        8 => {
            let at = transport(frame) + 8;
            mutate_header(frame, random, at);
        }
        9 | 10 => mutate_transport(frame, random),
        11 => frame.redirected = !frame.redirected,
        12 => frame.segment_size = *random.pick(&[0, 1, 1408, 1440, 1448, 1460, 1461, 65_535]),
        13 => {
            let length = frame.bytes.len().max(1);
            frame.bytes.truncate(random.below(length).max(at_least));
        }
        _ => {
            let at = random.below(frame.bytes.len().max(1));
            if let Some(byte) = frame.bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

const MACS: [Mac; 7] = [
    CLIENT.mac,
    SERVER.mac,
    THIRD.mac,
    GATEWAY,
    UPLINK_MAC,
    OVERLAY_MAC,
    FAR_MAC,
];
const V4: [Ipv4Addr; 8] = [
    CLIENT.v4,
    SERVER.v4,
    THIRD.v4,
    PEER.pod_v4,
    SUBPEER.pod_v4,
    FAR.pod_v4,
    STRANGER.pod_v4,
    Ipv4Addr::UNSPECIFIED,
];
const V6: [Ipv6Addr; 9] = [
    CLIENT.v6,
    SERVER.v6,
    THIRD.v6,
    PEER.pod_v6,
    SUBPEER.pod_v6,
    FAR.pod_v6,
    STRANGER.pod_v6,
    Ipv6Addr::UNSPECIFIED,
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
];

/// Changes a field of the IP header that begins at `at`.
fn mutate_header(frame: &mut Frame, random: &mut Random, at: usize) {
    // Where hop limit, protocol, source and destination are.
    let (hop_limit, protocol, source, address) = match frame.bytes.get(12) {
        Some(0x08) => (8, 9, 12, 4),
        _ => (7, 6, 8, 16),
    };
    match random.below(6) {
        0 | 1 => {
            let at = at + source + address * random.below(2);
            match address {
                4 => write(frame, at, &random.pick(&V4).octets()),
                // An IPv4 address in IPv6's clothes (RFC 4291, section 2.5.5.2).
                _ if random.below(4) == 0 => {
                    write(frame, at, &random.pick(&V4).to_ipv6_mapped().octets());
                }
                _ => write(frame, at, &random.pick(&V6).octets()),
            }
        }
        2 => write(frame, at + hop_limit, &[*random.pick(&[0, 1, 2, 64, 255])]),
        3 => {
            let protocols = [
                0, 1, 2, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 132, 135, 255,
            ];
            write(frame, at + protocol, &[*random.pick(&protocols)]);
        }
        4 => {
            let firsts = [0x45, 0x46, 0x4f, 0x44, 0x60, 0x6f, 0x00, 0x55];
            write(frame, at, &[*random.pick(&firsts)]);
        }
        _ => {
            // IPv4's length, identification or fragment; IPv6's length, next header and hop limit.
            let words = [
                0u16, 20, 1460, 1500, 1501, 65_535, 0x2000, 0x2001, 0x1fff, 0x4000,
            ];
            let at = at + 2 * (1 + random.below(3));
            write(frame, at, &random.pick(&words).to_be_bytes());
        }
    }
}

/// Changes what tells of the flow and its state.
fn mutate_transport(frame: &mut Frame, random: &mut Random) {
    let at = transport(frame);
    match random.below(4) {
        0 => {
            let ports = [40_000u16, 80, 81, 0];
            let at = at + 2 * random.below(3);
            write(frame, at, &random.pick(&ports).to_be_bytes());
        }
        1 => {
            let flags = [0x02, 0x12, 0x10, 0x18, 0x11, 0x01, 0x04, 0x14, 0x13, 0x00];
            write(frame, at + 13, &[*random.pick(&flags)]);
        }
        2 => {
            // Those of the seeds' segments, with and without payload and FIN, and where they wrap.
            let numbers = [0u32, 1, 2, 33, 34, 35, u32::MAX, u32::MAX >> 2];
            let at = at + 4 + 4 * random.below(2);
            write(frame, at, &random.pick(&numbers).to_be_bytes());
        }
        _ => {
            // ICMP's types, or the upper half of a port.
            let kinds = [0, 1, 2, 3, 4, 5, 8, 11, 12, 13, 128, 129, 135, 136];
            write(frame, at, &[*random.pick(&kinds)]);
        }
    }
}

/// Where the transport header is that the Ethernet header tells of.
fn transport(frame: &Frame) -> usize {
    match frame.bytes.get(12) {
        Some(0x08) => ETHERNET + 20,
        _ => ETHERNET + 40,
    }
}

/// Writes as much as fits into the frame.
fn write(frame: &mut Frame, offset: usize, bytes: &[u8]) {
    for (to, from) in frame.bytes.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}
