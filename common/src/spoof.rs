//! What a pod sends in somebody else's name.

use crate::{
    Address, Ethernet, Maps, Packet, TooShort,
    ip::{ETHERNET, ETHERTYPE_V4, ETHERTYPE_V6, ICMPV6, UDP},
};

const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethernet and IPv4, with addresses of six and four bytes (RFC 826).
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The most IPv6 extension headers behind which an advertisement is looked for; whoever sends more has something to hide.
const MAX_EXTENSIONS: usize = 4;

/// Whether a frame that none of the sender's addresses vouches for is forged: it names a MAC that is not the pod's, or
/// an address that is not its own.
///
/// A pod without an address yet may ask for one (DHCP, RFC 2131; duplicate address detection, RFC 4862 and 5227), and
/// every interface has a link-local address.
#[inline(always)]
pub(crate) fn is_forged<P: Packet, M: Maps>(packet: &P, maps: &M, ifindex: u32) -> bool {
    judge(packet, maps, ifindex).unwrap_or(true)
}

#[inline(always)]
fn judge<P: Packet, M: Maps>(packet: &P, maps: &M, ifindex: u32) -> Result<bool, TooShort> {
    // Behind a tag may be anything.
    let Ok(ethernet) = Ethernet::load(packet) else {
        return Ok(true);
    };
    let own_mac = maps
        .port(ifindex)
        .is_some_and(|port| ethernet.source == port.mac);
    if !own_mac {
        return Ok(true);
    }
    let owns = |address: &Address| maps.pod(address).is_some_and(|pod| pod.ifindex == ifindex);
    Ok(match ethernet.kind {
        ETHERTYPE_V4 => {
            let source: [u8; 4] = packet.load(ETHERNET + 12)?;
            let [protocol] = packet.load(ETHERNET + 9)?;
            let asks = u32::from_ne_bytes(source) == 0 && protocol == UDP;
            !asks && !owns(&Address::from_v4(source))
        }
        ETHERTYPE_V6 => forged_v6(packet, owns)?,
        ETHERTYPE_ARP => {
            let [h0, h1, p0, p1, hlen, plen] = packet.load(ETHERNET)?;
            let sender: [u8; 4] = packet.load(ETHERNET + 14)?;
            let [a, b, c, d, e, f] = packet.load(ETHERNET + 8)?;
            let probes = u32::from_ne_bytes(sender) == 0;
            [h0, h1, p0, p1, hlen, plen] != ARP_HEADER
                || ethernet.source != crate::Mac([a, b, c, d, e, f])
                || !(probes || owns(&Address::from_v4(sender)))
        }
        _ => false,
    })
}

#[inline(always)]
fn forged_v6<P: Packet>(packet: &P, owns: impl Fn(&Address) -> bool) -> Result<bool, TooShort> {
    let source = Address::from_v6(packet.load(ETHERNET + 8)?);
    if !(source.is_unspecified() || source.is_link_local() || owns(&source)) {
        return Ok(true);
    }
    let [mut protocol] = packet.load(ETHERNET + 6)?;
    let mut at = ETHERNET + 40;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(protocol) {
            break;
        }
        let [next, length] = packet.load(at)?;
        protocol = next;
        at += (usize::from(length) + 1) * 8;
    }
    if protocol != ICMPV6 {
        return Ok(is_extension(protocol));
    }
    // VERIFIER: of a single byte at a place that varies it does not see that it was compared with the end.
    let [kind, _] = packet.load(at)?;
    if kind != NEIGHBOUR_ADVERTISEMENT {
        return Ok(false);
    }
    // It says where the target is, whoever sends it (RFC 4861, section 4.4).
    let target = Address::from_v6(packet.load(at + 8)?);
    Ok(!(target.is_link_local() || owns(&target)))
}

/// Whether it is a header of options or a route, behind which every receiver looks on (RFC 8200); neighbour discovery
/// in fragments is ignored (RFC 6980).
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 60)
}

#[cfg(test)]
mod tests;
