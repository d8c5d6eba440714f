//! The keys of the bridge plugin, as they stand in a configuration.

use anyhow::{Result as Anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::error::{Code, Error, Result};
use super::names::check_ifname;
use crate::datapath::config::Unsupported;
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
    pub(super) vlan_trunk: Vec<Value>,
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
    /// Refuses what is wrong, or right but not there yet.
    pub(super) fn validate(&self) -> Result<()> {
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
            let vlan = self.vlan;
            ensure!(
                (0..=4094).contains(&vlan),
                "vlan: invalid VLAN ID {vlan} (must be between 0 and 4094)"
            );
            self.supported().map_err(anyhow::Error::new)
        };
        valid().map_err(config_error)
    }

    fn supported(&self) -> Result<(), Unsupported> {
        if self.disable_container_interface {
            return Err(Unsupported::new("disableContainerInterface", true));
        }
        if self.vlan != 0 {
            return Err(Unsupported::new("vlan", self.vlan));
        }
        if !self.vlan_trunk.is_empty() {
            return Err(Unsupported::new(
                "vlanTrunk",
                Value::from(self.vlan_trunk.clone()),
            ));
        }
        Ok(())
    }

    pub(super) fn masq_backend(&self) -> Option<MasqBackend> {
        match &*self.ip_masq_backend {
            "iptables" => Some(MasqBackend::Iptables),
            "nftables" => Some(MasqBackend::Nftables),
            _ => None,
        }
    }
}

/// Invalid, unless it is only unsupported.
pub(super) fn config_error(error: anyhow::Error) -> Error {
    let unsupported = error.is::<Unsupported>();
    let code = if unsupported {
        Code::UnsupportedField
    } else {
        Code::InvalidConfig
    };
    Error::wrap(code, error)
}
