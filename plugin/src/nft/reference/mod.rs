//! What the reference `bridge` plugin masquerades: beeline's DEL and GC come for its pods too once it has its network.
//!
//! ```text
//! iptables   table nat        POSTROUTING -s <address> -j CNI-<24 digits of sha512(<network><container ID>)>
//!                             all rules with the comment  name: "<network>" id: "<container ID>"
//! nftables   table inet cni_plugins_masquerade   chain masq_checks   one rule an address, with a comment that begins
//!                             <16 digits of sha512(<network>)>-<16 digits of sha512(<interface>:<container ID>)>
//! ```
//!
//! Source: `pkg/ip/ipmasq_*_linux.go` and `pkg/utils/utils.go` of containernetworking/plugins.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use nftables::{
    schema::{NfCmd, NfListObject, NfObject, Rule},
    types::NfFamily,
};
use serde_json::json;
use sha2::{Digest, Sha512};

use super::{audit::legacy, command, kernel};

#[cfg(test)]
mod netns_tests;

const TABLE: &str = "cni_plugins_masquerade";
const CHAIN: &str = "masq_checks";

/// How often it is tried where others change the same tables.
const TRIES: usize = 3;

/// Whom masquerading is for.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The runtime's container ID.
    pub container_id: &'a str,
    /// The interface's name inside the pod.
    pub ifname: &'a str,
}

/// The masquerading that the reference plugin set up for a network, in the calling thread's network namespace.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceMasquerade<'a> {
    /// The network's name.
    pub network: &'a str,
}

impl ReferenceMasquerade<'_> {
    /// Deletes what is there for a pod; nothing is success, and then no child process runs (but for iptables before
    /// nf_tables, where only its own programs can tell).
    pub fn delete(&self, owner: &Owner<'_>) -> Result<()> {
        let chain = self.chain(owner);
        for iptables in &KINDS {
            if iptables.may_have(Some(&chain))? {
                iptables.delete(|jump| jump.chain == chain)?;
            }
        }
        let hash = self.instance(owner);
        delete_rules(|comment| comment.starts_with(&hash))
    }

    /// Deletes what is there for all pods of the network but these.
    pub fn retain(&self, owners: &[Owner<'_>]) -> Result<()> {
        let start = format!("name: {:?} id: \"", self.network);
        let is_stale = |jump: &Jump<'_>| {
            let id = jump.comment.strip_prefix(&start);
            let id = id.and_then(|rest| rest.strip_suffix('"'));
            id.is_some_and(|id| owners.iter().all(|owner| owner.container_id != id))
        };
        for iptables in &KINDS {
            if iptables.may_have(None)? {
                iptables.delete(is_stale)?;
            }
        }
        let ours = format!("{}-", digits(self.network, 16));
        let valid: Vec<String> = owners.iter().map(|owner| self.instance(owner)).collect();
        let is_valid = |comment: &str| valid.iter().any(|hash| comment.starts_with(hash));
        delete_rules(|comment| comment.starts_with(&ours) && !is_valid(comment))
    }

    fn chain(&self, owner: &Owner<'_>) -> String {
        let name = format!("{}{}", self.network, owner.container_id);
        format!("CNI-{}", digits(&name, 24))
    }

    fn instance(&self, owner: &Owner<'_>) -> String {
        let instance = format!("{}:{}", owner.ifname, owner.container_id);
        format!("{}-{}", digits(self.network, 16), digits(&instance, 16))
    }
}

