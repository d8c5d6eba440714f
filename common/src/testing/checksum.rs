//! Internet checksums by the book (RFC 1071), to hold the incremental ones against.

use crate::ip::ETHERNET;

/// The checksum of the parts in a row. The parts must be of even length, but for the last.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of a transport segment of IPv4 or IPv6 addresses in network order.
pub(super) fn transport(source: &[u8], destination: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    // IPv6's pseudo-header has wider fields, but the same sum.
    let [high, low] = (segment.len() as u16).to_be_bytes();
    checksum(&[source, destination, &[0, protocol, high, low], segment])
}

/// Whether every checksum in a whole IP frame without options holds: the IPv4 header's, and that of TCP, UDP or ICMP.
pub fn checksums_hold(frame: &[u8]) -> bool {
    let ip = &frame[ETHERNET..];
    let (protocol, source, destination, segment) = match ip[0] >> 4 {
        4 => {
            if checksum(&[&ip[..20]]) != 0 {
                return false;
            }
            (ip[9], &ip[12..16], &ip[16..20], &ip[20..])
        }
        _ => (ip[6], &ip[8..24], &ip[24..40], &ip[40..]),
    };
    match protocol {
        1 => checksum(&[segment]) == 0,
        6 | 17 | 58 => transport(source, destination, protocol, segment) == 0,
        _ => true,
    }
}
