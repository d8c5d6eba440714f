//! A pod's interface, as it is remembered.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use beeline_common::{self as abi, Hook, Pod};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Bridge;
use crate::{
    datapath::{Datapath, config::AttachBy},
    net::mac::Mac,
};

/// A pod's interface, and all that belongs to it on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The runtime's container ID.
    pub container_id: String,
    /// The interface's name inside the pod.
    pub ifname: String,
    /// The name of the host veth.
    pub host_veth: String,
    /// The host veth's interface index; 0 until it exists, and when it is found to have gone without a DEL.
    pub ifindex: u32,
    /// The pod's addresses.
    pub addresses: Vec<IpNetwork>,
    /// The path of the pod's network namespace.
    pub netns: String,
    /// Whether its ADD has ended well; nothing but that ADD touches it before.
    #[serde(default = "yes")]
    pub complete: bool,
    /// Whether the pod is on the fast path, but for [`slow`](Self::slow).
    pub fast_path: bool,
    /// The container veth's address; not known of attachments that an older beeline made.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Whether the pod exchanges no packets with others of its kind.
    #[serde(default)]
    pub isolated: bool,
    /// What people call the pod: `namespace/name` of Kubernetes, where the runtime says it.
    #[serde(default)]
    pub pod_name: Option<String>,
    /// Why the pod takes the slow path all the same, if it does. Of a file of its own, as others find it out.
    #[serde(skip)]
    pub slow: Option<String>,
}

/// Attachments that an older beeline recorded were complete when it let go of them, or are removed.
const fn yes() -> bool {
    true
}

impl Attachment {
    /// Where programs are attached to the host veth.
    pub const HOOKS: [Hook; 2] = [Hook::ToPod, Hook::FromPod];

    /// Whether it is to be taken onto the fast path, if its network has one.
    pub fn waits(&self) -> bool {
        let refused = self.slow.is_some();
        let can = self.ifindex != 0 && !self.addresses.is_empty();
        self.complete && !self.fast_path && !refused && can
    }

    /// The pod's addresses without prefix lengths.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).collect()
    }

    /// The pod as the fast path needs it, unless its MAC is not known.
    pub fn pod(&self, bridge: &Bridge) -> Option<Pod> {
        let flag = |set, flag| if set { flag } else { 0 };
        Some(Pod {
            ifindex: self.ifindex,
            flags: flag(self.isolated, Pod::ISOLATED) | flag(self.slow.is_some(), Pod::SLOW),
            mac: abi::Mac(self.mac?.0),
            gateway: abi::Mac(bridge.mac.0),
        })
    }

    /// Takes the pod onto the fast path. Its program passes everything until the maps know the pod, so that both
    /// directions change the path at once.
    ///
    /// # Errors
    ///
    /// A full map, or an interface that is gone; then some of it may be done.
    pub fn enter(&self, datapath: &Datapath, bridge: &Bridge, by: AttachBy) -> Result<()> {
        let pod = self.pod(bridge).context("attachment: without a MAC")?;
        for hook in Self::HOOKS {
            datapath.attach(hook, self.ifindex, by)?;
        }
        datapath.set_pod(&self.ips(), pod)
    }

    /// Attaches the programs for a pod that may have talked already: it stays on the slow path, and they look on.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub(super) fn introduce(
        &self,
        datapath: &Datapath,
        bridge: &Bridge,
        by: AttachBy,
    ) -> Result<()> {
        let mut pod = self.pod(bridge).context("attachment: without a MAC")?;
        pod.flags |= Pod::SLOW;
        datapath.set_pod(&self.ips(), pod)?;
        let mut hooks = Self::HOOKS.into_iter();
        hooks.try_for_each(|hook| datapath.attach(hook, self.ifindex, by))
    }

    /// Detaches the programs; already gone is success.
    pub fn detach(&self, datapath: &Datapath) -> Result<()> {
        let detached = Self::HOOKS.map(|hook| datapath.detach(hook, self.ifindex));
        detached.into_iter().collect()
    }

    /// Takes the pod off the fast path, whatever of it is there.
    pub fn leave(&self, datapath: &Datapath) -> Result<()> {
        let removed = datapath.remove_pod(self.ifindex, &self.ips());
        removed.and(self.detach(datapath))
    }
}