/// The first hexadecimal digits of a text's SHA-512.
fn digits(text: &str, count: usize) -> String {
    let mut digits = String::new();
    for byte in Sha512::digest(text.as_bytes()) {
        // Writing into a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits.truncate(count);
    digits
}

/// One of the programs that are called iptables.
struct Iptables {
    /// What its programs' names begin with.
    program: &'static str,
    tables: Tables,
}

enum Tables {
    /// Of this family, in nf_tables.
    Nft(u8),
    Legacy(&'static legacy::Family),
}

static KINDS: [Iptables; 4] = [
    Iptables {
        program: "iptables-nft",
        tables: Tables::Nft(kernel::NFPROTO_IPV4),
    },
    Iptables {
        program: "ip6tables-nft",
        tables: Tables::Nft(kernel::NFPROTO_IPV6),
    },
    Iptables {
        program: "iptables-legacy",
        tables: Tables::Legacy(&legacy::FAMILIES[0]),
    },
    Iptables {
        program: "ip6tables-legacy",
        tables: Tables::Legacy(&legacy::FAMILIES[1]),
    },
];

impl Iptables {
    /// Whether there may be masquerading, in this chain or in any. Runs no child process.
    fn may_have(&self, chain: Option<&str>) -> Result<bool> {
        match &self.tables {
            Tables::Nft(family) => {
                let chain = chain.unwrap_or("POSTROUTING");
                kernel::has_chain(*family, "nat", chain)
                    .with_context(|| format!("{}: chain {chain:?}: get", self.program))
            }
            Tables::Legacy(family) => Ok(family.tables()?.iter().any(|table| table == "nat")),
        }
    }

    /// Deletes the jumps that `chosen` picks, and the chains that they lead to.
    fn delete(&self, chosen: impl Fn(&Jump<'_>) -> bool) -> Result<()> {
        let run = |suffix: &str, args: &[&str], input: &[u8]| {
            command::output(
                &format!("{}-{suffix}", self.program),
                "iptables",
                args,
                input,
            )
        };
        if command::program(&format!("{}-save", self.program)).is_none() {
            // What stays then masquerades an address that the reference plugin gave, and no longer matters.
            let program = self.program;
            tracing::warn!(
                "{program}: not installed; what the bridge plugin masquerades by it stays"
            );
            return Ok(());
        }
        let mut last = Ok(());
        for _ in 0..TRIES {
            let saved = run("save", &["-t", "nat"], b"")?;
            let Some(changes) = deletion(&String::from_utf8_lossy(&saved), &chosen) else {
                return Ok(());
            };
            // Another process may have deleted some of it just now.
            last = run("restore", &["--noflush", "--wait=10"], changes.as_bytes()).map(drop);
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// A rule that leads to a chain of its own.
pub(crate) struct Jump<'a> {
    /// As iptables-save writes it, behind the chain that it is in.
    rule: &'a str,
    chain: String,
    comment: String,
}

impl<'a> Jump<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let rule = line.strip_prefix("-A POSTROUTING ")?;
        let words = shlex::split(rule)?;
        let behind = |option: &str| {
            let at = words.iter().position(|word| word == option)?;
            words.get(at + 1).cloned()
        };
        Some(Self {
            rule,
            chain: behind("-j").filter(|chain| chain.starts_with("CNI-"))?,
            comment: behind("--comment").unwrap_or_default(),
        })
    }
}

/// What iptables-restore has to be told; `None` if there is nothing to delete.
pub(crate) fn deletion(saved: &str, chosen: impl Fn(&Jump<'_>) -> bool) -> Option<String> {
    let jumps = saved.lines().filter_map(Jump::parse);
    let jumps: Vec<_> = jumps.filter(|jump| chosen(jump)).collect();
    let mut chains: Vec<_> = jumps.iter().map(|jump| &*jump.chain).collect();
    chains.sort_unstable();
    chains.dedup();
    let rules = jumps
        .iter()
        .map(|jump| format!("-D POSTROUTING {}\n", jump.rule));
    let chains = chains
        .iter()
        .map(|chain| format!("-F {chain}\n-X {chain}\n"));
    let changes: String = rules.chain(chains).collect();
    (!changes.is_empty()).then(|| format!("*nat\n{changes}COMMIT\n"))
}

/// Deletes the rules of the plugin's own table that have such comments.
fn delete_rules(chosen: impl Fn(&str) -> bool) -> Result<()> {
    let exists =
        || kernel::has_table(TABLE).with_context(|| format!("nftables table {TABLE:?}: get"));
    let mut last = Ok(());
    for _ in 0..TRIES {
        if !exists()? {
            return Ok(());
        }
        let chain = json!({"chain": {"family": "inet", "table": TABLE, "name": CHAIN}});
        let listed = command::list(&chain)?;
        let rules = listed.iter().map(|object| &object["rule"]);
        let rules = rules.filter(|rule| rule["comment"].as_str().is_some_and(&chosen));
        let handles = rules.filter_map(|rule| u32::try_from(rule["handle"].as_u64()?).ok());
        let commands: Vec<_> = handles.map(deleted).collect();
        if commands.is_empty() {
            return Ok(());
        }
        last = command::run(commands);
        if last.is_ok() {
            break;
        }
    }
    last.with_context(|| format!("nftables table {TABLE:?}: delete rules"))
}

fn deleted(handle: u32) -> NfObject<'static> {
    NfObject::CmdObject(NfCmd::Delete(NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: CHAIN.into(),
        handle: Some(handle),
        ..Rule::default()
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iptables-save 1.8.9 writes what the plugin made for container `cid1` of network `pods`.
    const SAVED: &str = r#"*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-8f8be2c923f9afbea486b314 - [0:0]
-A POSTROUTING -j KUBE-POSTROUTING
-A POSTROUTING -s 10.9.0.2/32 -m comment --comment "name: \"pods\" id: \"cid1\"" -j CNI-8f8be2c923f9afbea486b314
-A CNI-8f8be2c923f9afbea486b314 -d 10.9.0.0/24 -m comment --comment "name: \"pods\" id: \"cid1\"" -j ACCEPT
COMMIT
"#;

    const OWNER: Owner<'_> = Owner {
        container_id: "cid1",
        ifname: "eth0",
    };

    #[test]
    fn a_pods_chain_is_named_as_the_plugin_names_it() {
        let masquerade = ReferenceMasquerade { network: "pods" };
        assert_eq!(masquerade.chain(&OWNER), "CNI-8f8be2c923f9afbea486b314");
    }

    #[test]
    fn jumps_are_deleted_before_the_chains_that_they_lead_to() {
        let changes = deletion(SAVED, |jump| jump.comment == r#"name: "pods" id: "cid1""#);
        let expected = r#"*nat
-D POSTROUTING -s 10.9.0.2/32 -m comment --comment "name: \"pods\" id: \"cid1\"" -j CNI-8f8be2c923f9afbea486b314
-F CNI-8f8be2c923f9afbea486b314
-X CNI-8f8be2c923f9afbea486b314
COMMIT
"#;
        assert_eq!(changes.as_deref(), Some(expected));
        assert_eq!(deletion(SAVED, |_| false), None);
    }
}
