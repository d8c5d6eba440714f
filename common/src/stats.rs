//! What is counted, and where.

/// A hook that a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// tc ingress of a host veth: what the pod sends.
    FromPod,
    /// tc ingress of an uplink: what comes from other nodes.
    FromUplink,
}

/// Why a packet passes to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Pass {
    /// Neither IPv4 nor IPv6, or cut off within its headers.
    NotIp,
    /// Carries a VLAN tag.
    Tagged,
    /// Addressed to somebody else's MAC: not to the pod that has the destination, not to the node.
    OtherMac,
    /// A fragment.
    Fragment,
    /// A header with options or extensions that the stack must see.
    Options,
    /// An ICMP error, or neighbour discovery.
    Icmp,
    /// The source is not an address of the pod that sends, or not in a peer's CIDR.
    NotFromPod,
    /// The destination is neither a pod nor in a peer's CIDR: the host, a Service, the outside.
    NotToPod,
    /// The pod sends to itself.
    SamePod,
    /// The hop limit ends here, and the sender is to be told.
    HopLimit,
    /// Larger than the uplink's MTU, and the sender is to be told or the packet fragmented.
    TooBig,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Redirected into a pod of this node.
    ToPod,
    /// Redirected to another node.
    ToPeer,
    /// Passed to the stack.
    Passed(Pass),
}

/// The number of different hooks.
pub const HOOKS: u32 = 2;
/// The number of different outcomes.
pub const OUTCOMES: u32 = 13;

/// Value of `STATS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets; one that the wire will see in several segments is one.
    pub packets: u64,
    /// Their bytes, with the Ethernet header.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Count>() == 16);

impl Hook {
    /// Every hook, in the order of `STATS`.
    pub const ALL: [Self; HOOKS as usize] = [Self::FromPod, Self::FromUplink];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::FromUplink => "from_uplink",
        }
    }
}

impl Outcome {
    /// Every outcome, in the order of `STATS`.
    pub const ALL: [Self; OUTCOMES as usize] = [
        Self::ToPod,
        Self::ToPeer,
        Self::Passed(Pass::NotIp),
        Self::Passed(Pass::Tagged),
        Self::Passed(Pass::OtherMac),
        Self::Passed(Pass::Fragment),
        Self::Passed(Pass::Options),
        Self::Passed(Pass::Icmp),
        Self::Passed(Pass::NotFromPod),
        Self::Passed(Pass::NotToPod),
        Self::Passed(Pass::SamePod),
        Self::Passed(Pass::HopLimit),
        Self::Passed(Pass::TooBig),
    ];

    /// The outcome's name in metrics and `beeline status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToPod => "to_pod",
            Self::ToPeer => "to_peer",
            Self::Passed(Pass::NotIp) => "pass_not_ip",
            Self::Passed(Pass::Tagged) => "pass_tagged",
            Self::Passed(Pass::OtherMac) => "pass_other_mac",
            Self::Passed(Pass::Fragment) => "pass_fragment",
            Self::Passed(Pass::Options) => "pass_options",
            Self::Passed(Pass::Icmp) => "pass_icmp",
            Self::Passed(Pass::NotFromPod) => "pass_not_from_pod",
            Self::Passed(Pass::NotToPod) => "pass_not_to_pod",
            Self::Passed(Pass::SamePod) => "pass_same_pod",
            Self::Passed(Pass::HopLimit) => "pass_hop_limit",
            Self::Passed(Pass::TooBig) => "pass_too_big",
        }
    }

    #[inline(always)]
    const fn number(self) -> u32 {
        match self {
            Self::ToPod => 0,
            Self::ToPeer => 1,
            Self::Passed(reason) => 2 + reason as u32,
        }
    }
}

/// The index in `STATS` of what `hook` did.
#[inline(always)]
pub const fn index(hook: Hook, outcome: Outcome) -> u32 {
    hook as u32 * OUTCOMES + outcome.number()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_of_every_hook_has_an_index_of_its_own() {
        let all = Hook::ALL
            .into_iter()
            .flat_map(|hook| Outcome::ALL.map(|outcome| index(hook, outcome)));
        assert!(all.eq(0..HOOKS * OUTCOMES));
    }
}
