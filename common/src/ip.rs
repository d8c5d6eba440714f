//! The IP header, of both families, as far as forwarding needs it.

use crate::{Address, Family, Packet, Pass, TooShort};

/// The length of the Ethernet header in bytes.
pub const ETHERNET: usize = 14;

const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

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
    /// IPv4's header checksum; 0 for IPv6, which has none.
    checksum: u16,
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
    /// (RFC 8200), ICMP errors and neighbour discovery (RFC 792, 4443, 4861).
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, ethertype: u16) -> Result<Self, Pass> {
        let header = match ethertype {
            ETHERTYPE_V4 => parse_v4(packet)?,
            ETHERTYPE_V6 => parse_v6(packet)?,
            _ => return Err(Pass::NotIp),
        };
        if matches!(header.protocol, ICMP | ICMPV6) {
            let [kind] = packet.load(header.transport())?;
            let judged = match header.family {
                // Echo and its reply; all else is an error, a redirect or obsolete.
                Family::V4 => matches!(kind, 0 | 8),
                Family::V6 => matches!(kind, 128 | 129),
            };
            if !judged {
                return Err(Pass::Icmp);
            }
        }
        Ok(header)
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
    let [
        version_ihl,
        _,
        _,
        _,
        _,
        _,
        f0,
        f1,
        hop_limit,
        protocol,
        c0,
        c1,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = bytes;
    match version_ihl {
        0x45 => {}
        0x46..=0x4f => return Err(Pass::Options),
        _ => return Err(Pass::NotIp),
    }
    const MORE_FRAGMENTS_AND_OFFSET: u16 = 0x3fff;
    if u16::from_be_bytes([f0, f1]) & MORE_FRAGMENTS_AND_OFFSET != 0 {
        return Err(Pass::Fragment);
    }
    Ok(Header {
        source: Address::from_v4([s0, s1, s2, s3]),
        destination: Address::from_v4([d0, d1, d2, d3]),
        hop_limit,
        protocol,
        family: Family::V4,
        checksum: u16::from_be_bytes([c0, c1]),
    })
}

#[inline(always)]
fn parse_v6<P: Packet>(packet: &P) -> Result<Header, Pass> {
    let [version, _, _, _, _, _, protocol, hop_limit] = packet.load(ETHERNET)?;
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
    // An IPv4-mapped address belongs into no packet (RFC 4291, section 2.5.5.2), and would be taken for an IPv4 pod's.
    if source.family() == Family::V4 || destination.family() == Family::V4 {
        return Err(Pass::NotIp);
    }
    Ok(Header {
        source,
        destination,
        hop_limit,
        protocol,
        family: Family::V6,
        checksum: 0,
    })
}

/// The checksum of an IPv4 header whose TTL is one less (RFC 1624, equation 3, as `ip_decrease_ttl` of Linux).
#[inline(always)]
const fn decremented_checksum(checksum: u16) -> u16 {
    let sum = checksum as u32 + 0x0100;
    (sum + (sum >= 0xffff) as u32) as u16
}

#[cfg(test)]
mod tests;
