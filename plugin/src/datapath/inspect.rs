//! Whether what is pinned is what the kernel runs, and of this build. Changes nothing.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramInfo, SchedClassifier};
use beeline_common::{Hook, abi::names};

use super::{Datapath, Kind, Place, Settings, attach, load, maps};
use crate::net::tc;

/// The maps that are pinned.
const MAPS: [&str; 7] = [
    names::PODS,
    names::PORTS,
    names::PEERS,
    names::PREFIXES,
    names::STACK_FLOWS,
    names::STACK_CONNS,
    names::STATS,
];

impl Datapath {
    /// How many flows each of the maps of flows can hold. Unlike [`flows`](Self::flows) it counts none.
    pub fn flow_sizes(&self) -> Result<[u32; 2]> {
        let size = |name| maps::size(&self.pins, name);
        Ok([size(names::STACK_FLOWS)?, size(names::STACK_CONNS)?])
    }

    /// Whether the programs were translated to the processor's instructions.
    pub fn is_jitted(&self) -> Result<bool> {
        let pin = self.pins.program(Hook::FromPod);
        let info = ProgramInfo::from_pin(&pin);
        let info = info.with_context(|| format!("{}: open pin", pin.display()))?;
        Ok(info.size_jitted() != 0)
    }

    /// The hooks whose pinned program has other instructions than this build's: those are loaded to compare, and go.
    /// Nobody must remove pins meanwhile.
    ///
    /// # Errors
    ///
    /// A map's pin is gone, or the kernel refuses the programs.
    pub fn of_other_builds(&self, settings: &Settings) -> Result<Vec<Hook>> {
        for name in MAPS {
            // Loading would make it anew.
            ensure!(self.pins.map(name).exists(), "map {name}: its pin is gone");
        }
        let mut object = load::verified(&self.pins, settings.features, settings.flows, 0)?;
        let mut others = Vec::new();
        for hook in Hook::ALL {
            let own = load::program(&mut object, hook)?.info()?.tag();
            let pin = self.pins.program(hook);
            let pinned = ProgramInfo::from_pin(&pin);
            let pinned = pinned.with_context(|| format!("{}: open pin", pin.display()))?;
            if pinned.tag() != own {
                others.push(hook);
            }
        }
        Ok(others)
    }

    /// Of these places those that only the pins tell of: somebody took the program off the interface.
    pub fn loose(&self, places: &[Place]) -> Vec<Place> {
        let mut loose = places.to_vec();
        loose.retain(|place| !runs(place));
        loose
    }

    /// The other versions of the ABI that something is pinned of.
    pub fn other_versions(&self) -> Result<Vec<String>> {
        self.pins.other_versions()
    }
}

/// Whether the program is attached. What cannot be told is taken to be as the pins say.
fn runs(place: &Place) -> bool {
    match place.by {
        Kind::Tcx => {
            let Ok(interface) = attach::interface(place.ifindex) else {
                return false;
            };
            let there = SchedClassifier::query_tcx(&interface, attach::direction(place.hook));
            there.map_or(true, |(_, programs)| {
                programs.iter().any(|program| program.id() == place.program)
            })
        }
        Kind::Clsact => {
            let hook = if place.hook.is_egress() {
                tc::Hook::Egress
            } else {
                tc::Hook::Ingress
            };
            let priority = attach::priority(place.hook);
            let there = tc::filters(place.ifindex, hook);
            there.map_or(true, |filters| {
                let mut filters = filters.iter();
                filters.any(|filter| filter.is_own() && filter.priority == priority)
            })
        }
    }
}
