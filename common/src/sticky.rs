//! Stickiness: which flows belong to the stack, and stay with it.
//!
//! kube-proxy and portmap translate addresses in the stack. What it delivers to a pod or sends to a peer is remembered,
//! whoever translated it; the answer then takes the stack too, which translates it back.
//!
//! ```text
//!            SYN, UDP, SCTP, echo …             SYN+ACK of the answer, or any later segment
//! to_pod  ──────────────────────────► FLOWS ───────────────────────────────────────────────► CONNS
//! to_uplink     (least recently used goes first)      (RST, or the ACK of the second FIN, takes it out)
//! ```
//!
//! Each map holds as many flows as conntrack holds connections. Of UDP and the like, conntrack forgets what is idle
//! sooner than so many newer ones can push it out. A TCP connection may be idle for days; that is why it has a map of
//! its own, which neither datagrams nor unanswered SYNs can fill, and which it leaves when it closes.

use crate::{Flow, Maps, Segment};

/// A map of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `STACK_FLOWS`: everything but TCP, and TCP connections that are not answered.
    Flows,
    /// `STACK_CONNS`: answered TCP connections.
    Conns,
}

/// The lower end has sent its FIN.
const FIN_LOWER: u32 = 1;
/// The upper end has sent its FIN.
const FIN_UPPER: u32 = 2;
/// Both have; the other bits are those of the sequence number behind the second FIN, but for the uppermost two.
const FIN_BOTH: u32 = FIN_LOWER | FIN_UPPER;

/// Whether a packet that is about to take the fast path belongs to the stack.
#[inline(always)]
pub fn is_remembered<M: Maps>(maps: &M, segment: &Segment) -> bool {
    let Segment { flow, .. } = segment;
    if !segment.is_tcp() {
        return maps.flow(Table::Flows, flow).is_some();
    }
    if let Some(closed) = maps.flow(Table::Conns, flow) {
        follow(maps, segment, closed);
        return true;
    }
    // An answer to what is not answered yet: nothing else needs the second look-up.
    if !segment.has(Segment::SYN | Segment::RST) || maps.flow(Table::Flows, flow).is_none() {
        return false;
    }
    if segment.has(Segment::SYN) && segment.has(Segment::ACK) {
        // The server may be the next to speak.
        maps.remember(Table::Conns, flow, 0);
    }
    true
}

/// Whether a flow belongs to the stack of which no more is known than an ICMP error tells.
#[inline(always)]
pub(crate) fn is_known<M: Maps>(maps: &M, flow: &Flow) -> bool {
    maps.flow(Table::Flows, flow).is_some() || maps.flow(Table::Conns, flow).is_some()
}

/// Remembers a packet that the stack delivers or sends.
#[inline(always)]
pub(crate) fn remember<M: Maps>(maps: &M, segment: &Segment) {
    let Segment { flow, .. } = segment;
    if segment.is_tcp() {
        if let Some(closed) = maps.flow(Table::Conns, flow) {
            return follow(maps, segment, closed);
        }
        if segment.has(Segment::RST) {
            return;
        }
        if !segment.has(Segment::SYN) || segment.has(Segment::ACK) {
            // Is answered, began before this map, or was pushed out of it.
            return maps.remember(Table::Conns, flow, fin(segment));
        }
    }
    if maps.flow(Table::Flows, flow).is_none() {
        maps.remember(Table::Flows, flow, 0);
    }
}

/// Takes note of how far a connection is closed.
///
/// Not every ACK after both FINs is the last one: it may ask for data that got lost before the FIN.
#[inline(always)]
fn follow<M: Maps>(maps: &M, segment: &Segment, closed: u32) {
    let fin = fin(segment);
    let rest = |sequence: u32| sequence << 2;
    let flow = &segment.flow;
    if segment.has(Segment::RST) {
        maps.forget(Table::Conns, flow);
    } else if segment.has(Segment::SYN) {
        // The ports are used anew.
        if closed != 0 {
            maps.remember(Table::Conns, flow, 0);
        }
    } else if closed & FIN_BOTH == FIN_BOTH {
        if fin == 0 && rest(segment.acknowledged) == closed & !FIN_BOTH {
            maps.forget(Table::Conns, flow);
        }
    } else if closed | fin == FIN_BOTH {
        maps.remember(Table::Conns, flow, FIN_BOTH | rest(segment.end));
    } else if fin & !closed != 0 {
        maps.remember(Table::Conns, flow, fin);
    }
}

#[inline(always)]
const fn fin(segment: &Segment) -> u32 {
    match (segment.has(Segment::FIN), segment.from_lower) {
        (false, _) => 0,
        (true, true) => FIN_LOWER,
        (true, false) => FIN_UPPER,
    }
}

#[cfg(test)]
mod tests;
