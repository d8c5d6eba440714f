//! The maps in memory.

use core::{cell::RefCell, net::IpAddr};
use std::{collections::HashMap, vec::Vec};

use crate::{
    Address, Cidr, Family, Flow, Maps, Peer, Pod, Port, Prefix, PrefixTable, Table,
    abi::MAX_PREFIXES, address::MAPPED_BITS,
};

/// What the BPF maps of a node hold.
#[derive(Clone, Debug, Default)]
pub struct HostMaps {
    /// `PODS`.
    pub pods: HashMap<Address, Pod>,
    /// `PORTS`.
    pub ports: HashMap<u32, Port>,
    /// `STACK_FLOWS` and `STACK_CONNS`, which push nothing out here.
    pub flows: RefCell<HashMap<(Table, Flow), u32>>,
    /// `PEERS`.
    pub peers: HashMap<Cidr, Peer>,
    /// `PREFIXES`, by family; `None` as if the map had no such entry.
    pub prefixes: [Option<PrefixTable>; 2],
}

impl HostMaps {
    /// Adds a pod's address.
    pub fn add_pod(&mut self, address: impl Into<IpAddr>, pod: Pod) {
        self.pods.insert(Address::from(address.into()), pod);
        let port = Port {
            mac: pod.mac,
            reserved: 0,
        };
        self.ports.insert(pod.ifindex, port);
    }

    /// Sets a flag of all addresses of a pod.
    pub fn flag_pod(&mut self, ifindex: u32, flag: u32) {
        for pod in self.pods.values_mut().filter(|pod| pod.ifindex == ifindex) {
            pod.flags |= flag;
        }
    }

    /// Adds a peer's CIDR, and its length to the prefix table.
    ///
    /// # Panics
    ///
    /// If the table is full.
    pub fn add_peer(&mut self, network: impl Into<IpAddr>, length: u8, peer: Peer) {
        let address = Address::from(network.into());
        let length = match address.family() {
            Family::V4 => MAPPED_BITS + length,
            Family::V6 => length,
        };
        let mask = Address::mask(length);
        let cidr = Cidr {
            address: address.masked(&mask),
            length: u64::from(length),
        };
        self.peers.insert(cidr, peer);

        let table = self.prefixes[address.family() as usize].get_or_insert(PrefixTable::EMPTY);
        let mut used: Vec<Prefix> = table.prefixes.to_vec();
        used.retain(|prefix| prefix.length != 0 && prefix.length != cidr.length);
        let length = cidr.length;
        used.push(Prefix { mask, length });
        used.sort_by_key(|prefix| core::cmp::Reverse(prefix.length));
        assert!(used.len() <= MAX_PREFIXES, "too many prefix lengths");
        *table = PrefixTable::EMPTY;
        table.prefixes[..used.len()].copy_from_slice(&used);
    }
}

impl Maps for HostMaps {
    fn pod(&self, address: &Address) -> Option<Pod> {
        self.pods.get(address).copied()
    }

    fn port(&self, ifindex: u32) -> Option<Port> {
        self.ports.get(&ifindex).copied()
    }

    fn prefixes(&self, family: Family) -> Option<&PrefixTable> {
        self.prefixes[family as usize].as_ref()
    }

    fn peer(&self, cidr: &Cidr) -> Option<Peer> {
        self.peers.get(cidr).copied()
    }

    fn flow(&self, table: Table, flow: &Flow) -> Option<u32> {
        self.flows.borrow().get(&(table, *flow)).copied()
    }

    fn remember(&self, table: Table, flow: &Flow, value: u32) {
        self.flows.borrow_mut().insert((table, *flow), value);
    }

    fn forget(&self, table: Table, flow: &Flow) {
        self.flows.borrow_mut().remove(&(table, *flow));
    }
}
