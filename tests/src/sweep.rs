//! Removing what is left of owners that died, and looking for anything left at all.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::node::{BPFFS, STATE};
use crate::topology::{BENCH_PREFIX, DEMO_PREFIX};
use crate::{cgroup, netns};

/// Where tests keep data that a program would else wait for a disk for.
pub const MEMORY: &str = "/dev/shm";

/// Something of ours that exists, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {
    /// A network namespace, by name.
    Namespace(String),
    /// A directory with state or pins.
    Directory(PathBuf),
    /// A control group of a container runtime's.
    ControlGroup(PathBuf),
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Directory(path) => write!(f, "directory {}", path.display()),
            Self::ControlGroup(path) => write!(f, "control group {}", path.display()),
        }
    }
}

impl Leftover {
    fn name(&self) -> String {
        match self {
            Self::Namespace(name) => name.clone(),
            Self::Directory(path) | Self::ControlGroup(path) => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        }
    }

    fn remove(&self) {
        match self {
            Self::Namespace(name) => drop(netns::remove(name)),
            Self::Directory(path) => remove_tree(path),
            Self::ControlGroup(path) => drop(cgroup::remove_tree(path)),
        }
    }
}

/// Removes what test processes left that are no more; returns what it was.
pub fn dead_owners() -> Vec<Leftover> {
    remove_all(find(|name| {
        owner(name).is_some_and(|pid| kill(pid, None).is_err())
    }))
}

/// Removes what a demo left, kept or crashed; returns what it was.
pub fn demo() -> Vec<Leftover> {
    remove_all(demo_leftovers())
}

/// What there is of a demo.
pub fn demo_leftovers() -> Vec<Leftover> {
    find(is_of_demo)
}

/// What there is of a bench, crashed or not; [`bench`] removes it.
pub fn bench_leftovers() -> Vec<Leftover> {
    find(|name| name.starts_with(BENCH_PREFIX))
}

/// Removes what a bench left; returns what it was.
pub fn bench() -> Vec<Leftover> {
    remove_all(bench_leftovers())
}

/// All files below a directory, sorted; none if it does not exist.
pub fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(walk(&entry.path())),
            _ => files.push(entry.path()),
        }
    }
    files.sort();
    files
}

/// Removes a directory and all below, as far as that is possible.
pub fn remove_tree(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(directory)) {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(directory);
}

/// The process in a name such as `bl-1234-0-node1`.
fn owner(name: &str) -> Option<Pid> {
    let (pid, _) = name.strip_prefix("bl-")?.split_once('-')?;
    pid.parse().ok().map(Pid::from_raw)
}

/// Whether a name is one of the demo's, and not, say, a real `/sys/fs/bpf/beeline`.
fn is_of_demo(name: &str) -> bool {
    let Some(rest) = name
        .strip_prefix(DEMO_PREFIX)
        .and_then(|rest| rest.strip_prefix('-'))
    else {
        return false;
    };
    let rest = rest.strip_prefix("base-").unwrap_or(rest);
    let node = rest
        .strip_prefix("node")
        .is_some_and(|index| index.starts_with(|c: char| c.is_ascii_digit()));
    node || rest == "switch" || rest == "outside"
}

fn find(is_ours: impl Fn(&str) -> bool) -> Vec<Leftover> {
    let namespaces = netns::list().into_iter().map(Leftover::Namespace);
    let directories = [BPFFS, STATE, MEMORY]
        .into_iter()
        .flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
    let directories = directories.map(|entry| Leftover::Directory(entry.path()));
    let groups = cgroup::list().into_iter().map(Leftover::ControlGroup);
    let all = namespaces.chain(directories).chain(groups);
    let mut found: Vec<_> = all.filter(|leftover| is_ours(&leftover.name())).collect();
    if is_ours(&format!("{DEMO_PREFIX}-node1")) {
        // The demo's state lies under its bare prefixes, which as names elsewhere would not be the demo's.
        let states = [DEMO_PREFIX.to_owned(), format!("{DEMO_PREFIX}-base")]
            .map(|prefix| Path::new(STATE).join(prefix));
        found.extend(
            states
                .into_iter()
                .filter(|path| path.exists())
                .map(Leftover::Directory),
        );
    }
    found.sort();
    found
}

fn remove_all(found: Vec<Leftover>) -> Vec<Leftover> {
    found.iter().for_each(Leftover::remove);
    let _ = fs::remove_dir(STATE);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_demo_are_taken_for_the_demos() {
        for name in [
            "beeline-node1",
            "beeline-node12-pod2",
            "beeline-switch",
            "beeline-base-node1-pod1",
        ] {
            assert!(is_of_demo(name), "{name}");
        }
        for name in [
            "beeline",
            "beeline-prod",
            "beeline-nodes",
            "bl-1-0-node1",
            "cni-1",
        ] {
            assert!(!is_of_demo(name), "{name}");
        }
    }

    #[test]
    fn the_owner_is_read_from_a_name() {
        assert_eq!(owner("bl-1234-0-node1"), Some(Pid::from_raw(1234)));
        assert_eq!(owner("beeline-node1"), None);
        assert_eq!(owner("bl-x-0"), None);
    }
}
