//! Address management: the built-in host-local allocator, and the execution of any other IPAM plugin.
//!
//! Nothing here knows the CNI environment or writes to standard output; callers hand in plain types.

pub mod address;
pub mod config;
pub mod delegate;
pub mod host_local;
mod index;
mod locked;
mod path;
pub mod range;
mod remove;
pub mod resolv_conf;
pub mod store;

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub use config::{IpamConf, RawIpam, RawRange};
pub use delegate::{Delegate, DelegateError};
pub use host_local::{allocate, check, gc, is_exhausted, release};
pub use locked::Locked;
pub use remove::remove;

/// One interface of one container: what an address is reserved for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachmentId {
    /// The container ID the runtime gave.
    pub container_id: String,
    /// The name of the interface inside the container.
    pub ifname: String,
}

impl AttachmentId {
    /// Names the attachment of interface `ifname` in container `container_id`.
    pub fn new(container_id: impl Into<String>, ifname: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            ifname: ifname.into(),
        }
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// Everything that IPAM grants to one attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// One address a range set, in the order of the sets.
    pub ips: Vec<LeasedIp>,
    /// The routes of the configuration, unchanged.
    pub routes: Vec<Route>,
    /// What `resolvConf` says, or nothing.
    pub dns: Dns,
}

/// An address with the prefix length of its subnet, and the way out of that subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasedIp {
    /// The host's address, with the prefix length of the subnet.
    pub address: IpNetwork,
    /// The gateway of the subnet.
    pub gateway: Option<IpAddr>,
}

/// A route, as configured and as reported in results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub dst: IpNetwork,
    /// The next hop; none means the gateway of the address of that family.
    pub gw: Option<IpAddr>,
    /// Path MTU; none means the interface's.
    pub mtu: Option<u32>,
    /// Advertised maximal segment size.
    pub advmss: Option<u32>,
    /// Metric.
    pub priority: Option<u32>,
    /// Routing table; `Some(0)` is kept apart from none, as it is in results.
    pub table: Option<u32>,
    /// Scope; `Some(0)` is kept apart from none, as it is in results.
    pub scope: Option<u8>,
}

impl Route {
    /// A route to `dst` with nothing else said.
    pub fn to(dst: IpNetwork) -> Self {
        Self {
            dst,
            gw: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

/// Name resolution for a container: the CNI `dns` object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers, in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains searched for short names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing at all is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Every address of a range set is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The set, as `<start>-<end>` for each of its ranges.
    pub ranges: String,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no IP addresses available in range set: {}", self.ranges)
    }
}

impl std::error::Error for Exhausted {}
