//! The network configuration on standard input, parsed once into types.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result as Anyhow};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::env::{Args, Command};
use super::error::{Code, Error, Result, WithCode};
use super::json::{self, VALID_ATTACHMENTS};
use super::keys::Keys;
pub use super::keys::{MasqBackend, Wishes};
use super::names::{check_identifier, check_ifname};
use super::result::CniResult;
use super::version::{Version, is_version};
use super::vlan;
use crate::datapath::config::DatapathConf;
use crate::ipam::address::parse_ip_or_cidr;
use crate::ipam::{AttachmentId, Dns, IpamConf, RawIpam, config as ipam};
use crate::node::VlanPlan;

/// The type of IPAM that is built in.
pub const HOST_LOCAL: &str = "host-local";

/// The configuration of one network.
#[derive(Clone, Debug)]
pub struct NetConf {
    /// The version; results have its shape.
    pub version: Version,
    /// The name, safe as part of a path.
    pub name: String,
    /// The name of the bridge.
    pub bridge: String,
    /// Whether the bridge has the gateway's address; implied by `isDefaultGateway`.
    pub is_gateway: bool,
    /// Whether containers get a default route to the bridge.
    pub is_default_gateway: bool,
    /// Whether an address of the bridge that conflicts is replaced.
    pub force_address: bool,
    /// Whether packets that leave the network are masqueraded.
    pub ip_masq: bool,
    /// What masquerades; none means whatever is there.
    pub ip_masq_backend: Option<MasqBackend>,
    /// The MTU, if not the kernel's own.
    pub mtu: Option<u16>,
    /// Whether the bridge's port sends back what came in through it.
    pub hairpin_mode: bool,
    /// Whether the bridge is promiscuous.
    pub promisc_mode: bool,
    /// What VLANs the bridge keeps apart.
    pub vlans: Option<VlanPlan>,
    /// Whether the container's interface stays down.
    pub disable_container_interface: bool,
    /// Whether IPv6 addresses are checked for duplicates.
    pub enable_dad: bool,
    /// Whether the bridge's ports cannot reach each other.
    pub port_isolation: bool,
    /// Whether the bridge drops what a pod sends with another source MAC than its own.
    pub macspoofchk: bool,
    /// Name resolution; unless empty it replaces that of IPAM.
    pub dns: Dns,
    /// Address management; none means a network of layer 2 only.
    pub ipam: Option<Ipam>,
    /// `runtimeConfig`: what the runtime wants for this attachment.
    pub runtime: Wishes,
    /// `args.cni`: what the user wants for this attachment.
    pub args: Wishes,
    /// The result so far, undecoded; see [`NetConf::previous_result`].
    pub prev_result: Option<Value>,
    /// The attachments that GC must keep. `null` keeps none, as an empty list does; without the key GC must do nothing.
    pub valid_attachments: Option<Vec<AttachmentId>>,
    /// The fast path.
    pub datapath: DatapathConf,
    /// The configuration as it came, for other plugins.
    pub raw: Bytes,
}

/// The `ipam` object; what is in it is the business of its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Ipam {
    /// The type, never empty.
    pub kind: String,
    value: Map<String, Value>,
}

impl Ipam {
    /// Whether the built-in allocator serves it.
    pub fn is_host_local(&self) -> bool {
        self.kind == HOST_LOCAL
    }

    /// The directory of the built-in allocator; all that a release needs, whatever the ranges.
    pub fn data_dir(&self) -> Result<PathBuf> {
        let text = self
            .value
            .get("datadir")
            .and_then(Value::as_str)
            .unwrap_or_default();
        ipam::data_dir(text).code(Code::InvalidConfig)
    }
}

#[derive(Deserialize)]
struct RawAttachment {
    #[serde(rename = "containerid")]
    container_id: String,
    ifname: String,
}

