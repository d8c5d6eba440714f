//! The result of ADD: built once, written in the shape of any version, and read back as `prevResult`.

use std::net::IpAddr;

use anyhow::{Context, Result as Anyhow, ensure};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Code, Error, Result, WithCode};
use super::json;
use super::version::{Schema, Version};
use crate::ipam::address::{parse_cidr, parse_ip};
use crate::ipam::config::RawRoute;
use crate::ipam::{Dns, Lease, LeasedIp, Route};

/// An interface that ADD made or used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The hardware address, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// The namespace as the runtime named it; empty on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

impl Interface {
    /// An interface on the host.
    pub fn on_host(name: impl Into<String>, mac: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mac: mac.into(),
            sandbox: String::new(),
        }
    }

    /// An interface in the container's namespace; `netns` is `CNI_NETNS` verbatim.
    pub fn in_netns(
        name: impl Into<String>,
        mac: impl Into<String>,
        netns: impl Into<String>,
    ) -> Self {
        Self {
            sandbox: netns.into(),
            ..Self::on_host(name, mac)
        }
    }
}

/// An address of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    interface: Option<usize>,
    /// The address with the prefix length of its subnet.
    pub address: IpNetwork,
    /// The gateway of the subnet.
    pub gateway: Option<IpAddr>,
}

/// An interface of the [`CniResult`] that gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceRef(usize);

/// What ADD reports. Interfaces are only ever added, so the references between its parts hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    routes: Vec<Route>,
    dns: Dns,
}

impl CniResult {
    /// An empty result.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an interface, which addresses can then refer to.
    pub fn interface(&mut self, interface: Interface) -> InterfaceRef {
        self.interfaces.push(interface);
        InterfaceRef(self.interfaces.len() - 1)
    }

    /// Adds an address of an interface.
    pub fn ip(&mut self, interface: InterfaceRef, address: IpNetwork, gateway: Option<IpAddr>) {
        self.ips.push(Ip {
            interface: Some(interface.0),
            address,
            gateway,
        });
    }

    /// Adds a route.
    pub fn route(&mut self, route: Route) {
        self.routes.push(route);
    }

    /// Sets the name resolution.
    pub fn set_dns(&mut self, dns: Dns) {
        self.dns = dns;
    }

    /// Sets the hardware address of an interface, which may be known only at the end.
    pub fn set_mac(&mut self, interface: InterfaceRef, mac: impl Into<String>) {
        if let Some(interface) = self.interfaces.get_mut(interface.0) {
            interface.mac = mac.into();
        }
    }

    /// The interfaces.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The addresses.
    pub fn ips(&self) -> &[Ip] {
        &self.ips
    }

    /// The interface an address is on, if the result says so.
    pub fn interface_of(&self, ip: &Ip) -> Option<&Interface> {
        self.interfaces.get(ip.interface?)
    }

    /// The routes.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The name resolution.
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// What an IPAM plugin's result grants.
    pub fn into_lease(self) -> Lease {
        let leased = |ip: &Ip| LeasedIp {
            address: ip.address,
            gateway: ip.gateway,
        };
        Lease {
            ips: self.ips.iter().map(leased).collect(),
            routes: self.routes,
            dns: self.dns,
        }
    }

    /// The result in the shape of `version`; fails where that shape cannot hold it.
    pub fn to_json(&self, version: Version) -> Result<Value> {
        let document = match version.schema() {
            Schema::IpPerFamily => serde_json::to_value(self.per_family(version)?),
            schema => serde_json::to_value(self.listed(version, schema)),
        };
        document.context("result: write").code(Code::Internal)
    }

    /// Reads what an IPAM plugin printed. No version means that of the configuration; any supported one will do.
    pub fn parse(document: &[u8], version: Version) -> Result<Self> {
        let document = json::parse(document)
            .context("result: parse")
            .code(Code::Decode)?;
        let version = declared_version(&document, version)?;
        Self::from_document("result", document, version)
    }

    /// Reads the `prevResult` of a configuration of `version`, whose shape it must have.
    pub fn parse_previous(document: &Value, version: Version) -> Result<Self> {
        let declared = declared_version(document, version).map_err(|error| {
            let error = anyhow::Error::from(error).context("prevResult");
            Error::from(error)
        })?;
        if declared.schema() != version.schema() {
            let message = format!(
                "prevResult.cniVersion {declared}: cannot be used with configuration version {version}"
            );
            return Err(Error::new(Code::IncompatibleVersion, message));
        }
        Self::from_document("prevResult", document.clone(), declared)
    }

    fn from_document(what: &str, document: Value, version: Version) -> Result<Self> {
        let read = || -> Anyhow<Self> {
            // Else a list would be taken for the members of an object.
            ensure!(document.is_object(), "not an object");
            match version.schema() {
                Schema::IpPerFamily => json::decode::<PerFamily>("", document)?.read(),
                _ => json::decode::<Listed>("", document)?.read(),
            }
        };
        read().with_context(|| what.to_owned()).code(Code::Decode)
    }

