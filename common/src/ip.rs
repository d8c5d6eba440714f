//! The IP header, of both families, as far as forwarding needs it.

use crate::{Address, Family, Packet, Pass, Segment, TooShort, packet::part};

/// The length of the Ethernet header in bytes.
pub const ETHERNET: usize = 14;

pub(crate) const ETHERTYPE_V4: u16 = 0x0800;
pub(crate) const ETHERTYPE_V6: u16 = 0x86dd;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

/// Where the hop limit is, from the start of the frame.
const V4_HOP_LIMIT: usize = ETHERNET + 8;
const V6_HOP_LIMIT: usize = ETHERNET + 7;

/// The header of an unfragmented packet without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who sends.
    pub source: Address,
    /// Who shall receive.
    pub destination: Address,
    /// TTL (IPv4) or hop limit (IPv6).
    pub hop_limit: u8,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The family, hence the layout of the header.
    pub family: Family,
    /// Whether it is an ICMP error, which quotes the packet that it is about.
    pub error: bool,
    /// The length in bytes of what follows the header; 0 if it is more than the header can say (BIG TCP).
    payload: u16,
    /// IPv4's header checksum; 0 for IPv6, which has none.
    checksum: u16,
}

/// What an ICMP error says of the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who sent it, hence who is to learn of the error.
    pub source: Address,
    /// Who should have received it.
    pub destination: Address,
    /// The flow that it belonged to.
    pub segment: Segment,
}

impl Header {
    /// The offset of the transport header in the frame, in bytes.
    #[inline(always)]
    const fn transport(&self) -> usize {
        match self.family {
            Family::V4 => ETHERNET + 20,
            Family::V6 => ETHERNET + 40,
        }
    }

    /// Reads the header behind an Ethernet header of the given type.
    ///
    /// # Errors
    ///
    /// What only the stack can judge: other protocols, fragments, options (RFC 791) and extension headers
    /// (RFC 8200), neighbour discovery and other ICMP that is neither echo nor error (RFC 792, 4443, 4861).
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, ethertype: u16) -> Result<Self, Pass> {
        let mut header = match ethertype {
            ETHERTYPE_V4 => parse_v4(packet)?,
            ETHERTYPE_V6 => parse_v6(packet)?,
            _ => return Err(Pass::NotIp),
        };
        if matches!(header.protocol, ICMP | ICMPV6) {
            let [kind] = packet.load(header.transport())?;
            // Echo and its reply are judged by their addresses, errors by what they quote; all else is not ours.
            header.error = match (header.family, kind) {
                (Family::V4, 0 | 8) | (Family::V6, 128 | 129) => false,
                (Family::V4, 3 | 11 | 12) | (Family::V6, 1..=4) => true,
                _ => return Err(Pass::Icmp),
            };
        }
        Ok(header)
    }

    /// The flow that the packet belongs to.
    #[inline(always)]
    pub fn segment<P: Packet>(&self, packet: &P) -> Result<Segment, TooShort> {
        let addresses = [self.source, self.destination];
        // A short frame is padded to Ethernet's minimum, so that its own length does not tell.
        let length = match self.payload {
            0 => packet.length().saturating_sub(self.transport() as u32),
            length => u32::from(length),
        };
        Segment::load(packet, self.protocol, addresses, self.transport(), length)
    }

    /// The packet that an ICMP error is about, as far as the error quotes it.
    ///
    /// # Errors
    ///
    /// What only the stack can judge: an error about an error, a fragment, options.
    #[inline(always)]
    pub fn quoted<P: Packet>(&self, packet: &P) -> Result<Quoted, Pass> {
        const ICMP_HEADER: usize = 8;
        let at = self.transport() + ICMP_HEADER;
        let (protocol, addresses, transport) = match self.family {
            Family::V4 => {
                let [version_ihl, _, _, _, _, _, f0, f1, _, protocol] = packet.load(at)?;
                if version_ihl != 0x45 || is_fragment([f0, f1]) {
                    return Err(Pass::Icmp);
                }
                let addresses = [packet.load(at + 12)?, packet.load(at + 16)?];
                (protocol, addresses.map(Address::from_v4), at + 20)
            }
            Family::V6 => {
                let [version, _, _, _, _, _, protocol] = packet.load(at)?;
                if version >> 4 != 6 || !matches!(protocol, TCP | UDP | SCTP | ICMPV6) {
                    return Err(Pass::Icmp);
                }
                let addresses = [packet.load(at + 8)?, packet.load(at + 24)?];
                (protocol, addresses.map(Address::from_v6), at + 40)
            }
        };
        if matches!(protocol, ICMP | ICMPV6) {
            let [kind] = packet.load(transport)?;
            if !matches!((self.family, kind), (Family::V4, 8) | (Family::V6, 128)) {
                return Err(Pass::Icmp);
            }
        }
        let [source, destination] = addresses;
        let segment = Segment::load_quoted(packet, protocol, addresses, transport)?;
        Ok(Quoted {
            source,
            destination,
            segment,
        })
    }

    /// Takes one from the hop limit, as a router does.
    #[inline(always)]
    pub fn decrement_hop_limit<P: Packet>(&self, packet: &mut P) -> Result<(), TooShort> {
        let hop_limit = self.hop_limit.wrapping_sub(1);
        match self.family {
            Family::V4 => {
                let [high, low] = decremented_checksum(self.checksum).to_be_bytes();
                packet.store(V4_HOP_LIMIT, [hop_limit, self.protocol, high, low])
            }
            Family::V6 => packet.store(V6_HOP_LIMIT, [hop_limit]),
        }
    }

    /// The size in bytes of the largest IP packet that this one becomes on the wire.
    ///
    /// # Errors
    ///
    /// An aggregate that ends within its transport header.
    #[inline(always)]
    pub fn wire_length<P: Packet>(&self, packet: &P) -> Result<u32, TooShort> {
        let segment = packet.segment_size();
        if segment == 0 {
            // Not what the header says: the wire carries the frame as it is.
            return Ok(packet.length().saturating_sub(ETHERNET as u32));
        }
        let transport = match self.protocol {
            TCP => {
                let [data_offset] = packet.load(self.transport() + 12)?;
                u32::from(data_offset >> 4) * 4
            }
            UDP => 8,
            SCTP => 12,
            _ => 0,
        };
        Ok((self.transport() - ETHERNET) as u32 + transport + segment)
    }
}

