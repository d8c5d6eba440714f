//! What a node's datapath counted: the only place of the harness that knows of beeline's maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use beeline::{
    datapath::{Datapath, Pins},
    node::Store,
};
use beeline_common::{Port, abi::names};

use crate::{config::NETWORK, node::Node, wait::patient};

/// Far longer than a pod takes on a busy machine.
const SETTLED: Duration = Duration::from_secs(30);

/// Counter of packets that went straight to a pod of the same node.
pub const TO_POD: &str = "from_pod/to_pod";

/// Counter of packets that went straight from a pod to the uplink, for a peer.
pub const TO_PEER: &str = "from_pod/to_peer";

/// Counter of packets that went straight from a pod to the overlay, for a peer.
pub const TO_OVERLAY: &str = "from_pod/to_overlay";

/// Counter of packets that went straight from the uplink to a pod.
pub const FROM_UPLINK: &str = "from_uplink/to_pod";

/// Reads the packet counters of a node by program and outcome; none where no datapath is pinned.
pub fn counters(node: &Node) -> Result<BTreeMap<String, u64>> {
    let Some(datapath) = Datapath::open(&node.bpffs_dir(), NETWORK) else {
        return Ok(BTreeMap::new());
    };
    let named = datapath.counters()?.into_iter().map(|counter| {
        let name = format!("{}/{}", counter.hook.name(), counter.outcome.name());
        (name, counter.count.packets)
    });
    Ok(named.collect())
}

/// Waits until a pod is on the path that it is to stay on; returns how long that took.
pub fn settle(node: &Node, container_id: &str, ifname: &str) -> Result<Duration> {
    let start = Instant::now();
    for entry in fs::read_dir(node.state_dir())? {
        let entry = entry?;
        // The agent's socket is there too.
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let store = Store::at(entry.path());
        while store.is_joining(container_id, ifname)? {
            let waited = start.elapsed();
            ensure!(
                waited < patient(SETTLED),
                "{container_id} {ifname}: not on the fast path after {waited:?}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(start.elapsed())
}

/// Of each program that is attached on a node: whether it is the pinned one, not one that stands in for it.
pub fn attached_as_pinned(node: &Node) -> Result<Vec<bool>> {
    let datapath = Datapath::open(&node.bpffs_dir(), NETWORK).context("nothing is pinned")?;
    let (pinned, places) = (datapath.programs()?, datapath.places()?);
    let is_pinned = places
        .iter()
        .map(|place| pinned.contains(&(place.hook, place.program)));
    Ok(is_pinned.collect())
}

/// What a node's maps of pods hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The interface index behind each address, of `PODS`.
    pub pods: BTreeMap<IpAddr, u32>,
    /// The interface indices that pods send through, of `PORTS`.
    pub ports: BTreeSet<u32>,
}

/// Reads them; empty where no datapath is pinned.
pub fn known(node: &Node) -> Result<Known> {
    let Some(datapath) = Datapath::open(&node.bpffs_dir(), NETWORK) else {
        return Ok(Known::default());
    };
    let pods = datapath.pods()?.into_iter();
    let pin = Pins::new(&node.bpffs_dir(), NETWORK).map(names::PORTS);
    let ports = Map::HashMap(MapData::from_pin(pin)?);
    let ports = HashMap::<_, u32, Port>::try_from(ports)?;
    Ok(Known {
        pods: pods.map(|(ip, pod)| (ip, pod.ifindex)).collect(),
        ports: ports.keys().collect::<Result<_, _>>()?,
    })
}

/// By how much each counter grew; those that did not are left out.
pub fn growth(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let grown = after
        .iter()
        .map(|(name, now)| (name.clone(), now - before.get(name).unwrap_or(&0).min(now)));
    grown.filter(|(_, growth)| *growth > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_names_only_what_grew() {
        let before = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 5)]);
        let after = BTreeMap::from([
            ("a".to_owned(), 1),
            ("b".to_owned(), 7),
            ("c".to_owned(), 2),
        ]);
        assert_eq!(
            growth(&before, &after),
            BTreeMap::from([("b".to_owned(), 2), ("c".to_owned(), 2)])
        );
    }
}
