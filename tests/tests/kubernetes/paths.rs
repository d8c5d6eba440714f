//! Where what is tested, and what tests it, is.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    // Set by cargo, and by xtask, when the tests run: the folder may have moved since they were built.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_owned)
}

/// A script of `tests/kubernetes`.
pub(crate) fn script(name: &str) -> PathBuf {
    root().join("tests/kubernetes").join(name)
}

/// Where Kubernetes' programs are.
pub(crate) fn programs() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let directory = match (set("BEELINE_KUBE_DIR"), set("XDG_CACHE_HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(cache)) => Path::new(&cache).join("beeline-kube"),
        (None, None) => {
            Path::new(&set("HOME").context("HOME is not set")?).join(".cache/beeline-kube")
        }
    };
    ensure!(
        directory.join("img/.done").exists(),
        "Kubernetes is not in {}; `cargo xtask test --kubernetes` builds it",
        directory.display()
    );
    Ok(directory)
}

/// The plugin.
pub(crate) fn plugin() -> Result<PathBuf> {
    of("BEELINE_BIN", "target/release/beeline", "build")
}

/// The archive of the agent's image.
pub(crate) fn image() -> Result<PathBuf> {
    of("BEELINE_IMAGE", "target/beeline-image.tar", "image")
}

/// What installs the agent in a cluster.
pub(crate) fn manifest() -> PathBuf {
    root().join("deploy/beeline.yaml")
}

fn of(variable: &str, default: &str, verb: &str) -> Result<PathBuf> {
    let file = env::var_os(variable).map_or_else(|| root().join(default), PathBuf::from);
    let there = file.exists();
    ensure!(
        there,
        "{}: not there; `cargo xtask {verb}` makes it",
        file.display()
    );
    Ok(file)
}
