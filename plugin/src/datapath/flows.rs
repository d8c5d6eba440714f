//! The flows that the stack keeps.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData};
use beeline_common::{Flow, abi::names};

use super::{maps, pins::Pins};

/// The protocol number of TCP.
const TCP: u8 = 6;

/// Has the stack keep flows that are open already.
pub(super) fn remember(pins: &Pins, flows: impl IntoIterator<Item = Flow>) -> Result<()> {
    let [mut datagrams, mut connections] = open(pins)?;
    for flow in flows {
        let (map, name) = match flow.protocol() {
            TCP => (&mut connections, names::STACK_CONNS),
            _ => (&mut datagrams, names::STACK_FLOWS),
        };
        map.insert(flow, 0, 0)
            .with_context(|| format!("map {name}: insert"))?;
    }
    Ok(())
}

/// Forgets every flow that `keep` does not tell.
pub(super) fn retain(pins: &Pins, keep: impl Fn(&Flow) -> bool) -> Result<()> {
    for mut map in open(pins)? {
        let held: Vec<Flow> = map.keys().collect::<Result<_, _>>()?;
        for flow in held.iter().filter(|flow| !keep(flow)) {
            maps::remove(&mut map, flow)?;
        }
    }
    Ok(())
}

fn open(pins: &Pins) -> Result<[HashMap<MapData, Flow, u32>; 2]> {
    let open = |name| maps::lru(pins, name);
    Ok([open(names::STACK_FLOWS)?, open(names::STACK_CONNS)?])
}
