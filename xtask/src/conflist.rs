//! The network configuration that `install` writes: its options, their limits, and its JSON.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Result, bail};
use ipnetwork::IpNetwork;
use serde::Serialize;

/// The network's options, as given on the command line.
#[derive(clap::Args, Clone)]
pub(crate) struct Network {
    /// Name of the network
    #[arg(long, default_value = "pods", value_parser = name)]
    name: String,
    /// Bridge that the pods join
    #[arg(long, default_value = "cni0", value_parser = interface)]
    bridge: String,
    /// Addresses of this node's pods
    #[arg(long, value_name = "CIDR", default_value = "10.244.1.0/24", value_parser = cidr)]
    subnet: IpNetwork,
    /// Interface towards the other nodes, repeatable [default: the default route's]
    #[arg(long = "uplink", value_name = "INTERFACE", value_parser = interface)]
    pub(crate) uplinks: Vec<String>,
    /// Another node: its pods' addresses and its own, repeatable
    #[arg(long = "peer", value_name = "CIDR=NODE")]
    peers: Vec<Peer>,
    /// CNI version of the configuration
    #[arg(long, default_value = "1.0.0", value_parser = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])]
    cni_version: String,
}

/// Another node's pods and address.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Peer {
    cidr: IpNetwork,
    node: IpAddr,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conflist<'a> {
    cni_version: &'a str,
    name: &'a str,
    plugins: [Plugin<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plugin<'a> {
    r#type: &'a str,
    bridge: &'a str,
    is_gateway: bool,
    hairpin_mode: bool,
    ip_masq: bool,
    ipam: Ipam,
    datapath: Datapath<'a>,
}

#[derive(Serialize)]
struct Ipam {
    r#type: &'static str,
    ranges: [[Range; 1]; 1],
    routes: [Route; 1],
}

#[derive(Serialize)]
struct Range {
    subnet: IpNetwork,
}

#[derive(Serialize)]
struct Route {
    dst: &'static str,
}

#[derive(Serialize)]
struct Datapath<'a> {
    mode: &'static str,
    uplinks: &'a [String],
    peers: &'a [Peer],
}

impl Network {
    /// Checks what no option can tell by itself.
    pub(crate) fn check(&self) -> Result<()> {
        for (i, peer) in self.peers.iter().enumerate() {
            let given = format!("--peer {}={}", peer.cidr, peer.node);
            if peer.cidr.is_ipv4() != peer.node.is_ipv4() {
                bail!("{given}: one is IPv4, the other IPv6");
            }
            if overlap(&peer.cidr, &self.subnet) {
                bail!("{given}: overlaps --subnet {}", self.subnet);
            }
            // A node may have several CIDRs, and a CIDR within another's is routed by the longer prefix.
            if self.peers[..i].iter().any(|other| other.cidr == peer.cidr) {
                bail!("{given}: {} was given before", peer.cidr);
            }
        }
        Ok(())
    }

    /// Returns the configuration's text.
    pub(crate) fn conflist(&self) -> Result<String> {
        let dst = if self.subnet.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        let ipam = Ipam {
            r#type: "host-local",
            ranges: [[Range {
                subnet: self.subnet,
            }]],
            routes: [Route { dst }],
        };
        let datapath = Datapath {
            mode: "auto",
            uplinks: &self.uplinks,
            peers: &self.peers,
        };
        let plugin = Plugin {
            r#type: "beeline",
            bridge: &self.bridge,
            is_gateway: true,
            // A pod that is the backend of a Service may be its client.
            hairpin_mode: true,
            ip_masq: true,
            ipam,
            datapath,
        };
        let conflist = Conflist {
            cni_version: &self.cni_version,
            name: &self.name,
            plugins: [plugin],
        };
        Ok(serde_json::to_string_pretty(&conflist)? + "\n")
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (network, node) = text.split_once('=').ok_or("not of the form CIDR=NODE")?;
        let node = node
            .parse()
            .map_err(|_| format!("node {node:?} is not an IP address"))?;
        Ok(Self {
            cidr: cidr(network)?,
            node,
        })
    }
}

/// Reads a CIDR; one with host bits is more likely a slip than meant.
fn cidr(text: &str) -> Result<IpNetwork, String> {
    let parsed: Option<IpNetwork> = text.contains('/').then(|| text.parse().ok()).flatten();
    let parsed = parsed.ok_or_else(|| format!("{text:?} is not a CIDR"))?;
    if parsed.ip() != parsed.network() {
        return Err(format!(
            "{text:?} has host bits; its network is {}/{}",
            parsed.network(),
            parsed.prefix()
        ));
    }
    Ok(parsed)
}

fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// Reads an interface's name, by the kernel's rules.
fn interface(text: &str) -> Result<String, String> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    match text {
        "" | "." | ".." => Err("not an interface name".into()),
        _ if text.contains(odd) => Err("an interface name has no '/', ':' or space".into()),
        _ if text.len() > 15 => Err("an interface name has at most 15 bytes".into()),
        _ => Ok(text.to_owned()),
    }
}

/// Reads a network's name, by the CNI specification's rules.
fn name(text: &str) -> Result<String, String> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(usual) {
        return Ok(text.to_owned());
    }
    Err("a network name is of letters, digits, '_', '.' and '-', and starts with one of the first two".into())
}

#[cfg(test)]
mod tests;
