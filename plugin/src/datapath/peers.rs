//! The peers' CIDRs in the maps.

use std::collections::{BTreeSet, HashMap as Desired};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData};
use beeline_common::{
    Address, Cidr, Family, Peer, Prefix, PrefixTable,
    abi::{MAX_PREFIXES, names},
    address::MAPPED_BITS,
};
use ipnetwork::IpNetwork;

use super::{maps, pins::Pins};

/// Makes the maps hold exactly these peers. Lookups meanwhile find the old or the new entries, never a gap for a peer
/// that stays.
///
/// # Errors
///
/// More than [`MAX_PREFIXES`] different prefix lengths in one family, or more peers than the map holds.
pub(super) fn set(pins: &Pins, peers: &[(IpNetwork, Peer)]) -> Result<()> {
    let desired: Desired<Cidr, Peer> = peers
        .iter()
        .map(|(cidr, peer)| (key(cidr), *peer))
        .collect();
    let tables = tables(&desired)?;
    let mut map: HashMap<MapData, Cidr, Peer> = maps::hash(pins, names::PEERS)?;
    for (cidr, peer) in &desired {
        map.insert(cidr, peer, 0)
            .with_context(|| format!("map {}: insert", names::PEERS))?;
    }
    let mut prefixes: Array<MapData, PrefixTable> = maps::array(pins, names::PREFIXES)?;
    for (family, table) in tables {
        prefixes
            .set(family as u32, table, 0)
            .with_context(|| format!("map {}: update", names::PREFIXES))?;
    }
    let held: Vec<Cidr> = map.keys().collect::<Result<_, _>>()?;
    for cidr in held.iter().filter(|cidr| !desired.contains_key(cidr)) {
        maps::remove(&mut map, cidr)?;
    }
    Ok(())
}

/// Has the maps hold these peers besides, or instead of those of the same CIDRs, and not those that were removed.
///
/// # Errors
///
/// As those of [`set`]; some of the changes may have been made.
pub(super) fn change(
    pins: &Pins,
    peers: &[(IpNetwork, Peer)],
    removed: &[IpNetwork],
) -> Result<()> {
    let mut map: HashMap<MapData, Cidr, Peer> = maps::hash(pins, names::PEERS)?;
    for cidr in removed {
        maps::remove(&mut map, &key(cidr))?;
    }
    let mut prefixes: Array<MapData, PrefixTable> = maps::array(pins, names::PREFIXES)?;
    for (cidr, peer) in peers {
        let key = key(cidr);
        let (family, length) = (key.address.family() as u32, key.length as u8);
        map.insert(key, peer, 0)
            .with_context(|| format!("map {}: insert {cidr}", names::PEERS))?;
        let table = prefixes
            .get(&family, 0)
            .with_context(|| format!("map {}: look up", names::PREFIXES))?;
        let used = table.prefixes.iter().filter(|prefix| prefix.length != 0);
        let mut lengths: BTreeSet<u8> = used.map(|prefix| prefix.length as u8).collect();
        if lengths.insert(length) {
            prefixes
                .set(family, prefix_table(&lengths)?, 0)
                .with_context(|| format!("map {}: update", names::PREFIXES))?;
        }
    }
    Ok(())
}

/// The peers that the maps hold.
pub(super) fn list(pins: &Pins) -> Result<Vec<(IpNetwork, Peer)>> {
    let map: HashMap<MapData, Cidr, Peer> = maps::hash(pins, names::PEERS)?;
    map.iter()
        .map(|entry| {
            let (cidr, peer) = entry?;
            Ok((network(&cidr)?, peer))
        })
        .collect()
}

fn key(cidr: &IpNetwork) -> Cidr {
    let offset = if cidr.is_ipv4() { MAPPED_BITS } else { 0 };
    let length = cidr.prefix() + offset;
    Cidr {
        address: Address::from(cidr.ip()).masked(&Address::mask(length)),
        length: length.into(),
    }
}

fn network(cidr: &Cidr) -> Result<IpNetwork> {
    let address = cidr.address.into();
    let offset = match cidr.address.family() {
        Family::V4 => u64::from(MAPPED_BITS),
        Family::V6 => 0,
    };
    let length = u8::try_from(cidr.length.saturating_sub(offset))?;
    Ok(IpNetwork::new(address, length)?)
}

fn tables(peers: &Desired<Cidr, Peer>) -> Result<[(Family, PrefixTable); 2]> {
    let table = |family| {
        let of_family = peers.keys().filter(|cidr| cidr.address.family() == family);
        let lengths: BTreeSet<u8> = of_family.map(|cidr| cidr.length as u8).collect();
        Ok::<_, anyhow::Error>((family, prefix_table(&lengths)?))
    };
    Ok([table(Family::V4)?, table(Family::V6)?])
}

fn prefix_table(lengths: &BTreeSet<u8>) -> Result<PrefixTable> {
    ensure!(
        lengths.len() <= MAX_PREFIXES,
        "peers: {} different prefix lengths, at most {MAX_PREFIXES} are possible",
        lengths.len()
    );
    let mut table = PrefixTable::EMPTY;
    for (slot, length) in table.prefixes.iter_mut().zip(lengths.iter().rev()) {
        *slot = Prefix {
            mask: Address::mask(*length),
            length: (*length).into(),
        };
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use beeline_common::Mac;

    use super::*;

    fn peers(cidrs: &[&str]) -> Desired<Cidr, Peer> {
        let peer = Peer {
            node: Address::from_v4([192, 168, 1, 12]),
            ifindex: 2,
            mtu: 1500,
            vni: 0,
            mac: Mac::default(),
            source: Mac::default(),
        };
        let entry = |text: &&str| (key(&text.parse().unwrap()), peer);
        cidrs.iter().map(entry).collect()
    }

    #[test]
    fn cidrs_survive_the_way_there_and_back() {
        for text in [
            "10.244.2.0/24",
            "10.0.0.0/8",
            "fd00:244:0:1::/64",
            "10.1.2.3/32",
        ] {
            let cidr: IpNetwork = text.parse().unwrap();
            assert_eq!(network(&key(&cidr)).unwrap(), cidr);
        }
    }

    #[test]
    fn the_table_has_each_length_once_and_the_longest_first() {
        let peers = peers(&["10.244.2.0/24", "10.244.3.0/24", "10.9.0.0/16", "fd00::/64"]);
        let [(_, v4), (_, v6)] = tables(&peers).unwrap();
        let lengths = |table: PrefixTable| table.prefixes.map(|prefix| prefix.length);
        assert_eq!(lengths(v4), [120, 112, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lengths(v6), [64, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn too_many_lengths_are_refused() {
        let cidrs: Vec<String> = (8..=16)
            .map(|length| format!("10.0.0.0/{length}"))
            .collect();
        let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
        let error = tables(&peers(&cidrs)).unwrap_err();
        assert!(error.to_string().contains("9 different prefix lengths"));
    }
}
