//! Where things are in this workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Returns the workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Returns the target folder: always the workspace's own, as the plugin's build script looks for the object there.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Returns the path of a program of the release build.
pub(crate) fn release_bin(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Returns what rustc calls this machine, such as `x86_64-unknown-linux-gnu`.
pub(crate) fn host_triple() -> Result<String> {
    let said = cargo().arg("-vV").output().context("cargo -vV: run")?;
    let said = String::from_utf8_lossy(&said.stdout);
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("cargo -vV: does not say the host")
}

/// Starts a command of the cargo that runs xtask.
pub(crate) fn cargo() -> Command {
    cargo_at(&std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from))
}

/// Starts a command of the cargo at `path`.
pub(crate) fn cargo_at(path: &Path) -> Command {
    let mut cargo = Command::new(path);
    cargo.current_dir(root()).env("CARGO_TARGET_DIR", target());
    cargo
}
