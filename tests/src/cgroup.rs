//! Control groups of nodes: named after their node, and removed with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::wait;
use anyhow::{Context, Result};

/// A control group stays busy for a moment after its last process.
const PATIENCE: Duration = Duration::from_secs(5);

/// The control groups right below the roots of all hierarchies: one hierarchy of version 2, several of version 1.
pub fn list() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let entries = hierarchies(&mounts).flat_map(|root| fs::read_dir(root).into_iter().flatten());
    let directories = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

/// Removes the control groups of a name in all hierarchies, with those below them; none may hold a process.
pub fn remove(name: &str) -> Result<()> {
    let named = |group: &PathBuf| group.file_name().is_some_and(|last| last == name);
    list().into_iter().filter(named).try_for_each(|group| {
        remove_tree(&group).with_context(|| format!("{}: remove", group.display()))
    })
}

/// Removes a control group and those below it, as soon as they are not busy any more.
pub(crate) fn remove_tree(group: &Path) -> io::Result<()> {
    let deadline = wait::deadline(PATIENCE);
    loop {
        match remove_once(group) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

/// The files of a control group go with its directory.
fn remove_once(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Where hierarchies are mounted, of lines as in `/proc/mounts`.
fn hierarchies(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        matches!(kind, "cgroup" | "cgroup2").then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
";
        let found: Vec<_> = hierarchies(mounts).collect();
        assert_eq!(found, ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"]);
    }
}
