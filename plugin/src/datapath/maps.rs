//! Opening pinned maps as their types.

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use beeline_common::{self as abi, Address, Cidr, Flow, Peer, abi::names};
use serde::Serialize;

use super::pins::Pins;

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Its name.
    pub map: &'static str,
    /// Entries that it holds.
    pub held: usize,
    /// Entries that it can hold. A map of flows then pushes out the one that was not used for the longest time.
    pub size: u32,
}

impl Usage {
    /// The maps that can be full.
    pub const MAPS: [&str; 4] = [
        names::PODS,
        names::PEERS,
        names::STACK_FLOWS,
        names::STACK_CONNS,
    ];
}

fn open(pins: &Pins, name: &str) -> Result<MapData> {
    MapData::from_pin(pins.map(name)).with_context(|| format!("map {name}: open pin"))
}

pub(super) fn hash<K: Pod, V: Pod>(pins: &Pins, name: &str) -> Result<HashMap<MapData, K, V>> {
    let map = Map::HashMap(open(pins, name)?);
    map.try_into().with_context(|| format!("map {name}"))
}

/// A hash map that pushes out what was used least recently.
pub(super) fn lru<K: Pod, V: Pod>(pins: &Pins, name: &str) -> Result<HashMap<MapData, K, V>> {
    let map = Map::LruHashMap(open(pins, name)?);
    map.try_into().with_context(|| format!("map {name}"))
}

/// How full a map of [`Usage::MAPS`] is.
pub(super) fn usage(pins: &Pins, name: &'static str) -> Result<Usage> {
    let map = open(pins, name)?;
    let size = max_entries(&map, name)?;
    let held = match name {
        names::PODS => count::<Address, abi::Pod>(Map::HashMap(map), size),
        names::PEERS => count::<Cidr, Peer>(Map::HashMap(map), size),
        _ => count::<Flow, u32>(Map::LruHashMap(map), size),
    };
    Ok(Usage {
        map: name,
        held: held.with_context(|| format!("map {name}: count"))?,
        size,
    })
}

/// How many entries a map can hold.
pub(super) fn size(pins: &Pins, name: &str) -> Result<u32> {
    max_entries(&open(pins, name)?, name)
}

fn max_entries(map: &MapData, name: &str) -> Result<u32> {
    let info = map.info();
    let info = info.with_context(|| format!("map {name}: get information"))?;
    Ok(info.max_entries())
}

fn count<K: Pod, V: Pod>(map: Map, size: u32) -> Result<usize, MapError> {
    let map: HashMap<MapData, K, V> = map.try_into()?;
    // The kernel starts anew where the entry has gone that the walk is at, so that there is no end of its own to it.
    let keys = map.keys().take(size as usize);
    Ok(keys.filter(Result::is_ok).count())
}

pub(super) fn array<V: Pod>(pins: &Pins, name: &str) -> Result<Array<MapData, V>> {
    let map = Map::Array(open(pins, name)?);
    map.try_into().with_context(|| format!("map {name}"))
}

pub(super) fn per_cpu<V: Pod>(pins: &Pins, name: &str) -> Result<PerCpuArray<MapData, V>> {
    let map = Map::PerCpuArray(open(pins, name)?);
    map.try_into().with_context(|| format!("map {name}"))
}

/// Removes an entry; already gone is success.
pub(super) fn remove<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K) -> Result<()> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(error) => Err(error).context("map entry: remove"),
    }
}
