//! Programs that cargo installs for our own use, in target/tools.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::packages;
use crate::process::{self, say};
use crate::workspace;

/// Where our own program of that name is, or would be.
pub(crate) fn own(name: &str) -> PathBuf {
    root().join("bin").join(name)
}

/// Finds a program on PATH, or else our own, which is installed if need be.
pub(crate) fn get(name: &str, release: &str, options: &[&str]) -> Result<PathBuf> {
    if let Some(found) = packages::find(name, &[]) {
        return Ok(found);
    }
    let own = own(name);
    if !own.is_file() {
        say(&format!("installing {name} {release} into target/tools"));
        process::run(install(name, release).args(options))?;
    }
    Ok(own)
}

/// The command that installs our own.
pub(crate) fn install(name: &str, release: &str) -> Command {
    let mut cargo = workspace::cargo();
    // In the workspace's target folder the intermediate files would stay; a temporary one is removed.
    cargo.env_remove("CARGO_TARGET_DIR");
    cargo.args(["install", name, "--locked", "--version", release, "--root"]);
    cargo.arg(root());
    cargo
}

fn root() -> PathBuf {
    workspace::target().join("tools")
}
