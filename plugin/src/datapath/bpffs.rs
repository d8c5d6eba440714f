//! The BPF file system that holds the pins.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where the kernel makes a directory for it.
pub const STANDARD: &str = "/sys/fs/bpf";

/// Makes sure that `directory` is on a bpffs: mounts one at the standard place if there is none, and makes missing
/// directories, but only inside a bpffs.
///
/// # Errors
///
/// Another file system is there, or the mount is not permitted.
pub fn ensure(directory: &Path) -> Result<()> {
    let standard = Path::new(STANDARD);
    if directory.starts_with(standard) && standard.is_dir() && !is_bpffs(standard)? {
        mount(
            Some("bpf"),
            standard,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=0700"),
        )
        .with_context(|| format!("{STANDARD}: mount bpffs"))?;
    }
    require(directory)?;
    make_directory(directory)
}

/// Makes a directory and those above it that are missing, for nobody else to look into.
pub(super) fn make_directory(directory: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("{}: create", directory.display()))
}

/// Whether [`ensure`] can succeed, as far as can be told without changing anything.
pub fn check(directory: &Path) -> Result<()> {
    let standard = Path::new(STANDARD);
    let can_be_mounted = directory.starts_with(standard) && standard.is_dir();
    if can_be_mounted {
        Ok(())
    } else {
        require(directory)
    }
}

fn require(directory: &Path) -> Result<()> {
    match directory.ancestors().find(|path| path.exists()) {
        Some(ancestor) if is_bpffs(ancestor)? => Ok(()),
        _ => bail!(
            "{dir}: not on a bpffs; run: mount -t bpf bpf {dir}",
            dir = directory.display()
        ),
    }
}

fn is_bpffs(path: &Path) -> Result<bool> {
    let found = statfs(path).with_context(|| format!("{}: statfs", path.display()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}
