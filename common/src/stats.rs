//! What is counted, and where.

/// A hook that a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Hook {
    /// tc ingress of a host veth: what the pod sends.
    FromPod,
    /// tc ingress of an uplink: what comes from other nodes.
    FromUplink,
    /// tc ingress of the overlay's device: what comes from other nodes by the overlay.
    FromOverlay,
    /// tc egress of a host veth: what the stack delivers to the pod. With br_netfilter, the bridge translates what it
    /// passes from port to port, so that nowhere else all of it can be seen.
    ToPod,
    /// tc egress of an uplink or the overlay's device: what the stack sends to other nodes.
    ToUplink,
}

/// Why a packet passes to the stack, or on its way in it.
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
    /// ICMP that is neither echo nor an error that can be judged, neighbour discovery among it.
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
    /// Part of a flow that the stack delivers or sends, and may translate.
    StackFlow,
    /// One of the pods is on the slow path.
    SlowPod,
    /// Both pods are isolated, which the bridge enforces.
    Isolated,
    /// A program of ours redirected it before.
    Redirected,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Drop {
    /// The pod sends in somebody else's name.
    Spoofed,
    /// It comes out of an overlay with another VNI.
    ForeignVni,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Redirected into a pod of this node.
    ToPod,
    /// Redirected to another node.
    ToPeer,
    /// Redirected to another node by the overlay.
    ToOverlay,
    /// Passed to the stack.
    Passed(Pass),
    /// Dropped.
    Dropped(Drop),
}

/// The number of different hooks.
pub const HOOKS: u32 = 5;
const REDIRECTS: u32 = 3;
const PASSES: u32 = 15;
const DROPS: u32 = 2;
/// The number of different outcomes.
pub const OUTCOMES: u32 = REDIRECTS + PASSES + DROPS;

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
    pub const ALL: [Self; HOOKS as usize] = [
        Self::FromPod,
        Self::FromUplink,
        Self::FromOverlay,
        Self::ToPod,
        Self::ToUplink,
    ];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::FromUplink => "from_uplink",
            Self::FromOverlay => "from_overlay",
            Self::ToPod => "to_pod",
            Self::ToUplink => "to_uplink",
        }
    }

    /// Whether the program sees what leaves through the interface, rather than what comes in.
    pub const fn is_egress(self) -> bool {
        matches!(self, Self::ToPod | Self::ToUplink)
    }
}

impl Pass {
    const ALL: [Self; PASSES as usize] = [
        Self::NotIp,
        Self::Tagged,
        Self::OtherMac,
        Self::Fragment,
        Self::Options,
        Self::Icmp,
        Self::NotFromPod,
        Self::NotToPod,
        Self::SamePod,
        Self::HopLimit,
        Self::TooBig,
        Self::StackFlow,
        Self::SlowPod,
        Self::Isolated,
        Self::Redirected,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "pass_not_ip",
            Self::Tagged => "pass_tagged",
            Self::OtherMac => "pass_other_mac",
            Self::Fragment => "pass_fragment",
            Self::Options => "pass_options",
            Self::Icmp => "pass_icmp",
            Self::NotFromPod => "pass_not_from_pod",
            Self::NotToPod => "pass_not_to_pod",
            Self::SamePod => "pass_same_pod",
            Self::HopLimit => "pass_hop_limit",
            Self::TooBig => "pass_too_big",
            Self::StackFlow => "pass_stack_flow",
            Self::SlowPod => "pass_slow_pod",
            Self::Isolated => "pass_isolated",
            Self::Redirected => "pass_redirected",
        }
    }
}

impl Drop {
    const ALL: [Self; DROPS as usize] = [Self::Spoofed, Self::ForeignVni];

    const fn name(self) -> &'static str {
        match self {
            Self::Spoofed => "drop_spoofed",
            Self::ForeignVni => "drop_foreign_vni",
        }
    }
}

impl Outcome {
    /// Every outcome, in the order of `STATS`.
    pub const ALL: [Self; OUTCOMES as usize] = Self::all();

    const fn all() -> [Self; OUTCOMES as usize] {
        let mut all = [Self::ToPod; OUTCOMES as usize];
        all[1] = Self::ToPeer;
        all[2] = Self::ToOverlay;
        let mut index = 0;
        while index < PASSES as usize {
            all[REDIRECTS as usize + index] = Self::Passed(Pass::ALL[index]);
            index += 1;
        }
        let mut index = 0;
        while index < DROPS as usize {
            all[(REDIRECTS + PASSES) as usize + index] = Self::Dropped(Drop::ALL[index]);
            index += 1;
        }
        all
    }

    /// The outcome's name in metrics and `beeline status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToPod => "to_pod",
            Self::ToPeer => "to_peer",
            Self::ToOverlay => "to_overlay",
            Self::Passed(reason) => reason.name(),
            Self::Dropped(reason) => reason.name(),
        }
    }

    /// The outcome's place in [`Outcome::ALL`].
    #[inline(always)]
    pub const fn number(self) -> u32 {
        match self {
            Self::ToPod => 0,
            Self::ToPeer => 1,
            Self::ToOverlay => 2,
            Self::Passed(reason) => REDIRECTS + reason as u32,
            Self::Dropped(reason) => REDIRECTS + PASSES + reason as u32,
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