impl From<TooShort> for Pass {
    #[inline(always)]
    fn from(_: TooShort) -> Self {
        Self::NotIp
    }
}

#[inline(always)]
fn parse_v4<P: Packet>(packet: &P) -> Result<Header, Pass> {
    let bytes: [u8; 20] = packet.load(ETHERNET)?;
    match bytes[0] {
        0x45 => {}
        0x46..=0x4f => return Err(Pass::Options),
        _ => return Err(Pass::NotIp),
    }
    if is_fragment(part(&bytes, 6)) {
        return Err(Pass::Fragment);
    }
    Ok(Header {
        source: Address::from_v4(part(&bytes, 12)),
        destination: Address::from_v4(part(&bytes, 16)),
        hop_limit: bytes[8],
        protocol: bytes[9],
        family: Family::V4,
        error: false,
        payload: u16::from_be_bytes(part(&bytes, 2)).saturating_sub(20),
        checksum: u16::from_be_bytes(part(&bytes, 10)),
    })
}

#[inline(always)]
fn parse_v6<P: Packet>(packet: &P) -> Result<Header, Pass> {
    let [version, _, _, _, l0, l1, protocol, hop_limit] = packet.load(ETHERNET)?;
    if version >> 4 != 6 {
        return Err(Pass::NotIp);
    }
    match protocol {
        TCP | UDP | SCTP | ICMPV6 => {}
        FRAGMENT_HEADER => return Err(Pass::Fragment),
        _ => return Err(Pass::Options),
    }
    let source = Address::from_v6(packet.load(ETHERNET + 8)?);
    let destination = Address::from_v6(packet.load(ETHERNET + 24)?);
    if any_mapped(&[source, destination]) {
        return Err(Pass::NotIp);
    }
    Ok(Header {
        source,
        destination,
        hop_limit,
        protocol,
        family: Family::V6,
        error: false,
        payload: u16::from_be_bytes([l0, l1]),
        checksum: 0,
    })
}

/// Whether one of an IPv6 header's addresses is IPv4-mapped: it belongs into no packet (RFC 4291, section 2.5.5.2), and
/// would be taken for an IPv4 pod's.
#[inline(always)]
const fn any_mapped([one, other]: &[Address; 2]) -> bool {
    matches!(one.family(), Family::V4) || matches!(other.family(), Family::V4)
}

/// Whether IPv4's flags and offset are those of a fragment.
#[inline(always)]
const fn is_fragment(flags_and_offset: [u8; 2]) -> bool {
    const MORE_FRAGMENTS_AND_OFFSET: u16 = 0x3fff;
    u16::from_be_bytes(flags_and_offset) & MORE_FRAGMENTS_AND_OFFSET != 0
}

/// The addresses and the flow of the first fragment of a datagram; the others do not tell the ports.
///
/// TCP is not cut into fragments where its connection begins.
#[inline(always)]
pub(crate) fn first_fragment<P: Packet>(
    packet: &P,
    ethertype: u16,
) -> Result<([Address; 2], Segment), Pass> {
    const FIRST_V4: u16 = 0x2000;
    let (protocol, addresses, transport) = match ethertype {
        ETHERTYPE_V4 => {
            let [version_ihl, _, _, _, _, _, f0, f1, _, protocol] = packet.load(ETHERNET)?;
            // The reserved bit and "don't fragment" do not matter.
            if version_ihl != 0x45 || u16::from_be_bytes([f0, f1]) & 0x3fff != FIRST_V4 {
                return Err(Pass::Fragment);
            }
            let addresses = [packet.load(ETHERNET + 12)?, packet.load(ETHERNET + 16)?];
            (protocol, addresses.map(Address::from_v4), ETHERNET + 20)
        }
        _ => {
            let [protocol, _, o0, o1] = packet.load(ETHERNET + 40)?;
            if u16::from_be_bytes([o0, o1]) >> 3 != 0 {
                return Err(Pass::Fragment);
            }
            let addresses = [packet.load(ETHERNET + 8)?, packet.load(ETHERNET + 24)?];
            (protocol, addresses.map(Address::from_v6), ETHERNET + 48)
        }
    };
    if protocol == TCP || (ethertype == ETHERTYPE_V6 && any_mapped(&addresses)) {
        return Err(Pass::Fragment);
    }
    let segment = Segment::load_quoted(packet, protocol, addresses, transport)?;
    Ok((addresses, segment))
}

/// The checksum of an IPv4 header whose TTL is one less (RFC 1624, equation 3, as `ip_decrease_ttl` of Linux).
#[inline(always)]
const fn decremented_checksum(checksum: u16) -> u16 {
    let sum = checksum as u32 + 0x0100;
    (sum + (sum >= 0xffff) as u32) as u16
}

#[cfg(test)]
mod tests;
