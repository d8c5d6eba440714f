//! Where things are in this workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

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
