//! `install`: puts the plugin and its network configuration where the container runtime looks for them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::conflist::Network;
use crate::files::replace;
use crate::process::say;
use crate::{build, build_ebpf, workspace};

/// First by name in a folder of which runtimes take the first.
const CONFLIST: &str = "10-beeline.conflist";

/// Where to install what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the CNI plugins
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Folder of the network configurations
    #[arg(long, value_name = "FOLDER", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    #[command(flatten)]
    network: Network,
    /// Replace a configuration that differs
    #[arg(long)]
    force: bool,
}

/// Builds, then installs.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut network = args.network.clone();
    if network.uplinks.is_empty() {
        network.uplinks.extend(default_uplink());
    }
    network.check()?;
    let conflist = network.conflist()?;

    build_ebpf::run()?;
    build::host(true)?;
    let plugin = workspace::release_bin("beeline");
    let mut built = File::open(&plugin).with_context(|| format!("{}: open", plugin.display()))?;
    let installed = args.bin_dir.join("beeline");
    replace(&installed, &mut built, 0o755)?;
    say(&format!("installed {}", installed.display()));
    configure(&args.conf_dir.join(CONFLIST), &conflist, args.force)
}

/// Writes the configuration unless a different one is there, which someone may have edited.
fn configure(path: &Path, conflist: &str, force: bool) -> Result<()> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(old) if same(&old, conflist) => {
            say(&format!("{shown} is as it should be"));
            return Ok(());
        }
        Ok(_) if !force => {
            say(&format!("kept {shown}, which differs; --force replaces it"));
            return Ok(());
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound && !force => {
            return Err(error).with_context(|| format!("{shown}: read"));
        }
        Ok(_) | Err(_) => {}
    }
    replace(path, &mut conflist.as_bytes(), 0o644)?;
    say(&format!("installed {shown}"));
    Ok(())
}

/// Tells whether two configurations mean the same, however they are laid out.
fn same(old: &str, new: &str) -> bool {
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    parse(old).is_some_and(|old| Some(old) == parse(new))
}

/// Returns the interface of the default route with the lowest metric, if there is one.
fn default_uplink() -> Option<String> {
    default_interface(&fs::read_to_string("/proc/net/route").ok()?)
}

fn default_interface(routes: &str) -> Option<String> {
    let defaults = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [interface, "00000000", _, _, _, _, metric, "00000000", ..] = fields[..] else {
            return None;
        };
        Some((metric.parse::<u32>().ok()?, interface))
    });
    defaults
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, interface)| interface.to_owned())
}

#[cfg(test)]
mod tests;
