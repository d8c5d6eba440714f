//! The fast path of a network on this node: its pinned programs, links and maps. The only place that uses aya.

pub mod bpffs;
pub mod config;
mod load;
mod maps;
mod peers;
pub mod pins;
mod pods;
mod stats;

use std::{net::IpAddr, path::Path};

use anyhow::Result;
use beeline_common::{Hook, Peer, Pod};
use ipnetwork::IpNetwork;

pub use self::{pins::Pins, stats::Counter};

/// The pinned datapath of a network. Nothing needs to keep running, nor this value to live, for packets to flow.
#[derive(Debug)]
pub struct Datapath {
    pins: Pins,
}

impl Datapath {
    /// Opens what is pinned; `None` unless all of this build's ABI is there.
    pub fn open(bpffs: &Path, network: &str) -> Option<Self> {
        let pins = Pins::new(bpffs, network);
        // Programs are pinned after the maps, so that the last program stands for all.
        let whole = Hook::ALL.iter().all(|hook| pins.program(*hook).exists());
        whole.then_some(Self { pins })
    }

    /// Loads the programs and pins them. Maps that are there already are kept.
    ///
    /// # Errors
    ///
    /// No bpffs, a kernel that is too old, missing rights: nothing stays behind unless something was there before.
    pub fn load(bpffs: &Path, network: &str) -> Result<Self> {
        bpffs::ensure(bpffs)?;
        let pins = Pins::new(bpffs, network);
        let fresh = !pins.root().exists();
        if let Err(error) = load::load(&pins) {
            if fresh {
                pins.remove()?;
            }
            return Err(error);
        }
        Ok(Self { pins })
    }

    /// Whether the program for what other nodes send is attached to the uplink.
    pub fn has_uplink(&self, ifindex: u32) -> bool {
        self.pins.link(Hook::FromUplink, ifindex).exists()
    }

    /// Attaches the program for what other nodes send.
    pub fn add_uplink(&self, interface: &str, ifindex: u32) -> Result<()> {
        load::attach(&self.pins, Hook::FromUplink, interface, ifindex)
    }

    /// Makes these the peers, and no others.
    pub fn set_peers(&self, peers: &[(IpNetwork, Peer)]) -> Result<()> {
        peers::set(&self.pins, peers)
    }

    /// Takes a pod onto the fast path: `pod` is behind `host_veth` and has these addresses.
    ///
    /// # Errors
    ///
    /// A full map, or an interface that is gone; then the pod is not on the fast path at all.
    pub fn add_pod(&self, host_veth: &str, addresses: &[IpAddr], pod: Pod) -> Result<()> {
        load::attach(&self.pins, Hook::FromPod, host_veth, pod.ifindex)?;
        pods::add(&self.pins, addresses, pod).inspect_err(|_| {
            // What matters is the first error; a link without addresses passes everything.
            let _ = load::detach(&self.pins, Hook::FromPod, pod.ifindex);
        })
    }

    /// Sends nothing more to a pod by the fast path; one that is not there is success.
    pub fn remove_pod(&self, ifindex: u32, addresses: &[IpAddr]) -> Result<()> {
        pods::remove(&self.pins, addresses, ifindex)
    }

    /// Detaches the program for what a pod sends; not attached is success.
    ///
    /// The kernel waits for an RCU grace period (some 10 ms) to detach from an interface that lives. Deleting the
    /// interface first, which waits anyway, makes this cheap.
    pub fn detach_pod(&self, ifindex: u32) -> Result<()> {
        load::detach(&self.pins, Hook::FromPod, ifindex)
    }

    /// Whether the program for what the pod sends is attached.
    pub fn has_pod(&self, ifindex: u32) -> bool {
        self.pins.link(Hook::FromPod, ifindex).exists()
    }

    /// The pods on the fast path, by address.
    pub fn pods(&self) -> Result<Vec<(IpAddr, Pod)>> {
        pods::list(&self.pins)
    }

    /// The peers on the fast path, by CIDR.
    pub fn peers(&self) -> Result<Vec<(IpNetwork, Peer)>> {
        peers::list(&self.pins)
    }

    /// All counters.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        stats::read(&self.pins)
    }

    /// Detaches and unpins everything: packets take the plain bridge.
    pub fn unload(self) -> Result<()> {
        self.pins.remove()
    }
}
