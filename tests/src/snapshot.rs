//! What there is on a node, as text, to assert that nothing was left or changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::exec;
use crate::node::Node;
use crate::sweep;

mod programs;

/// Parameters of a whole node that somebody may set for its pods. Those of interfaces go with them.
const SYSCTLS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/arp_notify",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv6/conf/all/accept_ra",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/addr_gen_mode",
];

/// Where the kernel tells which tables iptables has that are not of nf_tables.
const LEGACY_TABLES: [(&str, &str); 2] = [
    ("ip_tables_names", "iptables-legacy-save"),
    ("ip6_tables_names", "ip6tables-legacy-save"),
];

/// Links, addresses, routes, neighbours, parameters, rules, queueing disciplines, programs, entries of maps, state files
/// and pins of a node; one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl FromIterator<String> for Snapshot {
    /// One of lines that somebody else found.
    fn from_iter<I: IntoIterator<Item = String>>(lines: I) -> Self {
        Self(lines.into_iter().collect())
    }
}

impl Snapshot {
    /// Takes one; panics if the node cannot be looked at.
    #[track_caller]
    pub fn of(node: &Node) -> Self {
        Self::take(node).unwrap_or_else(|error| panic!("{}: snapshot: {error:#}", node.name()))
    }

    /// Takes one.
    pub fn take(node: &Node) -> Result<Self> {
        let ip = ["-json", "-details", "address"];
        let links: Vec<Value> = exec::json(node.netns().command("ip").args(ip))?;
        let mut lines: BTreeSet<String> = links.iter().flat_map(link).collect();
        let text = |args: &[&str]| exec::stdout(node.netns().command(args[0]).args(&args[1..]));
        for line in text(&["ip", "route", "show", "table", "all"])?.lines() {
            // Comes and goes with the carrier, which a bridge has only while a pod is up.
            lines.insert(format!("route {}", line.replace(" linkdown", "").trim()));
        }
        for line in text(&["ip", "neigh", "show", "nud", "permanent"])?.lines() {
            lines.insert(format!("neighbour {}", line.trim()));
        }
        for line in text(&["tc", "qdisc", "show"])?.lines() {
            // Others are the interface's own.
            if line.contains("clsact") || line.contains("ingress") {
                lines.insert(line.trim().to_owned());
            }
        }
        if links.iter().any(|link| kind(link) == "vxlan") {
            for line in text(&["bridge", "fdb", "show"])?.lines() {
                if line.contains(" dst ") {
                    lines.insert(format!("fdb {}", line.trim()));
                }
            }
        }
        lines.extend(kernel(node)?);
        let names: Vec<_> = links.iter().map(|link| plain(&link["ifname"])).collect();
        lines.extend(programs::hooks(node, &names));
        lines.extend(programs::maps(node)?);
        // Without counters, which may move.
        lines.extend(ruleset(&text(&["nft", "--stateless", "list", "ruleset"])?));
        lines.extend(
            sweep::walk(&node.bpffs_dir())
                .iter()
                .map(|path| format!("pin {}", path.display())),
        );
        let files = [node.data_dir(), node.state_dir()]
            .into_iter()
            .flat_map(|directory| sweep::walk(&directory));
        let reserved = node.reserved();
        let files = files
            .filter(|path| !is_permanent(&path.file_name().unwrap_or_default().to_string_lossy()))
            .filter(|path| !is_looked_up(path, &reserved));
        lines.extend(files.map(|path| format!("file {}", path.display())));
        Ok(Self(lines))
    }

    /// The same with lines that somebody else found.
    pub fn with(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.0.extend(lines);
        self
    }

    /// All lines.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Lines of one kind, such as `pin` or `file`.
    pub fn lines(&self, kind: &str) -> Vec<&str> {
        let prefix = format!("{kind} ");
        self.0
            .iter()
            .filter(|line| line.starts_with(&prefix))
            .map(String::as_str)
            .collect()
    }

    /// What is gone (`-`) and what is new (`+`) in `later`; empty if nothing changed.
    pub fn diff(&self, later: &Self) -> String {
        let gone = self
            .0
            .difference(&later.0)
            .map(|line| format!("- {line}\n"));
        let new = later
            .0
            .difference(&self.0)
            .map(|line| format!("+ {line}\n"));
        gone.chain(new).collect()
    }

