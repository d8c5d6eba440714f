//! Packets gone wrong, always the same ones.

use super::{CLIENT, Frame, GATEWAY, PEER, SERVER, STRANGER, SUBPEER, THIRD, UPLINK_MAC};
use crate::ip::ETHERNET;

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
    // Where hop limit, protocol, source and destination are.
    let (hop_limit, protocol, source, address) = match frame.bytes.get(12) {
        Some(0x08) => (8, 9, 12, 4),
        _ => (7, 6, 8, 16),
    };
    match random.below(12) {
        0 => {
            let macs = [CLIENT.mac, SERVER.mac, THIRD.mac, GATEWAY, UPLINK_MAC];
            write(frame, 6 * random.below(2), &random.pick(&macs).0);
        }
        1 => {
            let kinds = [0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x0600, 0x05ff];
            write(frame, 12, &random.pick(&kinds).to_be_bytes());
        }
        2 | 3 => {
            let at = ETHERNET + source + address * random.below(2);
            let v4 = [
                CLIENT.v4,
                SERVER.v4,
                THIRD.v4,
                PEER.pod_v4,
                SUBPEER.pod_v4,
                STRANGER.pod_v4,
            ];
            let v6 = [
                CLIENT.v6,
                SERVER.v6,
                THIRD.v6,
                PEER.pod_v6,
                SUBPEER.pod_v6,
                STRANGER.pod_v6,
            ];
            let which = random.below(v4.len());
            match address {
                4 => write(frame, at, &v4[which].octets()),
                // An IPv4 address in IPv6's clothes (RFC 4291, section 2.5.5.2).
                _ if random.below(4) == 0 => write(frame, at, &v4[which].to_ipv6_mapped().octets()),
                _ => write(frame, at, &v6[which].octets()),
            }
        }
        4 => write(
            frame,
            ETHERNET + hop_limit,
            &[*random.pick(&[0, 1, 2, 64, 255])],
        ),
        5 => {
            let protocols = [
                0, 1, 2, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 132, 135, 255,
            ];
            write(frame, ETHERNET + protocol, &[*random.pick(&protocols)]);
        }
        6 => write(
            frame,
            ETHERNET,
            &[*random.pick(&[0x45, 0x46, 0x4f, 0x44, 0x60, 0x6f, 0x00, 0x55])],
        ),
        7 => write(
            frame,
            ETHERNET + 6,
            &[*random.pick(&[0x00, 0x20, 0x40, 0x80, 0x1f])],
        ),
        8 => frame.segment_size = *random.pick(&[0, 1, 1408, 1440, 1448, 1460, 1461, 65_535]),
        9 => {
            // IPv4's length, or its identification; IPv6's length.
            let length = *random.pick(&[0u16, 20, 1460, 1461, 1500, 1501, 65_535]);
            write(
                frame,
                ETHERNET + 2 * (1 + random.below(2)),
                &length.to_be_bytes(),
            );
        }
        10 => {
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

/// Writes as much as fits into the frame.
fn write(frame: &mut Frame, offset: usize, bytes: &[u8]) {
    for (to, from) in frame.bytes.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}
