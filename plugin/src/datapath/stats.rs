//! Reading the counters.

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray};
use beeline_common::{Count, Hook, Outcome, abi::names, stats::index};

use super::{maps, pins::Pins};

/// A counter: what a program did with how much.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Where.
    pub hook: Hook,
    /// What.
    pub outcome: Outcome,
    /// How much, over all CPUs.
    pub count: Count,
}

/// All counters, also those at zero.
pub(super) fn read(pins: &Pins) -> Result<Vec<Counter>> {
    let map: PerCpuArray<MapData, Count> = maps::per_cpu(pins, names::STATS)?;
    let mut counters = Vec::new();
    for hook in Hook::ALL {
        for outcome in Outcome::ALL {
            let per_cpu = map
                .get(&index(hook, outcome), 0)
                .with_context(|| format!("map {}: read", names::STATS))?;
            let count = per_cpu.iter().fold(Count::default(), |sum, cpu| Count {
                packets: sum.packets + cpu.packets,
                bytes: sum.bytes + cpu.bytes,
            });
            counters.push(Counter {
                hook,
                outcome,
                count,
            });
        }
    }
    Ok(counters)
}
