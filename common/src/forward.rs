//! The verdicts: what becomes of a packet at each hook.

use crate::{
    Address, Cidr, Family, Mac, Outcome, Packet, Pass, Peer, Pod, PrefixTable, TooShort, ip,
};

/// What the logic looks up.
pub trait Maps {
    /// The pod of this node that has the address.
    fn pod(&self, address: &Address) -> Option<Pod>;
    /// The prefix lengths that the peers' CIDRs of a family have.
    fn prefixes(&self, family: Family) -> Option<&PrefixTable>;
    /// The peer that has exactly this CIDR.
    fn peer(&self, cidr: &Cidr) -> Option<Peer>;
}

/// What shall become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Into the pod at the other end of the host veth `ifindex`, as if it came in there.
    ToPod {
        /// The host veth.
        ifindex: u32,
    },
    /// Out of the uplink to the node.
    ToPeer {
        /// The uplink.
        ifindex: u32,
        /// The node's address on the link.
        node: Address,
    },
    /// On to the stack, untouched.
    Pass(Pass),
}

impl Verdict {
    /// How the verdict is counted.
    #[inline(always)]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::ToPod { .. } => Outcome::ToPod,
            Self::ToPeer { .. } => Outcome::ToPeer,
            Self::Pass(reason) => Outcome::Passed(*reason),
        }
    }
}

/// Judges what a pod sends through the host veth `ifindex`.
#[inline(always)]
pub fn from_pod<P: Packet, M: Maps>(packet: &mut P, maps: &M, ifindex: u32) -> Verdict {
    try_from_pod(packet, maps, ifindex).unwrap_or_else(Verdict::Pass)
}

/// Judges what comes in at an uplink.
#[inline(always)]
pub fn from_uplink<P: Packet, M: Maps>(packet: &mut P, maps: &M) -> Verdict {
    try_from_uplink(packet, maps).unwrap_or_else(Verdict::Pass)
}

#[inline(always)]
fn try_from_pod<P: Packet, M: Maps>(
    packet: &mut P,
    maps: &M,
    ifindex: u32,
) -> Result<Verdict, Pass> {
    let ethernet = Ethernet::load(packet)?;
    let header = ip::Header::parse(packet, ethernet.kind)?;
    let sender = maps.pod(&header.source).ok_or(Pass::NotFromPod)?;
    if sender.ifindex != ifindex {
        return Err(Pass::NotFromPod);
    }
    let routed = ethernet.destination == sender.gateway;
    if let Some(receiver) = maps.pod(&header.destination) {
        if receiver.ifindex == ifindex {
            return Err(Pass::SamePod);
        }
        if routed {
            return deliver_routed(packet, &header, &receiver);
        }
        // A third pod's MAC means that it is that pod which shall route (a gateway, a firewall).
        if ethernet.destination != receiver.mac {
            return Err(Pass::OtherMac);
        }
        return Ok(Verdict::ToPod {
            ifindex: receiver.ifindex,
        });
    }
    let peer = peer_of(maps, &header.destination).ok_or(Pass::NotToPod)?;
    if !routed {
        return Err(Pass::OtherMac);
    }
    if header.wire_length(packet)? > peer.mtu {
        return Err(Pass::TooBig);
    }
    route(packet, &header)?;
    Ok(Verdict::ToPeer {
        ifindex: peer.ifindex,
        node: peer.node,
    })
}

#[inline(always)]
fn try_from_uplink<P: Packet, M: Maps>(packet: &mut P, maps: &M) -> Result<Verdict, Pass> {
    if !packet.is_for_host() {
        return Err(Pass::OtherMac);
    }
    let ethernet = Ethernet::load(packet)?;
    let header = ip::Header::parse(packet, ethernet.kind)?;
    let receiver = maps.pod(&header.destination).ok_or(Pass::NotToPod)?;
    peer_of(maps, &header.source).ok_or(Pass::NotFromPod)?;
    deliver_routed(packet, &header, &receiver)
}

/// Hands a packet that the node routes to one of its pods.
#[inline(always)]
fn deliver_routed<P: Packet>(
    packet: &mut P,
    header: &ip::Header,
    receiver: &Pod,
) -> Result<Verdict, Pass> {
    route(packet, header)?;
    Ethernet::readdress(packet, receiver.mac, receiver.gateway)?;
    Ok(Verdict::ToPod {
        ifindex: receiver.ifindex,
    })
}

/// Does to the packet what every router does.
#[inline(always)]
fn route<P: Packet>(packet: &mut P, header: &ip::Header) -> Result<(), Pass> {
    if header.hop_limit <= 1 {
        return Err(Pass::HopLimit);
    }
    Ok(header.decrement_hop_limit(packet)?)
}

/// Finds the peer with the longest CIDR that holds the address: one probe a prefix length in use.
#[inline(always)]
fn peer_of<M: Maps>(maps: &M, address: &Address) -> Option<Peer> {
    let table = maps.prefixes(address.family())?;
    for prefix in &table.prefixes {
        if prefix.length == 0 {
            break;
        }
        let cidr = Cidr {
            address: address.masked(&prefix.mask),
            length: prefix.length,
        };
        if let Some(peer) = maps.peer(&cidr) {
            return Some(peer);
        }
    }
    None
}

/// The parts of the Ethernet header that decide.
struct Ethernet {
    destination: Mac,
    kind: u16,
}

impl Ethernet {
    #[inline(always)]
    fn load<P: Packet>(packet: &P) -> Result<Self, Pass> {
        if packet.is_tagged() {
            return Err(Pass::Tagged);
        }
        let [a, b, c, d, e, f, _, _, _, _, _, _, t0, t1] = packet.load(0)?;
        Ok(Self {
            destination: Mac([a, b, c, d, e, f]),
            kind: u16::from_be_bytes([t0, t1]),
        })
    }

    #[inline(always)]
    fn readdress<P: Packet>(packet: &mut P, destination: Mac, source: Mac) -> Result<(), TooShort> {
        let [a, b, c, d, e, f] = destination.0;
        let [g, h, i, j, k, l] = source.0;
        packet.store(0, [a, b, c, d, e, f, g, h, i, j, k, l])
    }
}

#[cfg(test)]
mod tests;
