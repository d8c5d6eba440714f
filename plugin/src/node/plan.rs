//! What a node shall look like for a network, before any pod.

use std::{net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    datapath::config::{DatapathConf, Mode, PeerConf},
    net::link::PortVlans,
};

/// Everything of a network that its pods on a node share. Two plans that are equal ask for the same node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The network's name.
    pub network: String,
    /// The bridge that the pods are on.
    pub bridge: BridgePlan,
    /// The pod CIDRs of this node.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Whether what leaves the cluster's pod CIDRs takes the node's address.
    pub masquerade: bool,
    /// The fast path, and the peers that both paths lead to.
    pub datapath: DatapathConf,
}

/// The bridge of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BridgePlan {
    /// Its name.
    pub name: String,
    /// The MTU in bytes that it is created with; the kernel's default if `None`.
    pub mtu: Option<u32>,
    /// Whether it receives what is addressed to others.
    pub promiscuous: bool,
    /// Whether it is the pods' gateway, so that the node forwards.
    pub gateway: bool,
    /// What VLANs it keeps apart.
    #[serde(default)]
    pub vlans: Option<VlanPlan>,
}

/// The VLANs of a network's pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VlanPlan {
    /// The VLAN that the pods are in, if they need not know of it.
    pub id: Option<u16>,
    /// The VLANs of a pod's port.
    pub port: PortVlans,
    /// Whether the pods' gateway is in their VLAN, with an interface of its own.
    pub gateway: bool,
}

impl VlanPlan {
    /// The name of the interface that has the gateway's addresses, if it is not the bridge.
    pub fn gateway_interface(&self, bridge: &str) -> Option<String> {
        let id = self.id.filter(|_| self.gateway)?;
        Some(format!("{bridge}.{id}"))
    }
}

impl BridgePlan {
    /// The name of the interface that has the gateway's addresses and knows the pods as its neighbours.
    pub fn gateway_interface(&self) -> String {
        let of_vlan = self.vlans.as_ref();
        of_vlan
            .and_then(|vlans| vlans.gateway_interface(&self.name))
            .unwrap_or_else(|| self.name.clone())
    }
}

impl Plan {
    /// The directory of the node's state for this network.
    pub fn state_dir(&self) -> PathBuf {
        self.datapath.state_dir.join(&self.network)
    }

    /// The pod CIDRs of the whole cluster, as far as they are known here: never masqueraded between each other.
    pub fn cluster_cidrs(&self) -> Vec<IpNetwork> {
        let peers = self.datapath.peers.iter().map(|peer| peer.cidr);
        self.pod_cidrs.iter().copied().chain(peers).collect()
    }

    /// Whether an address lies in this node's pod CIDRs.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.pod_cidrs.iter().any(|cidr| cidr.contains(address))
    }

    /// Whether pods of both or either family are to be forwarded: the families of the node's and the peers' CIDRs.
    pub fn has_family(&self, v4: bool) -> bool {
        self.cluster_cidrs().iter().any(|cidr| cidr.is_ipv4() == v4)
    }

    /// Whether an ADD takes its pod onto the fast path itself, and does not leave that to the watch: where it has to fail
    /// if that fails, and where the pod must not send a packet that no program has judged.
    pub fn joins_in_add(&self) -> bool {
        self.datapath.mode == Mode::Ebpf || self.datapath.anti_spoof
    }

    /// What was asked for and does not hold where no program sees what a pod sends.
    pub fn unmet_on_bridge(&self) -> Option<&'static str> {
        let unmet = "datapath.antiSpoof true: does not hold, pods can send in any name";
        self.datapath.anti_spoof.then_some(unmet)
    }

    /// Why the pods stay on the plain bridge: only it keeps their VLANs apart.
    pub fn bars_fast_path(&self) -> Option<&'static str> {
        let reason = "the bridge keeps VLANs apart (vlan, vlanTrunk), the fast path would not";
        self.bridge.vlans.is_some().then_some(reason)
    }

    /// The peers.
    pub fn peers(&self) -> &[PeerConf] {
        &self.datapath.peers
    }
}
