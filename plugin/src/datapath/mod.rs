//! The fast path of a network on this node: its pinned programs, links and maps. The only place that uses aya.

mod attach;
pub mod bpffs;
pub mod config;
mod flows;
mod inspect;
mod load;
mod maps;
mod peers;
pub mod pins;
mod pods;
mod probe;
mod stats;
pub(crate) mod tap;

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::{programs::ProgramInfo, util::KernelVersion};
use beeline_common::{Features, Flow, Hook, Mac, Peer, Pod, stats::HOOKS};
use ipnetwork::IpNetwork;

use self::config::AttachBy;
pub use self::{
    attach::Kind,
    maps::Usage,
    pins::Pins,
    probe::{Probe, probe},
    stats::Counter,
    tap::{Sighting, Tap},
};

/// What a node's programs are made for, and how they are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the programs can do.
    pub features: Features,
    /// How many flows each of the maps of flows holds.
    pub flows: u32,
    /// How programs are attached.
    pub attach: AttachBy,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The program's hook.
    pub hook: Hook,
    /// The interface.
    pub ifindex: u32,
    /// How.
    pub by: Kind,
    /// The kernel's number of the program.
    pub program: u32,
}

/// `bpf_redirect_peer` and `bpf_redirect_neigh` with a next hop came with 5.10 (commits
/// 9aa1206e8f48222f35a0c809f33b2f4aaa1e2661, ba452c9e996d8a4c347b32805f91abb70f74b8e9).
const OLDEST_KERNEL: (u8, u8, u16) = (5, 10, 0);

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

    /// Loads the programs and pins them. Maps that are there already are kept; what is attached runs on as it was until
    /// it is [attached](Self::attach) again.
    ///
    /// # Errors
    ///
    /// No bpffs, a kernel that is too old, missing rights: nothing stays behind unless something was there before.
    pub fn load(bpffs: &Path, network: &str, settings: &Settings) -> Result<Self> {
        let (major, minor, patch) = OLDEST_KERNEL;
        ensure!(
            KernelVersion::current()? >= KernelVersion::new(major, minor, patch),
            "kernel: older than Linux {major}.{minor}, which brought the redirects"
        );
        bpffs::ensure(bpffs)?;
        let pins = Pins::new(bpffs, network);
        let fresh = !pins.root().exists();
        if let Err(error) = load::load(&pins, settings.features, settings.flows) {
            if fresh && let Err(left) = pins.remove() {
                tracing::warn!(network, "{left:#}");
            }
            return Err(error);
        }
        Ok(Self { pins })
    }

    /// Attaches the program of a hook to an interface. One that is attached is swapped for the one that was loaded last,
    /// between two packets.
    ///
    /// The kernel waits for an RCU grace period (some 10 ms) to attach by tcx, but not to swap.
    pub fn attach(&self, hook: Hook, ifindex: u32, by: AttachBy) -> Result<()> {
        attach::attach(&self.pins, hook, ifindex, by)
    }

    /// Detaches the program of a hook from an interface; not attached is success.
    ///
    /// The kernel waits for an RCU grace period to detach from an interface that lives. Deleting the interface first,
    /// which waits anyway, makes this cheap.
    pub fn detach(&self, hook: Hook, ifindex: u32) -> Result<()> {
        attach::detach(&self.pins, hook, ifindex)
    }

    /// Whether the program of a hook is attached to an interface.
    pub fn is_attached(&self, hook: Hook, ifindex: u32) -> bool {
        attach::is_attached(&self.pins, hook, ifindex)
    }

    /// Where programs are attached, by hook and interface index, in order.
    pub fn attached(&self) -> Result<Vec<(Hook, u32)>> {
        let mut attached = self.pins.linked()?;
        attached.extend(self.pins.filtered()?);
        attached.sort_unstable();
        Ok(attached)
    }

    /// Where programs are attached, how, and which: also those of a [`Tap`], in order.
    pub fn places(&self) -> Result<Vec<Place>> {
        let linked = self.pins.linked()?.into_iter();
        let filtered = self.pins.filtered()?.into_iter();
        let mut places: Vec<Place> = linked
            .map(|(hook, ifindex)| (hook, ifindex, Kind::Tcx))
            .chain(filtered.map(|(hook, ifindex)| (hook, ifindex, Kind::Clsact)))
            // Where a pod goes meanwhile there is none any more.
            .filter_map(|(hook, ifindex, by)| {
                let program = attach::program_at(&self.pins, hook, ifindex, by).ok()?;
                Some(Place {
                    hook,
                    ifindex,
                    by,
                    program,
                })
            })
            .collect();
        places.sort_unstable_by_key(|place| (place.hook, place.ifindex));
        Ok(places)
    }

    /// The kernel's numbers of the pinned programs.
    pub fn programs(&self) -> Result<[(Hook, u32); HOOKS as usize]> {
        let mut programs = Hook::ALL.map(|hook| (hook, 0));
        for (hook, number) in &mut programs {
            let pin = self.pins.program(*hook);
            let info = ProgramInfo::from_pin(&pin);
            *number = info
                .with_context(|| format!("{}: open pin", pin.display()))?
                .id();
        }
        Ok(programs)
    }

    /// The directory of the pins.
    pub fn pins(&self) -> &Path {
        self.pins.root()
    }

    /// Removes the programs and maps of other versions of the ABI, which nothing that is attached uses any more.
    pub fn forget_other_versions(&self) -> Result<()> {
        self.pins.remove_other_versions()
    }

    /// Makes these the peers, and no others.
    pub fn set_peers(&self, peers: &[(IpNetwork, Peer)]) -> Result<()> {
        peers::set(&self.pins, peers)
    }

    /// Adds or changes these peers, and removes those of the CIDRs in `removed`.
    pub fn change_peers(&self, peers: &[(IpNetwork, Peer)], removed: &[IpNetwork]) -> Result<()> {
        peers::change(&self.pins, peers, removed)
    }

    /// Takes a pod onto the fast path, or changes what is known of it: `pod` has these addresses.
    ///
    /// # Errors
    ///
    /// A full map; then the pod is not on the fast path at all.
    pub fn set_pod(&self, addresses: &[IpAddr], pod: Pod) -> Result<()> {
        pods::set(&self.pins, addresses, pod)
    }

    /// Changes what is known of a pod, where that is the pod that has the address.
    pub fn change_pod(&self, addresses: &[IpAddr], pod: Pod) -> Result<()> {
        pods::change(&self.pins, addresses, pod)
    }

    /// The MAC by which the fast path knows the pod behind a host veth; `None` if it knows none there.
    pub fn mac_of(&self, ifindex: u32) -> Result<Option<Mac>> {
        pods::mac_of(&self.pins, ifindex)
    }

    /// Sends nothing more to a pod by the fast path; one that is not there is success.
    pub fn remove_pod(&self, ifindex: u32, addresses: &[IpAddr]) -> Result<()> {
        pods::remove(&self.pins, addresses, ifindex)
    }

    /// Has the stack keep these flows.
    pub fn remember(&self, flows: impl IntoIterator<Item = Flow>) -> Result<()> {
        flows::remember(&self.pins, flows)
    }

    /// Has the stack keep none but the flows that `keep` tells.
    pub fn retain_flows(&self, keep: impl Fn(&Flow) -> bool) -> Result<()> {
        flows::retain(&self.pins, keep)
    }

    /// How full a map of [`Usage::MAPS`] is. Its entries are counted one by one, by a system call each: 5,000 take some 6 ms.
    pub fn usage_of(&self, map: &'static str) -> Result<Usage> {
        maps::usage(&self.pins, map)
    }

    /// How full all maps are that can be.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let maps = Usage::MAPS.into_iter();
        maps.map(|map| self.usage_of(map)).collect()
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

    /// Detaches and unpins everything of a network's, also what a process left that was killed as it loaded or unloaded;
    /// nothing there is success.
    pub fn remove(bpffs: &Path, network: &str) -> Result<()> {
        if let Some(datapath) = Self::open(bpffs, network) {
            return datapath.unload();
        }
        let pins = Pins::new(bpffs, network);
        let part = Self { pins };
        for (hook, ifindex) in part.attached()? {
            part.detach(hook, ifindex)?;
        }
        part.pins.remove()
    }

    /// Detaches and unpins everything: packets take the plain bridge, those of a pod both ways at once.
    pub fn unload(self) -> Result<()> {
        pods::clear(&self.pins)?;
        for (hook, ifindex) in self.attached()? {
            self.detach(hook, ifindex)?;
        }
        self.pins.remove()
    }
}
