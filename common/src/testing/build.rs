//! Builds packets, checksums and all.

use core::net::IpAddr;
use std::{vec, vec::Vec};

use super::{
    Frame,
    checksum::{checksum, transport},
};
use crate::{Mac, ip::ETHERNET};

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with so many bytes of options, a multiple of 4.
    Tcp {
        /// The options' length in bytes.
        options: usize,
    },
    /// UDP.
    Udp,
    /// ICMP or ICMPv6, as the family has it.
    Icmp {
        /// The type.
        kind: u8,
    },
    /// SCTP, without its CRC.
    Sctp,
    /// Another protocol, without a header.
    Other(u8),
}

/// An IP packet in the making.
#[derive(Clone, Debug)]
pub struct Builder {
    macs: [Mac; 2],
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    fragment: u16,
    options: Vec<u8>,
    extension: Option<u8>,
    transport: Transport,
    ports: [u16; 2],
    flags: u8,
    sequence: [u32; 2],
    payload: Vec<u8>,
}

/// A TCP packet from port 40000 to port 80 with 32 bytes of payload and a hop limit of 64.
///
/// # Panics
///
/// If the addresses are not of one family.
pub fn packet(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Builder {
    let (source, destination) = (source.into(), destination.into());
    assert_eq!(source.is_ipv4(), destination.is_ipv4());
    Builder {
        macs: [Mac::default(); 2],
        source,
        destination,
        hop_limit: 64,
        fragment: 0,
        options: Vec::new(),
        extension: None,
        transport: Transport::Tcp { options: 0 },
        ports: [40_000, 80],
        flags: 0x18,
        sequence: [1, 2],
        payload: counted(32),
    }
}

/// Bytes that tell their places.
fn counted(length: usize) -> Vec<u8> {
    (0..length).map(|index| index as u8).collect()
}

impl Builder {
    /// Sets the Ethernet addresses.
    pub fn macs(mut self, source: Mac, destination: Mac) -> Self {
        self.macs = [destination, source];
        self
    }

    /// Sets the TTL or hop limit.
    pub fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    /// Sets IPv4's flags and fragment offset; with [`Builder::extension`] of 44, IPv6's.
    pub fn fragment(mut self, flags_and_offset: u16) -> Self {
        self.fragment = flags_and_offset;
        self
    }

    /// Adds IPv4 options, a multiple of 4 bytes.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// Adds an IPv6 extension header of eight bytes; 44 is that of a fragment, by default of all in one.
    pub fn extension(mut self, kind: u8) -> Self {
        self.extension = Some(kind);
        self
    }

    /// Sets what the packet carries.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Sets the ports of TCP, UDP and SCTP; ICMP has the second one as its identifier.
    pub fn ports(mut self, source: u16, destination: u16) -> Self {
        self.ports = [source, destination];
        self
    }

    /// Sets TCP's flags.
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// Sets TCP's sequence number, and the one that is waited for.
    pub fn sequence(mut self, sent: u32, acknowledged: u32) -> Self {
        self.sequence = [sent, acknowledged];
        self
    }

    /// Sets the payload's length in bytes.
    pub fn payload(mut self, length: usize) -> Self {
        self.payload = counted(length);
        self
    }

    /// Sets the payload.
    pub fn carrying(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Makes it an ICMP error about `frame`: it quotes the IP header and eight bytes (RFC 792), or as much as fits
    /// into IPv6's smallest MTU (RFC 4443).
    pub fn error(self, kind: u8, frame: &Frame) -> Self {
        let room = if self.source.is_ipv4() {
            20 + 8
        } else {
            1280 - 40 - 8
        };
        let packet = &frame.bytes[ETHERNET..];
        self.transport(Transport::Icmp { kind })
            .carrying(&packet[..room.min(packet.len())])
    }

    /// Writes the packet.
    pub fn frame(&self) -> Frame {
        let [destination, source] = self.macs;
        let mut bytes = [destination.0, source.0].concat();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x08, 0x00]);
                bytes.extend(self.v4(source.octets(), destination.octets()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd]);
                bytes.extend(self.v6(source.octets(), destination.octets()));
            }
            _ => unreachable!("`packet` takes addresses of one family"),
        }
        Frame::new(bytes)
    }

    fn v4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let segment = self.segment(&source, &destination);
        let header_length = 20 + self.options.len();
        let [l0, l1] = ((header_length + segment.len()) as u16).to_be_bytes();
        let [f0, f1] = self.fragment.to_be_bytes();
        let version_ihl = 0x40 | (header_length / 4) as u8;
        let mut header = vec![version_ihl, 0, l0, l1, 0x12, 0x34, f0, f1];
        header.extend([self.hop_limit, self.protocol(), 0, 0]);
        header.extend(source);
        header.extend(destination);
        header.extend(&self.options);
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        [header, segment].concat()
    }

    fn v6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let segment = self.segment(&source, &destination);
        let extension = match self.extension {
            Some(44) => {
                let [o0, o1] = (self.fragment << 3 | self.fragment >> 13 & 1).to_be_bytes();
                vec![self.protocol(), 0, o0, o1, 0, 0, 0, 7]
            }
            Some(_) => vec![self.protocol(), 0, 1, 4, 0, 0, 0, 0],
            None => Vec::new(),
        };
        let [l0, l1] = ((extension.len() + segment.len()) as u16).to_be_bytes();
        let next = self.extension.unwrap_or(self.protocol());
        let mut header = vec![0x60, 0, 0, 0, l0, l1, next, self.hop_limit];
        header.extend(source);
        header.extend(destination);
        [header, extension, segment].concat()
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp => 17,
            Transport::Icmp { .. } if self.source.is_ipv4() => 1,
            Transport::Icmp { .. } => 58,
            Transport::Sctp => 132,
            Transport::Other(protocol) => protocol,
        }
    }

    fn segment(&self, source: &[u8], destination: &[u8]) -> Vec<u8> {
        let ports = self.ports.map(u16::to_be_bytes).concat();
        let (mut segment, checksum_at) = match self.transport {
            Transport::Tcp { options } => {
                let data_offset = ((20 + options) / 4) as u8;
                let mut header = ports;
                header.extend(self.sequence.map(u32::to_be_bytes).concat());
                header.extend([data_offset << 4, self.flags]);
                header.extend([0xff, 0xff, 0, 0, 0, 0]);
                header.extend(vec![1; options]);
                (header, Some(16))
            }
            Transport::Udp => {
                let [l0, l1] = ((8 + self.payload.len()) as u16).to_be_bytes();
                ([&ports[..], &[l0, l1, 0, 0]].concat(), Some(6))
            }
            Transport::Icmp { kind } => (vec![kind, 0, 0, 0, ports[2], ports[3], 0, 1], Some(2)),
            Transport::Sctp => ([&ports[..], &[0; 8]].concat(), None),
            Transport::Other(_) => (Vec::new(), None),
        };
        segment.extend(&self.payload);
        if let Some(at) = checksum_at {
            let sum = match self.protocol() {
                1 => checksum(&[&segment]),
                protocol => transport(source, destination, protocol, &segment),
            };
            segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        segment
    }
}
