//! What the node was set up for, what did not work then, and what stands in the way of the fast path now.

use std::path::Path;

use super::finding::{Commands, Finding, Severity, commands as several, names, or_ok};
use crate::{
    datapath::config::Mode,
    nft::{self, Difference},
    node::{Plan, Record},
};

const CHECK: &str = "network";
const FIREWALL: &str = "firewall";
const MASQUERADE: &str = "masquerade";

/// What the kernel and the node's programs say of netfilter.
#[derive(Debug, Default)]
pub(super) struct Netfilter {
    /// What the fast path would defeat now; none if it was not looked for.
    pub(super) defeated: Option<Vec<String>>,
    /// Whether `nft` is installed.
    pub(super) nft: bool,
    /// Whether the network's masquerading is as it should be, or why that cannot be told; none without `ipMasq`.
    pub(super) masquerades: Option<Result<bool, String>>,
    /// How the cluster's CIDRs in it differ from those that there are.
    pub(super) cluster: Option<Difference>,
}

/// How much it matters to a network that it has no fast path.
pub(super) fn severity(mode: Mode) -> Severity {
    match mode {
        Mode::Ebpf => Severity::Failure,
        Mode::Auto => Severity::Warning,
        Mode::Bridge => Severity::Note,
    }
}

/// Judges how the node was set up; `configured` is what its configuration says now, and where.
pub(super) fn judge(
    record: &Record,
    configured: Option<(&Plan, &Path)>,
    problems: &[String],
    commands: &Commands,
) -> Vec<Finding> {
    let plan = &record.plan;
    let mode = plan.datapath.mode;
    let object = format!("bridge {}", plan.bridge.name);
    let load = &commands.load;
    let say = |severity, message: String, fix: &str| {
        Finding::new(CHECK, severity, &*object, message, fix)
    };
    let mut found = Vec::new();
    match configured {
        Some((now, path)) if now != plan => {
            let message = format!(
                "{} has changed since the node was set up; the next ADD sets it up anew",
                path.display()
            );
            found.push(say(Severity::Note, message, load));
        }
        Some(_) => {}
        None => {
            let message = "is set up, but no configuration has this network any more".to_owned();
            let fix = format!("its conflist, or {}", commands.unload);
            found.push(say(Severity::Note, message, &fix));
        }
    }
    if let Some(reason) = record
        .degraded
        .as_ref()
        .filter(|_| record.firewall.is_empty())
    {
        let message = format!("all pods are on the plain bridge: {reason}");
        found.push(match plan.bars_fast_path() {
            Some(_) => say(
                Severity::Note,
                message,
                "datapath.mode: \"bridge\" says so too",
            ),
            None => say(severity(mode), message, load),
        });
    }
    if let Some(unmet) = record.unmet() {
        found.push(say(Severity::Failure, unmet.to_owned(), load));
    }
    if !problems.is_empty() {
        let uplinks = problems.iter().any(|problem| problem.starts_with("uplink"));
        let keys = if uplinks {
            "datapath.uplinks"
        } else {
            commands.peers_key()
        };
        found.push(Finding::new(
            CHECK,
            Severity::Failure,
            names(problems),
            "these are not reached",
            format!("{keys}; then {load}"),
        ));
    }
    let ok = format!("is set up as configured, mode {}", name(mode));
    or_ok(found, Finding::ok(CHECK, object.clone(), ok))
}

const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "auto",
        Mode::Ebpf => "ebpf",
        Mode::Bridge => "bridge",
    }
}

