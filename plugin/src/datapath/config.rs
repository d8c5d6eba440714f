//! The `datapath` object of a configuration.

use std::fmt;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, ensure};
use beeline_common::abi::{MAX_FLOWS, MIN_FLOWS};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Where BPF objects are pinned unless `bpffsDir` says otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
/// Where node-local state lives unless `stateDir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/run/beeline";

/// What all node-local state is below: a reboot empties it.
const STATE_ROOT: &str = "/run";

/// When packets take the fast path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Where it works, and where no firewall would be bypassed.
    #[default]
    Auto,
    /// Always; ADD fails where it does not work.
    Ebpf,
    /// Never.
    Bridge,
}

/// How programs are attached to interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachBy {
    /// By tcx where the kernel has it, else by clsact.
    #[default]
    Auto,
    /// By tcx links.
    Tcx,
    /// By classic filters.
    Clsact,
}

/// The kinds of overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlayKind {
    /// RFC 7348.
    Vxlan,
}

/// How peers are reached that are on no link of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayConf {
    /// The encapsulation.
    #[serde(rename = "type")]
    pub kind: OverlayKind,
    /// The network identifier, from 1 to 2^24 − 1.
    #[serde(default = "default_vni")]
    pub vni: u32,
    /// The UDP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Whether neighbours are reached by it too, as where the network between nodes carries no pods' addresses.
    #[serde(default)]
    pub always: bool,
}

fn default_vni() -> u32 {
    1
}

/// What Linux and flannel use; RFC 7348 says 4789.
fn default_port() -> u16 {
    8472
}

/// Another node and the pods it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConf {
    /// The pod CIDR of the node.
    pub cidr: IpNetwork,
    /// The address of the node.
    pub node: IpAddr,
}

/// The `datapath` object; its keys must have been folded to lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatapathConf {
    /// When packets take the fast path.
    pub mode: Mode,
    /// The interfaces towards the peers.
    pub uplinks: Vec<String>,
    /// The other nodes.
    pub peers: Vec<PeerConf>,
    /// Whether a pod may send only from its own addresses.
    #[serde(rename = "antispoof")]
    pub anti_spoof: bool,
    /// The BPF file system.
    #[serde(rename = "bpffsdir")]
    pub bpffs: PathBuf,
    /// The directory of locks and node-local state.
    #[serde(rename = "statedir")]
    pub state_dir: PathBuf,
    /// The overlay to peers that are no neighbours; without it these cannot be reached.
    pub overlay: Option<OverlayConf>,
    /// How many flows of each kind the stack can keep; as many as conntrack can by default.
    #[serde(rename = "maxflows")]
    pub max_flows: Option<u32>,
    /// How programs are attached.
    pub attach: AttachBy,
}

impl Default for DatapathConf {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            uplinks: Vec::new(),
            peers: Vec::new(),
            anti_spoof: false,
            bpffs: DEFAULT_BPFFS.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            overlay: None,
            max_flows: None,
            attach: AttachBy::default(),
        }
    }
}

impl DatapathConf {
    /// Checks that the paths lead where such files belong, as those who write configurations may not be those who
    /// administrate nodes. That the one is on a bpffs is looked at when it is used.
    pub fn check_paths(&self) -> Result<()> {
        for (key, path) in [("bpffsDir", &self.bpffs), ("stateDir", &self.state_dir)] {
            ensure!(
                is_plain(path),
                "datapath.{key} {path:?}: not an absolute path without \"..\""
            );
        }
        let root = Path::new(STATE_ROOT);
        let state = &self.state_dir;
        ensure!(
            state.starts_with(root) && state != root,
            "datapath.stateDir {state:?}: must be below {STATE_ROOT}"
        );
        Ok(())
    }

    /// Checks what decoding cannot. The names of uplinks are for the caller to check.
    pub fn validate(&self) -> Result<()> {
        if let Some(OverlayConf { vni, port, .. }) = self.overlay {
            ensure!(
                (1..1 << 24).contains(&vni),
                "datapath.overlay.vni {vni}: must be from 1 to 16777215"
            );
            ensure!(port != 0, "datapath.overlay.port 0: must not be 0");
        }
        if let Some(flows) = self.max_flows {
            ensure!(
                (MIN_FLOWS..=MAX_FLOWS).contains(&flows),
                "datapath.maxFlows {flows}: must be from {MIN_FLOWS} to {MAX_FLOWS}"
            );
        }
        ensure!(
            !(self.anti_spoof && self.mode == Mode::Bridge),
            "datapath.antiSpoof true: needs eBPF, but datapath.mode is \"bridge\""
        );
        self.check_paths()?;
        for (i, peer) in self.peers.iter().enumerate() {
            let PeerConf { cidr, node } = peer;
            ensure!(
                cidr.ip() == cidr.network(),
                "datapath.peers[{i}].cidr {cidr}: host bits set"
            );
            ensure!(
                cidr.is_ipv4() == node.is_ipv4() || self.overlay.is_some(),
                "datapath.peers[{i}].node {node}: not of the family of cidr {cidr}, \
                 which only an overlay can bridge"
            );
            if let Some(j) = self.peers[..i]
                .iter()
                .position(|other| overlap(cidr, &other.cidr))
            {
                let other = self.peers[j].cidr;
                anyhow::bail!(
                    "datapath.peers[{i}].cidr {cidr}: overlaps {other} of datapath.peers[{j}]"
                );
            }
        }
        Ok(())
    }
}

