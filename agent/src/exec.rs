//! Running the node's programs from inside a container, whose image has none: `exec-in`.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};
use beeline::host::{self, Host, Root};
use nix::unistd::{chdir, chroot};

use crate::{install, options::Node};

/// Has this process run the plugin, and the node's programs where these are.
pub(crate) fn use_host(node: &Node) -> Result<()> {
    let root = match &node.host_root {
        Some(path) if !host::is_own_root(path)? => Some(Root {
            path: path.clone(),
            launcher: env::current_exe().context("own executable: find")?,
        }),
        _ => None,
    };
    host::use_host(Host {
        plugin: node.bin_dir.join(install::PLUGIN),
        root,
    })
}

/// Becomes a program that has `root` as its root directory; returns only if that fails.
pub(crate) fn exec_in(root: &Path, command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("exec-in: no program")?;
    chroot(root).with_context(|| format!("{}: change the root directory to it", root.display()))?;
    // The working directory is outside still.
    chdir("/").with_context(|| format!("{}: change to it", root.display()))?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("{program:?} in {}: run", root.display()))
}
