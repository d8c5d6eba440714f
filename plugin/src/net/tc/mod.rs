//! Traffic control on links: what shapes or filters a pod's packets, and word of its changes.
//!
//! beeline's own filters are recognised by [`FILTER_PRIORITY`] and [`FILTER_HANDLE`]; its tcx links do not appear here.

use std::fmt;

use anyhow::{Context, Result};
use beeline_common::abi::{FILTER_HANDLE, FILTER_PRIORITY, OBSERVER_FILTER_PRIORITY};
use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::exchange::exchange;

pub(crate) mod message;
#[cfg(test)]
mod netns_tests;
pub(crate) mod watch;

pub use watch::{Change, Watch};

/// Kinds that do not limit a rate or drop by choice, and that many nodes make their default by a sysctl.
const HARMLESS: [&str; 5] = ["noqueue", "pfifo_fast", "fq_codel", "fq", "mq"];

/// A queueing discipline of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// What it is, such as `tbf`; `clsact` and `ingress` only hold filters.
    pub kind: String,
    /// Its handle, as in `tc`'s `8001:` with a minor number of 0; 0 if the kernel made it by itself.
    pub handle: u32,
    /// The class that it hangs on; `u32::MAX` for the root.
    pub parent: u32,
}

/// A filter at a hook of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What it is, such as `u32` or `bpf`.
    pub kind: String,
    /// Filters with a lower number come first.
    pub priority: u16,
    /// Tells filters of one priority apart.
    pub handle: u32,
    /// The name of a BPF filter's program.
    pub program: Option<String>,
}

/// Where a filter sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What the link receives.
    Ingress,
    /// What the link sends, before it is queued.
    Egress,
}

/// Lists the qdiscs of a link; none if there is no such link.
pub fn qdiscs(index: u32) -> Result<Vec<Qdisc>> {
    let listed = exchange(
        NETLINK_ROUTE,
        message::list_qdiscs(),
        NLM_F_DUMP,
        |described: message::Described| described.qdisc(index),
    );
    listed.with_context(|| format!("link {index}: list qdiscs"))
}

/// Lists the filters at a hook of a link; a link with an `ingress` qdisc shows that one's at both hooks.
pub fn filters(index: u32, hook: Hook) -> Result<Vec<Filter>> {
    let listed = exchange(
        NETLINK_ROUTE,
        message::list_filters(index, hook),
        NLM_F_DUMP,
        message::Described::filter,
    );
    listed.with_context(|| format!("link {index}: list {hook} filters"))
}

/// Names what shapes or filters a link's packets and is neither beeline's nor the kernel's default, if anything does.
pub fn shaping(index: u32) -> Result<Option<String>> {
    for qdisc in qdiscs(index)? {
        for hook in qdisc.hooks() {
            let foreign = filters(index, *hook)?;
            if let Some(filter) = foreign.iter().find(|filter| !filter.is_own()) {
                return Ok(Some(format!("{hook} filter {filter}")));
            }
        }
        if !qdisc.is_harmless() {
            return Ok(Some(format!("qdisc {}", qdisc.kind)));
        }
    }
    Ok(None)
}

impl Qdisc {
    /// The hooks that it opens to filters.
    fn hooks(&self) -> &'static [Hook] {
        match &*self.kind {
            "clsact" => &[Hook::Ingress, Hook::Egress],
            "ingress" => &[Hook::Ingress],
            _ => &[],
        }
    }

    /// Whether it delays or drops no packet by itself.
    fn is_harmless(&self) -> bool {
        self.handle == 0 || !self.hooks().is_empty() || HARMLESS.contains(&&*self.kind)
    }
}

impl Filter {
    /// Whether beeline made it.
    pub fn is_own(&self) -> bool {
        let ours = [FILTER_PRIORITY, OBSERVER_FILTER_PRIORITY];
        self.kind == "bpf" && ours.contains(&self.priority) && self.handle == FILTER_HANDLE
    }
}

impl Hook {
    /// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` or `TC_H_MIN_EGRESS`.
    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(program) = &self.program {
            write!(f, " {program:?}")?;
        }
        write!(f, " with priority {}", self.priority)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}
