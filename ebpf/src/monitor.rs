//! Telling user space of packets, while somebody monitors.
//!
//! By a perf event array rather than a ring buffer: it takes bytes of the packet straight from the skb, however many,
//! where a ring buffer needs them copied in pieces whose length the verifier knows; and without a reader it holds no
//! memory.
//!
//! What does the work are functions of their own, on no stack but their own, so that the programs come out of the compiler
//! as they would without. If nobody monitors, the verifier removes calls and functions.

use aya_ebpf::{
    Global,
    bindings::__sk_buff,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{PerCpuArray, PerfEventArray},
    programs::TcContext,
};
use beeline_common::{
    Event, Hook, Outcome, Packet as _, Pass,
    abi::{HEAD, MAX_CAPTURED},
};

use crate::skb::Skb;

/// `globals::MONITOR`.
#[unsafe(no_mangle)]
static MONITOR: Global<u32> = Global::new(0);

#[map]
static EVENTS: PerfEventArray<Event> = PerfEventArray::new(0);

/// The event in the making.
#[map]
static EVENT: PerCpuArray<Event> = PerCpuArray::with_max_entries(1, 0);

/// Looks at a packet as it came, if somebody monitors.
#[inline(always)]
pub(crate) fn look(skb: &Skb<'_>) {
    if MONITOR.load() != 0 {
        keep_head(skb.raw());
    }
}

/// Tells of an outcome, if somebody monitors: `target` is the interface that the packet is redirected to, or 0.
#[inline(always)]
pub(crate) fn tell(skb: &Skb<'_>, hook: Hook, outcome: Outcome, target: u32) {
    if MONITOR.load() == 0 {
        return;
    }
    // What a program of ours redirected was told of where that was done.
    if outcome != Outcome::Passed(Pass::Redirected) {
        send(skb.raw(), hook as u32, outcome.number(), target);
    }
}

#[inline(never)]
fn keep_head(skb: *mut __sk_buff) {
    let context = TcContext::new(skb);
    let Some(event) = EVENT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the entry is this CPU's own, and a tc program is not interrupted by another on its CPU.
    let event = unsafe { &mut *event };
    match Skb(&context).load::<HEAD>(0) {
        Ok(head) => {
            event.head = head;
            event.has_head = 1;
        }
        Err(_) => event.has_head = 0,
    }
}

#[inline(never)]
fn send(skb: *mut __sk_buff, hook: u32, outcome: u32, target: u32) {
    let context = TcContext::new(skb);
    let skb = Skb(&context);
    let Some(event) = EVENT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as in `keep_head`.
    let event = unsafe { &mut *event };
    // SAFETY: takes nothing.
    event.time = unsafe { bpf_ktime_get_ns() };
    event.ifindex = skb.ifindex();
    event.target = target;
    event.length = skb.length();
    event.captured = MONITOR.load().min(MAX_CAPTURED).min(event.length);
    event.hook = hook as u16;
    event.outcome = outcome as u16;
    // The upper half of the helper's flags is how much of the packet it appends. What finds no room is lost, and counted
    // by the kernel.
    let event: &Event = event;
    EVENTS.output(&context, event, event.captured);
}
