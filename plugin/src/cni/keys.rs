//! The keys of the bridge plugin, as they stand in a configuration.

use anyhow::{Result as Anyhow, ensure};
use serde::Deserialize;

use super::error::{Code, Result, WithCode};
use super::names::check_ifname;
use super::vlan::Trunk;
use crate::ipam::{Dns, RawRange};

/// What masquerades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasqBackend {
    /// iptables.
    Iptables,
    /// nftables.
    Nftables,
}

/// Addresses that someone wants an attachment to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// A hardware address; empty if there is none.
    pub mac: String,
    /// IP addresses, with or without prefix length.
    pub ips: Vec<String>,
    /// Range sets to put before those of the configuration; `runtimeConfig` only.
    #[serde(rename = "ipranges")]
    pub ip_ranges: Vec<Vec<RawRange>>,
}

/// The keys of the bridge plugin.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Keys {
    #[serde(default = "default_bridge")]
    pub(super) bridge: String,
    #[serde(rename = "isgateway")]
    pub(super) is_gateway: bool,
    #[serde(rename = "isdefaultgateway")]
    pub(super) is_default_gateway: bool,
    #[serde(rename = "forceaddress")]
    pub(super) force_address: bool,
    #[serde(rename = "ipmasq")]
    pub(super) ip_masq: bool,
    #[serde(rename = "ipmasqbackend")]
    pub(super) ip_masq_backend: String,
    pub(super) mtu: i64,
    #[serde(rename = "hairpinmode")]
    pub(super) hairpin_mode: bool,
    #[serde(rename = "promiscmode")]
    pub(super) promisc_mode: bool,
    pub(super) vlan: i64,
    #[serde(rename = "vlantrunk")]
    pub(super) vlan_trunk: Option<Vec<Trunk>>,
    #[serde(rename = "preservedefaultvlan")]
    pub(super) preserve_default_vlan: bool,
    pub(super) macspoofchk: bool,
    pub(super) enabledad: bool,
    #[serde(rename = "disablecontainerinterface")]
    pub(super) disable_container_interface: bool,
    #[serde(rename = "portisolation")]
    pub(super) port_isolation: bool,
    pub(super) dns: Dns,
    #[serde(rename = "runtimeconfig")]
    pub(super) runtime_config: Wishes,
    pub(super) args: UserArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UserArgs {
    pub(super) cni: Wishes,
}

fn default_bridge() -> String {
    "cni0".into()
}

impl Keys {
    /// Refuses what is wrong.
    pub(super) fn validate(&self, with_ipam: bool) -> Result<()> {
        let valid = || -> Anyhow<()> {
            check_ifname("bridge", &self.bridge)?;
            let backend = &self.ip_masq_backend;
            ensure!(
                backend.is_empty() || self.masq_backend().is_some(),
                "ipMasqBackend {backend:?}: neither iptables nor nftables"
            );
            let mtu = self.mtu;
            ensure!(
                mtu == 0 || (68..=65535).contains(&mtu),
                "mtu {mtu}: must be 0, or from 68 to 65535"
            );
            ensure!(
                !(self.hairpin_mode && self.promisc_mode),
                "hairpinMode and promiscMode: cannot be set at the same time"
            );
            ensure!(
                !(self.disable_container_interface && with_ipam),
                "disableContainerInterface: cannot use IPAM when DisableContainerInterface flag is set"
            );
            Ok(())
        };
        valid().code(Code::InvalidConfig)
    }

    pub(super) fn masq_backend(&self) -> Option<MasqBackend> {
        match &*self.ip_masq_backend {
            "iptables" => Some(MasqBackend::Iptables),
            "nftables" => Some(MasqBackend::Nftables),
            _ => None,
        }
    }
}
