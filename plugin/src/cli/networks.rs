//! Which networks a command is about.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    datapath::config::DEFAULT_STATE_DIR,
    node::{Record, Store},
};

/// Options that all commands about networks share.
#[derive(Clone, Debug, Args)]
// The commands that it is a part of have an `Options` of their own.
#[group(skip)]
pub(super) struct Options {
    /// Where the node's state is
    #[arg(long, default_value = DEFAULT_STATE_DIR)]
    pub(super) state_dir: PathBuf,
    /// Only this network; all by default
    #[arg(long)]
    pub(super) network: Option<String>,
}

impl Options {
    /// The networks that were set up on this node since it booted, by name.
    pub(super) fn networks(&self) -> Result<Vec<(Store, Record)>> {
        let mut networks = set_up(&self.state_dir)?;
        if let Some(name) = &self.network {
            networks.retain(|(_, record)| record.plan.network == *name);
            if networks.is_empty() {
                bail!("network {name}: was not set up on this node since it booted");
            }
        }
        Ok(networks)
    }
}

fn set_up(state_dir: &Path) -> Result<Vec<(Store, Record)>> {
    let entries = match fs::read_dir(state_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("{}: read", state_dir.display()))?,
    };
    let mut networks = Vec::new();
    for entry in entries {
        let store = Store::at(entry?.path());
        if let Some(record) = store.record() {
            networks.push((store, record));
        }
    }
    networks.sort_by(|(_, a), (_, b)| a.plan.network.cmp(&b.plan.network));
    Ok(networks)
}
