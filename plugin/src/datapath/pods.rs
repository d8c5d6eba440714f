//! The node's pods in the maps.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use beeline_common::{Address, Mac, Pod, Port, abi::names};

use super::{maps, pins::Pins};

/// Updates an entry only if it is there (`linux/bpf.h`).
const BPF_EXIST: u64 = 2;

/// Sets where each of the addresses is, and who may send through the host veth.
///
/// # Errors
///
/// A map is full. What this call has set before is taken back.
pub(super) fn set(pins: &Pins, addresses: &[IpAddr], pod: Pod) -> Result<()> {
    let mut ports: HashMap<MapData, u32, Port> = maps::hash(pins, names::PORTS)?;
    let port = Port {
        mac: pod.mac,
        reserved: 0,
    };
    ports
        .insert(pod.ifindex, port, 0)
        .with_context(|| format!("map {}: insert {}", names::PORTS, pod.ifindex))?;
    let mut map = open(pins)?;
    for (done, address) in addresses.iter().enumerate() {
        let inserted = map
            .insert(Address::from(*address), pod, 0)
            .with_context(|| format!("map {}: insert {address}", names::PODS));
        if inserted.is_err() {
            remove(pins, &addresses[..done], pod.ifindex)?;
            return inserted;
        }
    }
    Ok(())
}

/// Changes the host veth and the addresses that are its, and makes no entry that is not there: a DEL may come in between.
pub(super) fn change(pins: &Pins, addresses: &[IpAddr], pod: Pod) -> Result<()> {
    let mut ports: HashMap<MapData, u32, Port> = maps::hash(pins, names::PORTS)?;
    let port = Port {
        mac: pod.mac,
        reserved: 0,
    };
    if_there(ports.insert(pod.ifindex, port, BPF_EXIST))
        .with_context(|| format!("map {}: change {}", names::PORTS, pod.ifindex))?;
    let mut map = open(pins)?;
    for address in addresses {
        let key = Address::from(*address);
        if map
            .get(&key, 0)
            .is_ok_and(|held| held.ifindex == pod.ifindex)
        {
            if_there(map.insert(key, pod, BPF_EXIST))
                .with_context(|| format!("map {}: change {address}", names::PODS))?;
        }
    }
    Ok(())
}

/// That an entry is not there any more is no failure.
fn if_there(changed: Result<(), MapError>) -> Result<(), MapError> {
    match changed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        changed => changed,
    }
}

/// The MAC that what comes from a host veth is to have; `None` if that is no pod's.
pub(super) fn mac_of(pins: &Pins, ifindex: u32) -> Result<Option<Mac>> {
    let ports: HashMap<MapData, u32, Port> = maps::hash(pins, names::PORTS)?;
    match ports.get(&ifindex, 0) {
        Ok(port) => Ok(Some(port.mac)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("map {}: look up", names::PORTS)),
    }
}

/// Takes out the host veth and the addresses, these only where they are still those of this host veth: an address that
/// another pod has by now stays.
pub(super) fn remove(pins: &Pins, addresses: &[IpAddr], ifindex: u32) -> Result<()> {
    let mut ports: HashMap<MapData, u32, Port> = maps::hash(pins, names::PORTS)?;
    maps::remove(&mut ports, &ifindex)?;
    let mut map = open(pins)?;
    for address in addresses {
        let key = Address::from(*address);
        match map.get(&key, 0) {
            Ok(pod) if pod.ifindex == ifindex => maps::remove(&mut map, &key)?,
            Ok(_) | Err(MapError::KeyNotFound) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("map {}: look up", names::PODS));
            }
        }
    }
    Ok(())
}

/// Takes out all pods.
pub(super) fn clear(pins: &Pins) -> Result<()> {
    let mut map = open(pins)?;
    let held: Vec<Address> = map.keys().collect::<Result<_, _>>()?;
    held.iter().try_for_each(|key| maps::remove(&mut map, key))
}

/// All pods.
pub(super) fn list(pins: &Pins) -> Result<Vec<(IpAddr, Pod)>> {
    open(pins)?
        .iter()
        .map(|entry| {
            let (address, pod) = entry?;
            Ok((address.into(), pod))
        })
        .collect()
}

fn open(pins: &Pins) -> Result<HashMap<MapData, Address, Pod>> {
    maps::hash(pins, names::PODS)
}