impl NetConf {
    /// Parses a configuration for `command`. What DEL and GC do not need is not held against them, so that an
    /// attachment can be removed after its configuration was broken.
    pub fn parse(raw: Bytes, command: Command) -> Result<Self> {
        let document = json::parse(&raw)
            .context("configuration: parse")
            .code(Code::Decode)?;
        let decoded = json::decode("", document).context("configuration: decode");
        let mut document: Map<String, Value> = decoded.code(Code::Decode)?;
        let name = name(&document)?;
        let version = version(&document, command)?;

        let prev_result = document.remove("prevresult");
        let valid_attachments = document
            .remove(VALID_ATTACHMENTS)
            .map(attachments)
            .transpose()?;
        let ipam = take_ipam(&mut document)
            .context("configuration: decode")
            .code(Code::Decode)?;
        let datapath = document
            .remove("datapath")
            .map(|value| json::decode("datapath", value));
        let mut datapath: DatapathConf = datapath
            .transpose()
            .code(Code::InvalidConfig)?
            .unwrap_or_default();
        let keys: Keys = json::decode("", document.into())
            .context("configuration: decode")
            .code(Code::Decode)?;
        let vlans = vlan::plan(&keys, ipam.is_some());
        if !matches!(command, Command::Del | Command::Gc) {
            keys.validate(ipam.is_some())?;
            vlan::validate(&keys, vlans.as_ref(), datapath.mode).code(Code::InvalidConfig)?;
            for uplink in &datapath.uplinks {
                check_ifname("datapath.uplinks", uplink).code(Code::InvalidConfig)?;
            }
            datapath.validate().code(Code::InvalidConfig)?;
        } else if let Err(error) = datapath.check_paths() {
            // No ADD has put anything there.
            tracing::warn!("{error:#}: looking in the default place");
            let DatapathConf {
                bpffs, state_dir, ..
            } = DatapathConf::default();
            (datapath.bpffs, datapath.state_dir) = (bpffs, state_dir);
        }
        Ok(Self {
            version,
            name,
            is_gateway: keys.is_gateway || keys.is_default_gateway,
            is_default_gateway: keys.is_default_gateway,
            force_address: keys.force_address,
            ip_masq: keys.ip_masq,
            ip_masq_backend: keys.masq_backend(),
            mtu: u16::try_from(keys.mtu).ok().filter(|mtu| *mtu != 0),
            hairpin_mode: keys.hairpin_mode,
            promisc_mode: keys.promisc_mode,
            vlans,
            disable_container_interface: keys.disable_container_interface,
            enable_dad: keys.enabledad,
            port_isolation: keys.port_isolation,
            macspoofchk: keys.macspoofchk,
            bridge: keys.bridge,
            dns: keys.dns,
            ipam,
            runtime: keys.runtime_config,
            args: keys.args.cni,
            prev_result,
            valid_attachments,
            datapath,
            raw,
        })
    }

    /// The configuration of the built-in allocator; fails if `ipam` is none of its.
    pub fn host_local(&self) -> Result<IpamConf> {
        let ipam = self.ipam.as_ref().filter(|ipam| ipam.is_host_local());
        let ipam = ipam
            .with_context(|| format!("ipam.type: not {HOST_LOCAL}"))
            .code(Code::InvalidConfig)?;
        let raw: RawIpam = json::decode("ipam", ipam.value.clone().into()).code(Code::Decode)?;
        let conf =
            IpamConf::new(&self.name, &raw, &self.runtime.ip_ranges).code(Code::InvalidConfig)?;
        if self.version < Version::V0_3_0 && conf.most_sets_of_a_family() > 1 {
            let message = format!(
                "ipam.ranges: CNI version {} does not support more than 1 address per family",
                self.version
            );
            return Err(Error::new(Code::InvalidConfig, message));
        }
        Ok(conf)
    }

    /// The hardware address for the container's interface: the runtime's wish, else the user's, else `CNI_ARGS`.
    pub fn mac(&self, args: &Args) -> Result<Option<[u8; 6]>> {
        let channels = [
            ("runtimeConfig.mac", &*self.runtime.mac, Code::InvalidConfig),
            ("args.cni.mac", &*self.args.mac, Code::InvalidConfig),
            (
                "ARGS: MAC",
                args.mac.as_deref().unwrap_or_default(),
                Code::InvalidEnvironment,
            ),
        ];
        let Some((key, text, code)) = channels.into_iter().find(|(_, text, _)| !text.is_empty())
        else {
            return Ok(None);
        };
        parse_mac(text)
            .with_context(|| format!("{key} {text:?}: not a MAC address"))
            .code(code)
            .map(Some)
    }

