//! The verdicts: what becomes of a packet at each hook.

use crate::{
    Address, Cidr, Drop, Ethernet, Family, Flow, Outcome, Packet, Pass, Peer, Pod, Port,
    PrefixTable, Segment, Table, ip, spoof, sticky,
};

/// What the logic looks up and remembers.
pub trait Maps {
    /// The pod of this node that has the address.
    fn pod(&self, address: &Address) -> Option<Pod>;
    /// The host veth of that interface index.
    fn port(&self, ifindex: u32) -> Option<Port>;
    /// The prefix lengths that the peers' CIDRs of a family have.
    fn prefixes(&self, family: Family) -> Option<&PrefixTable>;
    /// The peer that has exactly this CIDR.
    fn peer(&self, cidr: &Cidr) -> Option<Peer>;
    /// What is remembered of a flow.
    fn flow(&self, table: Table, flow: &Flow) -> Option<u32>;
    /// Remembers a flow, or something else of it.
    fn remember(&self, table: Table, flow: &Flow, value: u32);
    /// Forgets a flow.
    fn forget(&self, table: Table, flow: &Flow);
}

/// What a node uses; fixed while its programs are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Whether what a pod forges is dropped.
    pub anti_spoof: bool,
    /// The VNI of the overlay; 0 if there is none.
    pub vni: u32,
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
    /// Into the overlay to the node.
    ToOverlay {
        /// The overlay's device.
        ifindex: u32,
        /// The node's end of the overlay.
        node: Address,
        /// The network identifier.
        vni: u32,
    },
    /// On in the stack, untouched.
    Pass(Pass),
    /// Nowhere.
    Drop(Drop),
}

impl Verdict {
    /// How the verdict is counted.
    #[inline(always)]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::ToPod { .. } => Outcome::ToPod,
            Self::ToPeer { .. } => Outcome::ToPeer,
            Self::ToOverlay { .. } => Outcome::ToOverlay,
            Self::Pass(reason) => Outcome::Passed(*reason),
            Self::Drop(reason) => Outcome::Dropped(*reason),
        }
    }
}

/// Judges what a pod sends through the host veth `ifindex`.
#[inline(always)]
pub fn from_pod<P: Packet, M: Maps>(
    packet: &mut P,
    maps: &M,
    features: Features,
    ifindex: u32,
) -> Verdict {
    match try_from_pod(packet, maps, features, ifindex) {
        Ok(verdict) => verdict,
        Err(reason)
            if features.anti_spoof
                && !reason.vouches()
                && spoof::is_forged(packet, maps, ifindex) =>
        {
            Verdict::Drop(Drop::Spoofed)
        }
        Err(reason) => Verdict::Pass(reason),
    }
}

/// Judges what comes in at an uplink.
#[inline(always)]
pub fn from_uplink<P: Packet, M: Maps>(packet: &mut P, maps: &M) -> Verdict {
    try_from_uplink(packet, maps).unwrap_or_else(Verdict::Pass)
}

/// Judges what comes out of the overlay.
#[inline(always)]
pub fn from_overlay<P: Packet, M: Maps>(packet: &mut P, maps: &M, features: Features) -> Verdict {
    if packet.vni() != Some(features.vni) {
        return Verdict::Drop(Drop::ForeignVni);
    }
    from_uplink(packet, maps)
}

/// Takes note of what the stack delivers to a pod of this node, also to one on the slow path: before they leave it,
/// what the stack translates for them must be known.
#[inline(always)]
pub fn to_pod<P: Packet, M: Maps>(packet: &P, maps: &M) -> Verdict {
    Verdict::Pass(match observed(packet) {
        Ok(([source, destination], segment)) => {
            if maps.pod(&destination).is_none() {
                Pass::NotToPod
            } else if maps.pod(&source).is_some() || peer_of(maps, &source).is_some() {
                sticky::remember(maps, &segment);
                Pass::StackFlow
            } else {
                Pass::NotFromPod
            }
        }
        Err(reason) => reason,
    })
}

/// Takes note of what the stack sends to other nodes.
#[inline(always)]
pub fn to_uplink<P: Packet, M: Maps>(packet: &mut P, maps: &M) -> Verdict {
    if packet.take_redirected() {
        return Verdict::Pass(Pass::Redirected);
    }
    Verdict::Pass(match observed(packet) {
        Ok(([source, destination], segment)) => {
            if maps.pod(&source).is_none() {
                Pass::NotFromPod
            } else if peer_of(maps, &destination).is_none() {
                Pass::NotToPod
            } else {
                sticky::remember(maps, &segment);
                Pass::StackFlow
            }
        }
        Err(reason) => reason,
    })
}