/// Whether a path means what it says, wherever it is used.
fn is_plain(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// One of two networks that overlap contains the other.
pub(crate) fn overlap(one: &IpNetwork, other: &IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// A key is known, but not with this value, or not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    key: String,
    value: String,
}

impl Unsupported {
    /// Names the key and the value.
    pub fn new(key: impl Into<String>, value: impl fmt::Display) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: not supported", self.key, self.value)
    }
}

impl std::error::Error for Unsupported {}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn conf(value: Value) -> DatapathConf {
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn fails(value: Value, text: &str) -> anyhow::Error {
        let error = conf(value).validate().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        error
    }

    #[test]
    fn nothing_said_means_the_fast_path_where_it_works() {
        let conf = conf(json!({}));
        assert_eq!(conf, DatapathConf::default());
        assert_eq!(
            (conf.mode, conf.bpffs.to_str()),
            (Mode::Auto, Some("/sys/fs/bpf"))
        );
        conf.validate().unwrap();
    }

    #[test]
    fn every_key_is_read() {
        let peers = json!([{"cidr": "10.244.2.0/24", "node": "192.168.1.12"}, {"cidr": "fd00:2::/64", "node": "fd01::2"}]);
        let conf = conf(
            json!({"mode": "ebpf", "uplinks": ["eth0"], "peers": peers, "antispoof": false,
            "bpffsdir": "/a", "statedir": "/run/b"}),
        );
        assert_eq!(
            (conf.mode, conf.uplinks.len(), conf.peers.len()),
            (Mode::Ebpf, 1, 2)
        );
        conf.validate().unwrap();
    }

    #[test]
    fn unknown_keys_and_modes_are_refused() {
        for bad in [
            json!({"uplink": "eth0"}),
            json!({"mode": "fast"}),
            json!({"peers": [{"cidr": "10.0.0.0/8"}]}),
        ] {
            assert!(serde_json::from_value::<DatapathConf>(bad).is_err());
        }
    }

    #[test]
    fn an_overlay_has_an_identifier_and_a_port() {
        let overlay = |overlay: Value| conf(json!({ "overlay": overlay }));
        let default = overlay(json!({"type": "vxlan"}));
        default.validate().unwrap();
        let default = default.overlay.unwrap();
        assert_eq!(
            (default.vni, default.port, default.always),
            (1, 8472, false)
        );
        for vni in [0, 1 << 24] {
            fails(
                json!({"overlay": {"type": "vxlan", "vni": vni}}),
                "datapath.overlay.vni",
            );
        }
        fails(
            json!({"overlay": {"type": "vxlan", "port": 0}}),
            "datapath.overlay.port",
        );
        for bad in [
            json!({"type": "geneve"}),
            json!({"vni": 1}),
            json!({"type": "vxlan", "id": 1}),
        ] {
            assert!(serde_json::from_value::<DatapathConf>(json!({"overlay": bad})).is_err());
        }
    }

    #[test]
    fn what_only_programs_can_do_needs_them() {
        fails(
            json!({"antispoof": true, "mode": "bridge"}),
            "datapath.antiSpoof true: needs eBPF",
        );
        conf(json!({"antispoof": true})).validate().unwrap();
        fails(json!({"maxflows": 1}), "datapath.maxFlows 1: must be from");
    }

    #[test]
    fn peers_are_networks_of_one_family_apart_from_each_other() {
        let peers = |peers: Value| json!({"peers": peers});
        let one = |cidr, node| json!({"cidr": cidr, "node": node});
        fails(
            peers(json!([one("10.0.0.1/24", "1.1.1.1")])),
            "datapath.peers[0].cidr 10.0.0.1/24: host bits set",
        );
        fails(
            peers(json!([one("10.0.0.0/24", "fd00::1")])),
            "datapath.peers[0].node fd00::1: not of the family",
        );
        let twice = json!([one("10.0.0.0/24", "1.1.1.1"), one("10.0.0.0/24", "1.1.1.2")]);
        fails(peers(twice), "overlaps 10.0.0.0/24 of datapath.peers[0]");
        let nested = json!([one("10.0.5.0/24", "1.1.1.1"), one("10.0.0.0/16", "1.1.1.2")]);
        fails(
            peers(nested),
            "datapath.peers[1].cidr 10.0.0.0/16: overlaps",
        );
    }

    #[test]
    fn paths_are_absolute_and_those_of_state_below_run() {
        fails(json!({"bpffsdir": "bpf"}), "datapath.bpffsDir \"bpf\"");
        fails(
            json!({"bpffsdir": "/sys/fs/bpf/../../x"}),
            "datapath.bpffsDir",
        );
        fails(json!({"statedir": ""}), "datapath.stateDir \"\"");
        for elsewhere in ["/", "/run", "/etc", "/running", "/var/lib/x", "/run/../etc"] {
            fails(json!({"statedir": elsewhere}), "datapath.stateDir");
        }
        conf(json!({"statedir": "/run/x/y"})).validate().unwrap();
    }
}