    /// The IP addresses that all channels ask for, without prefix lengths.
    pub fn requested_ips(&self, args: &Args) -> Result<Vec<IpAddr>> {
        let mut ips = args.ips().code(Code::InvalidEnvironment)?;
        for (key, wishes) in [
            ("args.cni.ips", &self.args.ips),
            ("runtimeConfig.ips", &self.runtime.ips),
        ] {
            for text in wishes.iter().filter(|text| !text.is_empty()) {
                ips.push(
                    parse_ip_or_cidr(text)
                        .context(key)
                        .code(Code::InvalidConfig)?,
                );
            }
        }
        Ok(ips)
    }

    /// The decoded `prevResult`, which CHECK cannot do without.
    pub fn previous_result(&self) -> Result<CniResult> {
        let missing = || {
            Error::new(
                Code::InvalidConfig,
                "prevResult: required prevResult missing",
            )
        };
        CniResult::parse_previous(self.prev_result.as_ref().ok_or_else(missing)?, self.version)
    }
}

fn string(document: &Map<String, Value>, key: &str) -> Result<String> {
    let value = document.get(key).cloned();
    let text = value.map(|value| json::decode(key, value)).transpose();
    Ok(text
        .context("configuration: decode")
        .code(Code::Decode)?
        .unwrap_or_default())
}

fn name(document: &Map<String, Value>) -> Result<String> {
    let name = string(document, "name")?;
    if name.is_empty() {
        return Err(Error::new(
            Code::InvalidConfig,
            "name: missing network name",
        ));
    }
    check_identifier("name", &name).code(Code::InvalidConfig)?;
    Ok(name)
}

/// The version, if it is supported and has the command.
fn version(document: &Map<String, Value>, command: Command) -> Result<Version> {
    let text = string(document, "cniversion")?;
    let (since, compared) = match command {
        Command::Check => (Version::V0_4_0, true),
        Command::Gc | Command::Status => (Version::V1_1_0, true),
        Command::Add | Command::Del | Command::Version => (Version::V0_1_0, false),
    };
    // These commands compare the version with a number before they look whether it is supported.
    if compared && !is_version(&text) {
        return Err(Error::new(
            Code::Decode,
            format!("cniVersion {text:?}: not a version"),
        ));
    }
    let Some(version) = Version::parse(&text) else {
        let supported = Version::SUPPORTED.map(Version::as_str).join(", ");
        let cause = anyhow::anyhow!("cniVersion {text:?}: not one of {supported}");
        return Err(cause)
            .context("incompatible CNI versions")
            .code(Code::IncompatibleVersion);
    };
    if version < since {
        let message = format!(
            "cniVersion {version}: config version does not allow {}",
            command.as_str()
        );
        return Err(Error::new(Code::IncompatibleVersion, message));
    }
    Ok(version)
}

fn attachments(value: Value) -> Result<Vec<AttachmentId>> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let list: Vec<RawAttachment> = json::decode(VALID_ATTACHMENTS, value)
        .context("configuration: decode")
        .code(Code::Decode)?;
    Ok(list
        .into_iter()
        .map(|id| AttachmentId::new(id.container_id, id.ifname))
        .collect())
}

/// The `ipam` object, or none for a network of layer 2 only.
fn take_ipam(document: &mut Map<String, Value>) -> Anyhow<Option<Ipam>> {
    let Some(value) = document.remove("ipam") else {
        return Ok(None);
    };
    let value: Map<String, Value> = json::decode("ipam", value)?;
    let kind = value
        .get("type")
        .cloned()
        .map(|kind| json::decode("ipam.type", kind));
    let kind: String = kind.transpose()?.unwrap_or_default();
    Ok((!kind.is_empty()).then_some(Ipam { kind, value }))
}

/// Parses six octets, separated by colons or hyphens.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let octet = |octet: &str| {
        let digits = octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(octet, 16).ok()).flatten()
    };
    let octets: Option<Vec<u8>> = text.split(separator).map(octet).collect();
    octets?.try_into().ok()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