#[inline(always)]
fn try_from_pod<P: Packet, M: Maps>(
    packet: &mut P,
    maps: &M,
    features: Features,
    ifindex: u32,
) -> Result<Verdict, Pass> {
    let ethernet = Ethernet::load(packet)?;
    let header = ip::Header::parse(packet, ethernet.kind)?;
    let sender = maps.pod(&header.source).ok_or(Pass::NotFromPod)?;
    if sender.ifindex != ifindex || ethernet.source != sender.mac {
        return Err(Pass::NotFromPod);
    }
    let routed = ethernet.destination == sender.gateway;
    if let Some(receiver) = maps.pod(&header.destination) {
        if receiver.ifindex == ifindex {
            return Err(Pass::SamePod);
        }
        may_exchange(&sender, &receiver)?;
        keep_to_path(packet, maps, &header, Errors::OfReceiver)?;
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
    if sender.has(Pod::SLOW) {
        return Err(Pass::SlowPod);
    }
    if header.wire_length(packet)? > peer.mtu {
        return Err(Pass::TooBig);
    }
    keep_to_path(packet, maps, &header, Errors::OfReceiver)?;
    route(packet, &header)?;
    let Peer { ifindex, node, .. } = peer;
    if features.vni == 0 || peer.vni == 0 {
        return Ok(Verdict::ToPeer { ifindex, node });
    }
    Ethernet::readdress(packet, peer.mac, peer.source)?;
    Ok(Verdict::ToOverlay {
        ifindex,
        node,
        vni: features.vni,
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
    if receiver.has(Pod::SLOW) {
        return Err(Pass::SlowPod);
    }
    if header.error {
        // Any router on the way may have something to say about what the pod sent to a peer.
        let quoted = header.quoted(packet)?;
        peer_of(maps, &quoted.destination).ok_or(Pass::NotFromPod)?;
    } else {
        peer_of(maps, &header.source).ok_or(Pass::NotFromPod)?;
    }
    keep_to_path(packet, maps, &header, Errors::OfAnyone)?;
    deliver_routed(packet, &header, &receiver)
}

/// Whether two pods of this node may meet on the fast path.
#[inline(always)]
const fn may_exchange(sender: &Pod, receiver: &Pod) -> Result<(), Pass> {
    if sender.has(Pod::SLOW) || receiver.has(Pod::SLOW) {
        return Err(Pass::SlowPod);
    }
    if sender.has(Pod::ISOLATED) && receiver.has(Pod::ISOLATED) {
        return Err(Pass::Isolated);
    }
    Ok(())
}

/// Whose ICMP errors are judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// Those of whoever should have received the packet. What a pod says of packets for others, it says as a router of
    /// theirs, and the stack may have translated them.
    OfReceiver,
    /// Those of routers, too.
    OfAnyone,
}

/// Sends a flow of the stack back there, and an ICMP error the way of the flow that it is about.
#[inline(always)]
fn keep_to_path<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    header: &ip::Header,
    errors: Errors,
) -> Result<(), Pass> {
    let of_stack = if header.error {
        let quoted = header.quoted(packet)?;
        let of_receiver = quoted.destination == header.source;
        if quoted.source != header.destination || !(of_receiver || errors == Errors::OfAnyone) {
            return Err(Pass::Icmp);
        }
        sticky::is_known(maps, &quoted.segment.flow)
    } else {
        sticky::is_remembered(maps, &header.segment(packet)?)
    };
    if of_stack {
        Err(Pass::StackFlow)
    } else {
        Ok(())
    }
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

/// Addresses and flow of what the stack has in hand.
#[inline(always)]
fn observed<P: Packet>(packet: &P) -> Result<([Address; 2], Segment), Pass> {
    let ethernet = Ethernet::load(packet)?;
    match ip::Header::parse(packet, ethernet.kind) {
        Ok(header) if header.error => Err(Pass::Icmp),
        Ok(header) => {
            let addresses = [header.source, header.destination];
            Ok((addresses, header.segment(packet)?))
        }
        Err(Pass::Fragment) => ip::first_fragment(packet, ethernet.kind),
        Err(reason) => Err(reason),
    }
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

impl Pass {
    /// Whether a pod's packet that passes for this reason is known to come from one of the pod's own addresses.
    #[inline(always)]
    const fn vouches(self) -> bool {
        !matches!(
            self,
            Self::NotIp
                | Self::Tagged
                | Self::Fragment
                | Self::Options
                | Self::Icmp
                | Self::NotFromPod
        )
    }
}

#[cfg(test)]
mod tests;
