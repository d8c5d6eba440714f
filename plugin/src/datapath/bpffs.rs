//! The BPF file system that holds the pins.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

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

/// The file system that a directory is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Whether it is a bpffs, by its magic number.
    pub is_bpffs: bool,
    /// Whether nothing can be pinned there.
    pub read_only: bool,
    /// How many file systems are mounted at this place; only the last can be seen.
    pub layers: usize,
}

/// Finds the file system that a directory is on, or would be, in the calling process's mount namespace.
pub fn mounted(directory: &Path) -> Result<Mount> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(MOUNTS).with_context(|| format!("{MOUNTS}: read"))?;
    let existing = directory.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let (point, read_only, layers) = covering(&mounts, existing);
    Ok(Mount {
        is_bpffs: is_bpffs(existing)?,
        point,
        read_only,
        layers,
    })
}

/// The mount point nearest above a path, whether the last mount there is read-only, and how many there are.
fn covering(mounts: &str, path: &Path) -> (PathBuf, bool, usize) {
    let mut found = (PathBuf::from("/"), false, 0);
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        // Spaces are written as octal numbers; no bpffs is at such a place.
        let point = Path::new(point);
        if !path.starts_with(point) || !point.starts_with(&found.0) {
            continue;
        }
        let of_file_system = fields.last().unwrap_or_default();
        let read_only = [options, of_file_system]
            .iter()
            .any(|options| options.split(',').any(|option| option == "ro"));
        let layers = if point == found.0 { found.2 + 1 } else { 1 };
        found = (point.to_owned(), read_only, layers);
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
23 22 0:30 / /sys/fs/bpf rw,nosuid shared:8 - bpf bpf rw,mode=700
24 23 0:31 / /sys/fs/bpf ro,nosuid - bpf bpf rw
25 21 0:32 / /sys/fs/bp rw - bpf bpf rw
";

    #[test]
    fn the_last_of_the_file_systems_at_one_place_counts() {
        let bpf = PathBuf::from("/sys/fs/bpf");
        let found = |mounts: &str, path: &str| covering(mounts, Path::new(path));
        assert_eq!(found(MOUNTS, "/sys/fs/bpf/beeline"), (bpf.clone(), true, 2));
        let one: Vec<&str> = MOUNTS.lines().take(3).collect();
        assert_eq!(found(&one.join("\n"), "/sys/fs/bpf"), (bpf, false, 1));
        assert_eq!(found(MOUNTS, "/etc"), ("/".into(), false, 1));
    }

    #[test]
    fn the_file_system_that_a_directory_would_be_on_is_found() {
        let found = mounted(Path::new("/proc/no/such/directory")).unwrap();
        assert_eq!(found.point, Path::new("/proc"));
        assert!(!found.is_bpffs);
    }
}