    fn listed(&self, version: Version, schema: Schema) -> Listed {
        let current = schema == Schema::Current;
        let ip = |ip: &Ip| ListedIp {
            version: if ip.address.is_ipv4() {
                "4".into()
            } else {
                "6".into()
            },
            interface: ip.interface.map(|index| index as i64),
            address: ip.address.to_string(),
            gateway: text(ip.gateway),
        };
        let mut ips: Vec<_> = self.ips.iter().map(ip).collect();
        if current {
            ips.iter_mut().for_each(|ip| ip.version.clear());
        }
        Listed {
            cni_version: version.to_string(),
            interfaces: self.interfaces.clone(),
            ips,
            routes: self.routes.iter().map(RawRoute::from).collect(),
            dns: (!current || !self.dns.is_empty()).then(|| self.dns.clone()),
        }
    }

    fn per_family(&self, version: Version) -> Result<PerFamily> {
        let family = |v4: bool| {
            let ip = self.ips.iter().find(|ip| ip.address.is_ipv4() == v4)?;
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == v4);
            let routes = routes.map(|route| {
                RawRoute::from(&Route {
                    gw: route.gw,
                    ..Route::to(route.dst)
                })
            });
            Some(FamilyIp {
                ip: ip.address.to_string(),
                gateway: text(ip.gateway),
                routes: routes.collect(),
            })
        };
        let (ip4, ip6) = (family(true), family(false));
        if ip4.is_none() && ip6.is_none() {
            let message =
                format!("result: version {version}: cannot convert: no valid IP addresses");
            return Err(Error::new(Code::Internal, message));
        }
        Ok(PerFamily {
            cni_version: version.to_string(),
            ip4,
            ip6,
            dns: self.dns.clone(),
        })
    }
}

/// The version a document says it has, or `default`.
fn declared_version(document: &Value, default: Version) -> Result<Version> {
    let declared = document
        .get("cniversion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if declared.is_empty() {
        return Ok(default);
    }
    let unsupported = || {
        Error::new(
            Code::IncompatibleVersion,
            format!("result: unsupported cniVersion {declared:?}"),
        )
    };
    Version::parse(declared).ok_or_else(unsupported)
}

fn text(ip: Option<IpAddr>) -> String {
    ip.map(|ip| ip.to_string()).unwrap_or_default()
}

/// Results from 0.3.0 on. Read from folded documents, hence the aliases in lower case.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Listed {
    #[serde(rename = "cniVersion", alias = "cniversion")]
    cni_version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<ListedIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RawRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Dns>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct ListedIp {
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<i64>,
    address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    gateway: String,
}

/// Results of 0.1.0 and 0.2.0.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct PerFamily {
    #[serde(rename = "cniVersion", alias = "cniversion")]
    cni_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<FamilyIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<FamilyIp>,
    dns: Dns,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct FamilyIp {
    ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    gateway: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RawRoute>,
}

impl Listed {
    fn read(self) -> Anyhow<CniResult> {
        // An index that leads nowhere says nothing: IPAM plugins have been seen to write 0 without any interface.
        let known = |index: i64| {
            usize::try_from(index)
                .ok()
                .filter(|index| *index < self.interfaces.len())
        };
        let ip = |(i, ip): (usize, &ListedIp)| -> Anyhow<Ip> {
            let (address, gateway) =
                parse_address(&ip.address, &ip.gateway).with_context(|| format!("ips[{i}]"))?;
            Ok(Ip {
                interface: ip.interface.and_then(known),
                address,
                gateway,
            })
        };
        Ok(CniResult {
            ips: self.ips.iter().enumerate().map(ip).collect::<Anyhow<_>>()?,
            routes: parse_routes(&self.routes)?,
            interfaces: self.interfaces,
            dns: self.dns.unwrap_or_default(),
        })
    }
}

impl PerFamily {
    fn read(self) -> Anyhow<CniResult> {
        let mut result = CniResult {
            dns: self.dns,
            ..CniResult::default()
        };
        for (key, family) in [("ip4", self.ip4), ("ip6", self.ip6)] {
            let Some(family) = family else { continue };
            let (address, gateway) = parse_address(&family.ip, &family.gateway).context(key)?;
            result.ips.push(Ip {
                interface: None,
                address,
                gateway,
            });
            for mut route in parse_routes(&family.routes).context(key)? {
                route.gw = route.gw.or(gateway);
                result.routes.push(route);
            }
        }
        Ok(result)
    }
}

fn parse_address(address: &str, gateway: &str) -> Anyhow<(IpNetwork, Option<IpAddr>)> {
    let gateway = (!gateway.is_empty()).then(|| parse_ip(gateway)).transpose();
    Ok((parse_cidr(address)?, gateway.context("gateway")?))
}

fn parse_routes(routes: &[RawRoute]) -> Anyhow<Vec<Route>> {
    let route =
        |(i, route): (usize, &RawRoute)| route.parse().with_context(|| format!("routes[{i}]"));
    routes.iter().enumerate().map(route).collect()
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
