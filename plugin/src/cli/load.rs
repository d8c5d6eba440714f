//! `beeline load` and `beeline unload`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use super::{adopt, networks};
use crate::{
    cni,
    net::with_netlink,
    node::{self, Attachment, Plan, Record, Store},
};

/// Options of `beeline load`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    networks: networks::Options,
    /// Also take in pods that another plugin attached to the same bridge, as the runtime's cache tells
    #[arg(long)]
    adopt: bool,
    /// Where the runtime's network configurations are
    #[arg(long, default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Where the runtime keeps the results of ADD
    #[arg(long, default_value = "/var/lib/cni/results")]
    cache_dir: PathBuf,
}

/// Loads the programs of every network that is configured or was set up.
pub(super) fn load(options: &Options, out: &mut impl Write) -> Result<()> {
    let plans = plans(options)?;
    ensure!(
        !plans.is_empty(),
        "no network of beeline's was set up on this node since it booted, and none is configured in {}",
        options.conf_dir.display()
    );
    for plan in plans {
        let foreign = if options.adopt {
            adopt::attachments(&options.cache_dir, &plan.network)?
        } else {
            Vec::new()
        };
        let store = Store::new(&plan);
        let record =
            with_netlink(async |netlink| node::load(netlink, &plan, &store, foreign).await)?;
        report(&store, &record, out)?;
    }
    Ok(())
}

/// Takes the fast path off every network that was set up.
pub(super) fn unload(options: &networks::Options, out: &mut impl Write) -> Result<()> {
    let networks = options.networks()?;
    if networks.is_empty() {
        writeln!(out, "no network was set up on this node since it booted")?;
    }
    for (store, _) in networks {
        let record = node::unload(&store)?;
        writeln!(
            out,
            "network {}  datapath bridge  pods {}",
            record.plan.network,
            store.attachments()?.len()
        )?;
        if let Some(unmet) = record.unmet() {
            writeln!(out, "  problem: {unmet}")?;
        }
    }
    Ok(())
}

fn report(store: &Store, record: &Record, out: &mut impl Write) -> Result<()> {
    let attachments = store.attachments()?;
    let fast = |attachment: &&Attachment| attachment.fast_path && attachment.slow.is_none();
    writeln!(
        out,
        "network {}  datapath ebpf  pods {}, {} on the fast path",
        record.plan.network,
        attachments.len(),
        attachments.iter().filter(fast).count()
    )?;
    for problem in &record.problems {
        writeln!(out, "  problem: {problem}")?;
    }
    Ok(())
}

/// What the node shall look like: as its configuration says now, else as it was set up.
fn plans(options: &Options) -> Result<Vec<Plan>> {
    let mut plans = configured(&options.conf_dir)?;
    for (_, record) in (networks::Options {
        network: None,
        ..options.networks.clone()
    })
    .networks()?
    {
        if !plans.iter().any(|plan| plan.network == record.plan.network) {
            plans.push(record.plan);
        }
    }
    if let Some(name) = &options.networks.network {
        plans.retain(|plan| plan.network == *name);
    }
    Ok(plans)
}

/// The networks of the runtime's configuration that this plugin serves.
fn configured(directory: &Path) -> Result<Vec<Plan>> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(Vec::new());
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "conflist"));
    paths.sort();
    let mut plans = Vec::new();
    for path in paths {
        let context = || format!("{}: read", path.display());
        let text = fs::read(&path).with_context(context)?;
        let list: Value = serde_json::from_slice(&text).with_context(context)?;
        if let Some(single) = ours(&list) {
            plans.push(cni::plan_of(&single).with_context(context)?);
        }
    }
    Ok(plans)
}

/// Our part of a list of plugins, as the runtime hands it to us.
pub(super) fn ours(list: &Value) -> Option<Value> {
    cni::part_of(list, &own_type()?)
}

/// The type by which configurations name this plugin: its file's name.
pub(super) fn own_type() -> Option<String> {
    let own = std::env::current_exe().ok()?;
    Some(own.file_name()?.to_str()?.to_owned())
}