/// Judges netfilter: firewalls that the fast path would pass by, and masquerading.
pub(super) fn judge_netfilter(
    record: &Record,
    facts: &Netfilter,
    commands: &Commands,
) -> Vec<Finding> {
    let mut found = masquerade(record, facts, commands);
    let Some(defeated) = &facts.defeated else {
        return found;
    };
    let load = &commands.load;
    let fast = record.is_fast();
    let knowingly = record.plan.datapath.mode == Mode::Ebpf;
    let say = |severity, message: &str, fix: &str| {
        Finding::new(FIREWALL, severity, names(defeated), message, fix)
    };
    let allow = format!("remove what it names, or datapath.mode: \"ebpf\"; then {load}");
    found.push(match (defeated.is_empty(), record.firewall.is_empty()) {
        (true, true) => Finding::ok(
            FIREWALL,
            "netfilter",
            "has nothing that the fast path would defeat",
        ),
        (true, false) if !fast => Finding::new(
            FIREWALL,
            Severity::Warning,
            names(&record.firewall),
            "kept the pods on the plain bridge, and is gone",
            &**load,
        ),
        (true, false) => Finding::ok(
            FIREWALL,
            "netfilter",
            "has nothing any more that the fast path defeats",
        ),
        (false, _) if knowingly && fast => say(
            Severity::Note,
            "is passed by, as datapath.mode \"ebpf\" says",
            "datapath.mode: \"auto\" honours it",
        ),
        (false, true) if fast => say(
            Severity::Warning,
            "came after the fast path, which passes it by until the next pod comes",
            &allow,
        ),
        (false, _) => say(
            Severity::Warning,
            "keeps all pods on the plain bridge",
            &allow,
        ),
    });
    found
}

fn masquerade(record: &Record, facts: &Netfilter, commands: &Commands) -> Vec<Finding> {
    let table = format!("nftables table inet beeline-{}", record.plan.network);
    let install = format!("install the package nftables, then {}", commands.load);
    let say = |severity, message: String, fix: &str| {
        Finding::new(MASQUERADE, severity, &*table, message, fix)
    };
    let mut found = Vec::new();
    if !facts.nft && (facts.masquerades.is_some() || facts.defeated.is_some()) {
        let severity = match facts.masquerades {
            Some(_) => Severity::Failure,
            None => Severity::Warning,
        };
        let message = "is not there: ipMasq and the look for firewalls need it";
        found.push(Finding::new(
            MASQUERADE, severity, "nft", message, &*install,
        ));
    }
    let bare_load = match record.plan.datapath.mode == Mode::Bridge || record.off {
        true => "add a pod: the next ADD writes it",
        false => &commands.load,
    };
    let load = commands.drifted(bare_load);
    match &facts.masquerades {
        Some(Ok(true)) if let Some(differs) = &facts.cluster => {
            found.push(unlike_cluster(&record.plan.network, differs, bare_load));
        }
        Some(Ok(true)) if found.is_empty() => {
            found.push(Finding::ok(MASQUERADE, table.clone(), "is as it should be"));
        }
        Some(Ok(false)) => found.push(say(
            Severity::Failure,
            "is missing, or of other networks: pods do not reach the outside".to_owned(),
            &load,
        )),
        Some(Err(error)) => found.push(say(Severity::Warning, error.clone(), &install)),
        Some(Ok(true)) | None => {}
    }
    found
}

/// Masquerading that treats other CIDRs as the cluster's than there are. Only what goes over the table tells.
fn unlike_cluster(network: &str, differs: &Difference, load: &str) -> Finding {
    let table = format!("nftables table inet beeline-{network}");
    let missing = &differs.missing;
    if missing.is_empty() {
        let message = "masquerades less than it should: some CIDRs in its sets cluster4 and cluster6 are no peers'";
        return Finding::new(MASQUERADE, Severity::Warning, table, message, load);
    }
    let cidrs: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let add = missing.iter().map(|cidr| {
        let set = nft::cluster_set(cidr.is_ipv4());
        format!("nft add element inet beeline-{network} {set} '{{ {cidr} }}'")
    });
    Finding::new(
        MASQUERADE,
        Severity::Failure,
        format!("peers {}", names(&cidrs)),
        format!("are not in the sets of {table}: these see pods of this node under its address"),
        match missing.len() {
            0..=10 => several(add),
            _ => load.to_owned(),
        },
    )
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