    /// Panics unless the node is at present as it was.
    #[track_caller]
    pub fn assert_unchanged(&self, node: &Node) {
        let diff = self.diff(&Self::of(node));
        assert!(
            diff.is_empty(),
            "{} is not as it was before:\n{diff}",
            node.name()
        );
    }
}

/// Parameters, and the rules of the older iptables.
fn kernel(node: &Node) -> Result<Vec<String>> {
    let (mut lines, saves) = node.netns().within(|| {
        let value = |key: &&str| fs::read_to_string(Path::new("/proc/sys").join(key)).ok();
        let lines = SYSCTLS.iter().filter_map(|key| {
            let value = value(key)?;
            Some(format!("sysctl {key} = {}", value.trim()))
        });
        let saves = LEGACY_TABLES.iter().filter(|(tables, _)| {
            let tables = Path::new("/proc/thread-self/net").join(tables);
            fs::read_to_string(tables).is_ok_and(|tables| !tables.is_empty())
        });
        (
            lines.collect::<Vec<_>>(),
            saves.map(|(_, save)| *save).collect::<Vec<_>>(),
        )
    });
    for save in saves {
        let rules = exec::stdout(&mut node.netns().command(save))?;
        let rules = rules.lines().filter(|line| line.starts_with('-'));
        lines.extend(rules.map(|rule| format!("{save} {rule}")));
    }
    Ok(lines)
}

fn plain(value: &Value) -> String {
    value.as_str().unwrap_or("none").to_owned()
}

fn kind(link: &Value) -> String {
    plain(&link["linkinfo"]["info_kind"])
}

/// The lines of one link, as `ip -json -details address` tells of it, and of its addresses.
pub fn link(link: &Value) -> Vec<String> {
    let name = plain(&link["ifname"]);
    let (kind, master, mac) = (kind(link), plain(&link["master"]), plain(&link["address"]));
    let mut lines = vec![format!(
        "link {name} {kind} mtu {} master {master} {mac}",
        link["mtu"]
    )];
    for address in link["addr_info"].as_array().into_iter().flatten() {
        let (local, length) = (plain(&address["local"]), &address["prefixlen"]);
        lines.push(format!("address {name} {local}/{length}"));
    }
    lines
}

/// Names each rule by its table and chain, and numbers those that are there twice.
fn ruleset(text: &str) -> Vec<String> {
    let mut blocks: Vec<&str> = Vec::new();
    let mut seen = BTreeMap::new();
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "}" {
            blocks.pop();
            continue;
        }
        let name = format!("nft {}: {line}", blocks.join(" "));
        let count = seen
            .entry(name.clone())
            .and_modify(|count| *count += 1)
            .or_insert(1);
        lines.push(if *count == 1 {
            name
        } else {
            format!("{name} (#{count})")
        });
        if let Some(block) = line.strip_suffix(" {") {
            blocks.push(block);
        }
    }
    lines
}

/// Whether a file stays by design: removing a lock is a race, and host-local remembers where it was.
fn is_permanent(file_name: &str) -> bool {
    file_name == "lock"
        || file_name.ends_with(".lock")
        || file_name.starts_with("last_reserved_ip.")
}

/// Whether a file is of IPAM's index and says what the addresses' own files say: it comes when IPAM first looks at these,
/// which may be in the DEL of another pod. What is left of a released address is not of these.
fn is_looked_up(path: &Path, reserved: &[IpAddr]) -> bool {
    let in_index = path.parent().and_then(Path::file_name) == Some("ipam".as_ref());
    let text = || fs::read_to_string(path).unwrap_or_default();
    let is_reserved = |ip: &str| ip.parse().is_ok_and(|ip| reserved.contains(&ip));
    in_index && text().lines().all(is_reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_there_twice_is_two_lines() {
        let lines = ruleset("table inet t {\n\tchain c {\n\t\taccept\n\t\taccept\n\t}\n}\n");
        let expected = [
            "nft : table inet t {",
            "nft table inet t: chain c {",
            "nft table inet t chain c: accept",
            "nft table inet t chain c: accept (#2)",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_diff_tells_what_is_gone_from_what_is_new() {
        let snapshot =
            |lines: &[&str]| Snapshot(lines.iter().map(|line| (*line).to_owned()).collect());
        let (before, after) = (
            snapshot(&["link a", "link b"]),
            snapshot(&["link b", "link c"]),
        );
        assert_eq!(before.diff(&after), "- link a\n+ link c\n");
        assert_eq!(before.diff(&before), "");
    }
}
