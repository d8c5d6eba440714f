//! What a plugin made, as values by name: what two plugins made can be compared.
//!
//! What is random or of one node only is told by its role: `<port>`, `<sandbox>`, `<MAC>`, `<link-local>`. What moves by
//! itself, such as counters and carriers, is left out.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::exec;
use crate::netns::Namespace;

/// Attributes of links that name or number something, or that the kernel moves.
const LEFT_OUT: [&str; 17] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "link",
    "valid_life_time",
    "preferred_life_time",
    "bridge_id",
    "root_id",
    "designated_bridge",
    "designated_port",
    "designated_root",
    "id",
    "no",
    "state",
    "operstate",
    "hold_timer",
    "gc_timer",
];

/// Flags that come and go with the carrier.
const CARRIER: [&str; 3] = ["LOWER_UP", "NO-CARRIER", "linkdown"];

/// Stands for an address that follows from a MAC.
const LINK_LOCAL: &str = "<link-local>";

/// Values by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture(BTreeMap<String, String>);

/// A value that two pictures do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// The value in the first picture, if it is there.
    pub first: Option<String>,
    /// The value in the second.
    pub second: Option<String>,
}

/// Names that mean the same on different nodes, with their role.
#[derive(Clone, Debug, Default)]
pub struct Roles(Vec<(String, &'static str)>);

impl Roles {
    /// Has a name told by its role.
    pub fn name(&mut self, name: impl Into<String>, role: &'static str) {
        self.0.push((name.into(), role));
    }

    fn of(&self, text: &str) -> String {
        if is_mac(text) {
            return "<MAC>".to_owned();
        }
        let ip = text
            .split('/')
            .next()
            .unwrap_or_default()
            .parse::<Ipv6Addr>();
        // `fe80::/64`, the network, is the same everywhere.
        if ip.is_ok_and(|ip| ip.is_unicast_link_local() && ip.segments()[7] != 0) {
            return LINK_LOCAL.to_owned();
        }
        let replaced = self.0.iter();
        replaced.fold(text.to_owned(), |text, (name, role)| {
            text.replace(name, role)
        })
    }
}

impl Picture {
    /// Adds a value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// Adds what JSON says, each value by its path.
    pub fn json(&mut self, name: &str, value: &Value, roles: &Roles) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    self.json(&format!("{name}.{key}"), value, roles);
                }
            }
            Value::Array(list) => {
                self.set(format!("{name}.length"), list.len().to_string());
                for (index, value) in list.iter().enumerate() {
                    self.json(&format!("{name}.{index}"), value, roles);
                }
            }
            Value::String(text) => self.set(name, roles.of(text)),
            other => self.set(name, other.to_string()),
        }
    }

    /// Adds the links, addresses, routes, neighbours and parameters of a namespace; not those of the interfaces
    /// in `others`.
    pub fn namespace(
        &mut self,
        name: &str,
        namespace: &Namespace,
        others: &[&str],
        roles: &Roles,
    ) -> Result<()> {
        let ip = |arguments: &[&str]| -> Result<Vec<Value>> {
            exec::json(
                namespace
                    .command("ip")
                    .args(["-json", "-details"])
                    .args(arguments),
            )
        };
        let is_other = |value: &Value| others.iter().any(|other| value == *other);
        for link in ip(&["address"])? {
            if !is_other(&link["ifname"]) {
                self.link(name, &link, roles);
                self.parameters(
                    name,
                    namespace,
                    link["ifname"].as_str().unwrap_or_default(),
                    roles,
                );
            }
        }
        for family in ["-4", "-6"] {
            for route in ip(&[family, "route", "show", "table", "all"])? {
                if !is_other(&route["dev"]) {
                    self.route(name, &route, roles);
                }
            }
        }
        // Link-local addresses and groups are the kernel's own business.
        let is_ours = |ip: &str| {
            let ip = ip.parse::<IpAddr>();
            ip.is_ok_and(|ip| !ip.is_multicast() && roles.of(&ip.to_string()) != LINK_LOCAL)
        };
        for neighbour in ip(&["neighbour", "show", "nud", "all"])? {
            let text = |key: &str| neighbour[key].as_str().unwrap_or_default();
            if is_ours(text("dst")) && !is_other(&neighbour["dev"]) {
                let name = format!("{name} neighbour {} {}", roles.of(text("dev")), text("dst"));
                self.set(name, roles.of(text("lladdr")));
            }
        }
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let value = namespace.within(|| fs::read_to_string(Path::new("/proc/sys").join(key)));
            self.set(
                format!("{name} sysctl {key}"),
                value.unwrap_or_default().trim(),
            );
        }
        Ok(())
    }

    fn link(&mut self, name: &str, link: &Value, roles: &Roles) {
        let role = roles.of(link["ifname"].as_str().unwrap_or_default());
        let mut link = lean(link);
        if let Some(Value::Array(addresses)) = link.remove("addr_info") {
            for address in &addresses {
                let mut address = lean(address);
                let local = address.remove("local").unwrap_or_default();
                let local = roles.of(local.as_str().unwrap_or_default());
                address.remove("label");
                self.json(
                    &format!("{name} address {role} {local}"),
                    &address.into(),
                    roles,
                );
            }
        }
        self.json(&format!("{name} link {role}"), &link.into(), roles);
    }

    fn route(&mut self, name: &str, route: &Value, roles: &Roles) {
        let mut route = lean(route);
        let mut part = |key: &str| {
            let value = route.remove(key).unwrap_or_default();
            roles.of(value.as_str().unwrap_or_default())
        };
        let [kind, to, dev, table] = ["type", "dst", "dev", "table"].map(&mut part);
        let name = format!("{name} route {kind} {to} {dev} {table}");
        // Two of one name differ by their metric.
        let metric = route
            .get("metric")
            .map(Value::to_string)
            .unwrap_or_default();
        self.json(
            &format!("{} {metric}", name.trim_end()),
            &route.into(),
            roles,
        );
    }

    /// The kernel's parameters of an interface.
    fn parameters(&mut self, name: &str, namespace: &Namespace, interface: &str, roles: &Roles) {
        let role = roles.of(interface);
        for family in ["ipv4", "ipv6"] {
            let directory = format!("/proc/sys/net/{family}/conf/{interface}");
            let values: Vec<(String, String)> = namespace.within(|| {
                let files = fs::read_dir(directory).into_iter().flatten().flatten();
                let value = |file: fs::DirEntry| {
                    // Some cannot be read before they are written.
                    let value = fs::read_to_string(file.path()).ok()?;
                    Some((file.file_name().to_string_lossy().into_owned(), value))
                };
                files.filter_map(value).collect()
            });
            for (key, value) in values {
                self.set(format!("{name} sysctl {role} {family}.{key}"), value.trim());
            }
        }
    }

    /// Adds all files and directories below one, with their modes and bytes.
    pub fn files(&mut self, name: &str, root: &Path, roles: &Roles) -> Result<()> {
        let Ok(entries) = fs::read_dir(root) else {
            return Ok(());
        };
        for entry in entries {
            let path = entry?.path();
            let name = format!(
                "{name}/{}",
                path.file_name().unwrap_or_default().to_string_lossy()
            );
            let metadata = fs::metadata(&path)?;
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                self.set(&name, format!("{mode:o}"));
                self.files(&name, &path, roles)?;
            } else {
                let bytes = fs::read(&path)?;
                let text = roles.of(&String::from_utf8_lossy(&bytes));
                self.set(&name, format!("{mode:o} {text:?}"));
            }
        }
        Ok(())
    }

    /// A value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What another picture does not share with this one.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut names: Vec<_> = self.0.keys().chain(other.0.keys()).collect();
        names.sort();
        names.dedup();
        let value = |picture: &Self, name: &str| picture.0.get(name).cloned();
        let all = names.into_iter().map(|name| Difference {
            name: name.clone(),
            first: value(self, name),
            second: value(other, name),
        });
        all.filter(|difference| difference.first != difference.second)
            .collect()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(
            f,
            "{}: {} | {}",
            self.name,
            value(&self.first),
            value(&self.second)
        )
    }
}

/// An object of `ip`'s without what says nothing.
fn lean(object: &Value) -> Map<String, Value> {
    let mut lean = object.as_object().cloned().unwrap_or_default();
    lean.retain(|key, _| !LEFT_OUT.contains(&&**key) && !key.ends_with("_timer"));
    for (key, value) in &mut lean {
        match value {
            Value::Object(_) => *value = self::lean(value).into(),
            Value::Array(list) if key == "flags" => {
                list.retain(|flag| !CARRIER.iter().any(|moves| flag == moves));
            }
            _ => {}
        }
    }
    lean
}

fn is_mac(text: &str) -> bool {
    let octets = text.split(':');
    text.len() == 17
        && octets.clone().count() == 6
        && octets.clone().all(|o| u8::from_str_radix(o, 16).is_ok())
}

#[cfg(test)]
mod tests;
