//! A packet in the kernel: reads, writes and redirects of an skb.

use core::mem::size_of;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, bpf_redir_neigh},
    helpers::{bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type, bpf_skb_store_bytes},
    programs::TcContext,
};
use beeline_common::{Address, Family, Hook, Packet, TooShort, Verdict, abi::REDIRECTED, ip};

use crate::{
    aligned::{Shifted, word},
    maps, monitor, tunnel,
};

/// What [`Shifted`] makes of it.
const _: () = assert!(size_of::<bpf_redir_neigh>() == 20);

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` for clsact: the next program, or the stack, decides.
const NEXT: i32 = -1;

/// `TC_ACT_SHOT`, and `TCX_DROP`.
const DROP: i32 = 2;

/// `PACKET_HOST` of `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// The packet at the hook.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

impl Skb<'_> {
    #[inline(always)]
    pub(crate) const fn raw(&self) -> *mut __sk_buff {
        self.0.skb.skb
    }

    /// The interface that the program is attached to.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context outlives the program's run.
        unsafe { (*self.raw()).ifindex }
    }

    #[inline(always)]
    fn packet_type(&self) -> u32 {
        // SAFETY: as for `ifindex`.
        unsafe { (*self.raw()).pkt_type }
    }

    /// Counts the verdict, tells of it, and does what it says; returns what the program returns.
    #[inline(always)]
    pub(crate) fn carry_out(&self, hook: Hook, verdict: Verdict) -> i32 {
        let outcome = verdict.outcome();
        maps::count(hook, outcome, self.0.len());
        // VERIFIER: told of in each arm, not once before. Of an interface that only some verdicts have LLVM makes a register
        // that the others never set, and stores it ("!read_ok").
        match verdict {
            Verdict::ToPod { ifindex } => {
                monitor::tell(self, hook, outcome, ifindex);
                self.redirect_peer(ifindex)
            }
            Verdict::ToPeer { ifindex, node } => {
                monitor::tell(self, hook, outcome, ifindex);
                self.set_mark(REDIRECTED);
                redirect_neighbour(ifindex, &node)
            }
            Verdict::ToOverlay { ifindex, node, vni } => {
                monitor::tell(self, hook, outcome, ifindex);
                self.set_mark(REDIRECTED);
                tunnel::redirect(self, ifindex, &node, vni)
            }
            Verdict::Pass(_) => {
                monitor::tell(self, hook, outcome, 0);
                NEXT
            }
            Verdict::Drop(_) => {
                monitor::tell(self, hook, outcome, 0);
                DROP
            }
        }
    }

    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        // SAFETY: as for `ifindex`; tc programs may write the mark.
        unsafe { (*self.raw()).mark = mark };
    }

    /// Hands the packet to the pod as the kernel hands over what crosses a veth pair: type and mark are the host's
    /// affair. Kernels since 6.15 reset the type themselves (commit c4327229948879814229b46aa26a750718888503), none
    /// resets the mark.
    #[inline(always)]
    fn redirect_peer(&self, ifindex: u32) -> i32 {
        if self.packet_type() != PACKET_HOST {
            // SAFETY: a context of this program type, and a type that the helper allows.
            unsafe { bpf_skb_change_type(self.raw(), PACKET_HOST) };
        }
        self.set_mark(0);
        // SAFETY: no pointers are passed.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }
}

/// Sends the packet to `node` on the link of `ifindex`; the kernel resolves the neighbour and writes the MACs.
#[inline(always)]
fn redirect_neighbour(ifindex: u32, node: &Address) -> i32 {
    let (family, [first, second]) = match node.family() {
        Family::V4 => (AF_INET, [word(u32::from_ne_bytes(node.v4_octets()), 0), 0]),
        Family::V6 => (AF_INET6, node.words()),
    };
    // As `bpf_redir_neigh`: the family, then the address.
    let mut next_hop = Shifted([word(0, family), first, second]);
    // SAFETY: the next hop is whole, of the size that is passed, and outlives the call.
    unsafe {
        bpf_redirect_neigh(
            ifindex,
            next_hop.start(),
            size_of::<bpf_redir_neigh>() as i32,
            0,
        ) as i32
    }
}

impl Packet for Skb<'_> {
    /// Reads in place: headers are in the linear part, where drivers and the kernel's own receive path put them. A
    /// packet whose headers are not passes to the stack.
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Result<[u8; N], TooShort> {
        let start = self.0.data() + offset;
        // VERIFIER: a packet pointer may be read up to what was compared with `data_end`.
        if start + N > self.0.data_end() {
            return Err(TooShort);
        }
        // SAFETY: the bytes lie before `data_end`.
        Ok(unsafe { (start as *const [u8; N]).read() })
    }

    /// Writes by the helper: a program that writes in place has every cloned packet copied before it starts
    /// (`bpf_unclone_prologue`), also those that it leaves alone.
    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Result<(), TooShort> {
        // A device's checksum of the packet begins behind the Ethernet header. IPv4's header sums up to a constant,
        // so that only IPv6 changes it.
        let flags = if offset >= ip::ETHERNET {
            u64::from(BPF_F_RECOMPUTE_CSUM)
        } else {
            0
        };
        // SAFETY: the buffer is of the size that is passed.
        let failed = unsafe {
            bpf_skb_store_bytes(
                self.raw(),
                offset as u32,
                bytes.as_ptr().cast(),
                N as u32,
                flags,
            )
        };
        if failed == 0 { Ok(()) } else { Err(TooShort) }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        // SAFETY: as for `ifindex`.
        unsafe { (*self.raw()).gso_size }
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // SAFETY: as for `ifindex`.
        unsafe { (*self.raw()).vlan_present != 0 }
    }

    #[inline(always)]
    fn is_for_host(&self) -> bool {
        self.packet_type() == PACKET_HOST
    }

    #[inline(always)]
    fn vni(&self) -> Option<u32> {
        tunnel::vni(self)
    }

    #[inline(always)]
    fn take_redirected(&mut self) -> bool {
        // SAFETY: as for `ifindex`.
        let redirected = unsafe { (*self.raw()).mark } == REDIRECTED;
        if redirected {
            self.set_mark(0);
        }
        redirected
    }
}
