//! `beeline doctor`: looks at a node, and says of each check what it found and what puts it right. Changes nothing.
//!
//! One module a group of checks. Each has a function that judges plain facts; what reads them is `net`, `datapath`,
//! `ipam` and [`node::survey`](crate::node::survey).

mod addresses;
mod binaries;
mod cluster;
mod cluster_problems;
mod conflists;
mod finding;
mod kernel;
mod known;
mod mtu;
mod network;
mod overlay;
mod peers;
mod pods;
mod programs;
mod rp_filter;
mod state;
mod sysctls;
mod text;

use std::{collections::BTreeSet, io::Write, path::PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use nix::sys::utsname::uname;
use serde::Serialize;

use self::{
    finding::{Commands, Finding, Severity},
    known::Networks,
};
use super::{networks, output::Output};
use crate::{
    datapath::{
        Pins,
        config::{DEFAULT_BPFFS, DEFAULT_STATE_DIR},
    },
    net::with_netlink,
    node::survey::Kernel,
};

const DEFAULT_CONF_DIR: &str = "/etc/cni/net.d";

/// Options of `beeline doctor`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    networks: networks::Options,
    /// Where the runtime's network configurations are
    #[arg(long, default_value = DEFAULT_CONF_DIR)]
    conf_dir: PathBuf,
    /// Where the runtime looks for plugins
    #[arg(long, default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Where an agent has its template, which is looked at if it is there
    #[arg(long, default_value = "/etc/beeline/beeline.conflist")]
    template: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What all checks found on a node.
#[derive(Debug, Serialize)]
struct Report {
    node: String,
    kernel: String,
    version: &'static str,
    /// The worst of all findings.
    severity: Severity,
    findings: Vec<Finding>,
}

/// Prints what is found; says whether there is no failure.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    let report = examine(options)?;
    options.output.print(&report, out, text::print)?;
    Ok(report.severity < Severity::Failure)
}

fn examine(options: &Options) -> Result<Report> {
    let system = uname()?;
    let release = system.release().to_string_lossy().into_owned();
    let networks = Networks::read(options)?;
    let wanted = options.networks.network.as_deref();
    if let Some(name) = wanted
        && !networks.plans().iter().any(|plan| plan.network == name)
    {
        bail!(
            "network {name}: is neither set up on this node nor configured in {}",
            options.conf_dir.display()
        );
    }
    let commands = commands(options);
    let (mut of_networks, mut jitted) = (Vec::new(), None);
    for plan in networks.plans() {
        if wanted.is_some_and(|name| name != plan.network) {
            continue;
        }
        let of_network = network::examine(plan, &networks, &commands)?;
        jitted = jitted.or(of_network.jitted);
        of_networks.extend(of_network.findings);
    }
    let mut findings = of_node(options, &networks, &release, jitted, &commands)?;
    findings.extend(of_networks);
    let worst = findings.iter().map(|finding| finding.severity).max();
    Ok(Report {
        node: system.nodename().to_string_lossy().into_owned(),
        kernel: release,
        version: env!("CARGO_PKG_VERSION"),
        severity: worst.unwrap_or(Severity::Ok),
        findings,
    })
}

/// The checks that are of the node, not of a network.
fn of_node(
    options: &Options,
    networks: &Networks,
    release: &str,
    jitted: Option<bool>,
    commands: &Commands,
) -> Result<Vec<Finding>> {
    let plans = networks.plans();
    let modes = plans.iter().map(|plan| state::severity(plan.datapath.mode));
    let severity = modes.max().unwrap_or(Severity::Warning);
    let mut findings = kernel::judge(&kernel::read(release, jitted), severity);
    let mut bpffs: BTreeSet<PathBuf> = plans
        .iter()
        .map(|plan| plan.datapath.bpffs.clone())
        .collect();
    if bpffs.is_empty() {
        bpffs.insert(DEFAULT_BPFFS.into());
    }
    for directory in &bpffs {
        let in_use = networks
            .set_up
            .iter()
            .any(|(_, record)| record.is_fast() && record.plan.datapath.bpffs == *directory);
        let facts = kernel::Bpffs::read(directory, in_use);
        findings.extend(kernel::judge_bpffs(&facts, severity, commands));
        findings.extend(orphans(directory, networks)?);
    }
    findings.extend(sysctls::judge(&sysctls::read()));
    let (files, own) = (&networks.files, &networks.own);
    findings.extend(conflists::judge(&options.conf_dir, files, own));
    findings.extend(binaries::judge(&networks.programs, files, own));
    let kernel = with_netlink(async |netlink| Kernel::read(netlink).await)?;
    let bridges: Vec<&str> = plans.iter().map(|plan| &*plan.bridge.name).collect();
    findings.extend(conflists::judge_leftovers(&kernel.links, &bridges));
    let commands = Commands {
        agent: networks.has_agent()?,
        ..commands.clone()
    };
    let strays = peers::judge_strays(&kernel, &networks.peers(), &commands);
    findings.extend(strays);
    Ok(findings)
}

/// Pins of networks that this node was not set up for.
fn orphans(bpffs: &std::path::Path, networks: &Networks) -> Result<Vec<Finding>> {
    let known: Vec<PathBuf> = networks
        .set_up
        .iter()
        .map(|(_, record)| Pins::new(bpffs, &record.plan.network).root().to_owned())
        .collect();
    let pins = Pins::all(bpffs)?.into_iter();
    let orphans = pins.filter(|pins| !known.iter().any(|root| root == pins.root()));
    let finding = |pins: Pins| {
        let root = pins.root().display().to_string();
        Finding::new(
            "bpffs",
            Severity::Warning,
            &*root,
            "is pinned, but no network with this name was set up since boot",
            format!("rm -r {root}"),
        )
    };
    Ok(orphans.map(finding).collect())
}

/// The commands of beeline's own, with the options that differ from the default here.
fn commands(options: &Options) -> Commands {
    let option = |name: &str, path: &PathBuf, default: &str| {
        let given = path.as_os_str() != default;
        let option = given.then(|| format!(" --{name} {}", path.display()));
        option.unwrap_or_default()
    };
    let state = option("state-dir", &options.networks.state_dir, DEFAULT_STATE_DIR);
    let conf = option("conf-dir", &options.conf_dir, DEFAULT_CONF_DIR);
    let load = format!("beeline load{state}{conf}");
    let unload = format!("beeline unload{state}");
    Commands {
        reload: format!("{unload} && {load}"),
        load,
        unload,
        backend: None,
        agent: false,
    }
}
