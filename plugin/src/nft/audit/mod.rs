//! Looking for firewalls that the fast path would defeat.
//!
//! What the fast path carries passes none of netfilter's hooks. So before it is taken, all that is there is looked at
//! as a pod's packet would meet it: a rule that may drop or change packets between pods, and that is not known to be
//! harmless, is a finding. Packets are taken to be well-formed; those that belong to a Service keep the slow path.

use std::fmt;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;

use super::kernel;

pub(super) mod addresses;
pub(crate) mod extensions;
mod holds;
mod known;
pub(crate) mod legacy;
pub(crate) mod listing;
mod matches;
#[cfg(test)]
mod netns_tests;
mod packets;
#[cfg(test)]
mod rulesets;
mod statements;
pub(crate) mod walk;
#[cfg(test)]
mod walk_tests;

use listing::{Base, Nft};
use packets::Hook;
use walk::{ENOUGH, Harm, Ruleset, Walk};

/// What iptables before nf_tables is called in findings.
const BACKEND: &str = "iptables-legacy";

/// What the fast path of a network takes on this node: it is to be looked again when this changes.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The network's bridge.
    pub bridge: &'a str,
    /// The devices that lead to the peers, the overlay's among them.
    pub uplinks: &'a [String],
    /// The addresses of this node's pods; empty if they can be any.
    pub pod_cidrs: &'a [IpNetwork],
    /// The addresses of the peers' pods; empty if only pods of this node are reached past the stack.
    pub peers: &'a [IpNetwork],
}

/// What a rule can do to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Drop or refuse them, or leave that to a program.
    Drop,
    /// Change, translate, copy or divert them.
    Change,
    /// Something that beeline does not know.
    Unknown,
}

/// What was found in a chain, or instead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rule, as the program that knows it writes it.
    Rule(String, Effect),
    /// The policy of a base chain, which not all pods' packets are accepted before.
    Policy(String),
    /// The table cannot be read, for this reason.
    Unreadable(String),
}

/// Something in netfilter that can drop or change packets between pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it belongs to: `nftables`, or a family of iptables before that.
    pub backend: &'static str,
    /// The family, as nf_tables calls it.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain; empty if the table cannot be read.
    pub chain: String,
    /// What it is.
    pub cause: Cause,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.backend, self.family, self.table)?;
        if !self.chain.is_empty() {
            write!(f, " {}", self.chain)?;
        }
        match &self.cause {
            Cause::Rule(text, effect) => {
                let done = match effect {
                    Effect::Drop => "can drop pods' packets",
                    Effect::Change => "can change pods' packets",
                    Effect::Unknown => "can do to pods' packets what beeline does not know",
                };
                write!(f, ": rule {text:?} {done}")
            }
            Cause::Policy(policy) => write!(f, ": policy {policy} can drop pods' packets"),
            Cause::Unreadable(reason) => write!(f, ": cannot be read: {reason}"),
        }
    }
}

/// A number that changes whenever nf_tables' rule set does, in the calling thread's network namespace. Costs one netlink
/// request. 0 if the kernel has no nf_tables. It does not tell of iptables before nf_tables. To know whether an audit
/// still stands, remember what this was before it.
pub fn generation() -> Result<u32> {
    kernel::generation().context("nftables: get generation")
}

/// Looks for what can drop or change packets between pods, in the calling thread's network namespace.
///
/// An error means that it cannot be told: without `nft`, unless nf_tables has no table.
pub fn audit(scope: &Scope<'_>) -> Result<Vec<Finding>> {
    const ATTEMPTS: u32 = 3;
    let mut findings = Vec::new();
    for attempt in 1.. {
        let before = generation()?;
        let found = nf_tables(scope);
        // What was read while it changed, is no rule set that ever was: a chain may have gone, or been empty.
        if generation()? == before || attempt == ATTEMPTS {
            findings = found?;
            break;
        }
    }
    for family in &legacy::FAMILIES {
        iptables(family, scope, &mut findings)?;
    }
    Ok(findings)
}

fn nf_tables(scope: &Scope<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if !kernel::has_tables().context("nftables: get tables")? {
        return Ok(findings);
    }
    let mut nft = Nft::default();
    for base in nft.bases()? {
        let (harms, policy) = look(&base, scope, &mut nft)?;
        findings.extend(harms.into_iter().map(|harm| {
            let text = nft.describe(&harm.chain, harm.handle);
            finding("nftables", harm, text)
        }));
        findings.extend(policy.map(|policy| of_policy("nftables", &base, policy)));
    }
    Ok(findings)
}

fn iptables(family: &legacy::Family, scope: &Scope<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    for table in family.tables()? {
        match family.read(&table) {
            Ok(read) => findings.extend(in_table(read, scope)?),
            Err(error) => findings.push(Finding {
                backend: BACKEND,
                family: family.name.to_owned(),
                table,
                chain: String::new(),
                cause: Cause::Unreadable(format!("{error:#}")),
            }),
        }
    }
    Ok(())
}

pub(crate) fn in_table(mut table: legacy::Table, scope: &Scope<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for base in table.bases.clone() {
        let (harms, policy) = look(&base, scope, &mut table)?;
        findings.extend(harms.into_iter().map(|harm| {
            let text = table.describe(harm.handle);
            finding(BACKEND, harm, text)
        }));
        findings.extend(policy.map(|policy| of_policy(BACKEND, &base, policy)));
    }
    Ok(findings)
}

/// The rules that packets may meet from a base chain on, and its policy if that may harm them.
pub(crate) fn look(
    base: &Base,
    scope: &Scope<'_>,
    ruleset: &mut dyn Ruleset,
) -> Result<(Vec<Harm>, Option<String>)> {
    let mut harms = Vec::new();
    let mut reached = false;
    let nat = base.kind == "nat";
    let known = known::is_harmless_table(&base.id.family, &base.id.table);
    // Chains of type route are only met by what the node itself sends.
    if known || !(nat || base.kind == "filter") {
        return Ok((harms, None));
    }
    let hook = Hook {
        family: &base.id.family,
        name: &base.hook,
        devices: base.devices.as_deref(),
    };
    for packets in packets::at(&hook, scope) {
        reached |= Walk::new(ruleset, &packets, nat, &mut harms).base(&base.id)?;
    }
    let harmful = reached && base.policy == "drop" && harms.len() < ENOUGH;
    Ok((harms, harmful.then(|| base.policy.clone())))
}

fn finding(backend: &'static str, harm: Harm, text: String) -> Finding {
    Finding {
        backend,
        family: harm.chain.family,
        table: harm.chain.table,
        chain: harm.chain.name,
        cause: Cause::Rule(text, harm.effect),
    }
}

fn of_policy(backend: &'static str, base: &Base, policy: String) -> Finding {
    Finding {
        backend,
        family: base.id.family.clone(),
        table: base.id.table.clone(),
        chain: base.id.name.clone(),
        cause: Cause::Policy(policy),
    }
}
