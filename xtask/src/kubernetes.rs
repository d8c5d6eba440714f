//! A real Kubernetes for the tests: where its programs are, how they come there, and taking clusters down.
//!
//! The scripts in `tests/kubernetes` build the programs and run the clusters.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::Uid;

use crate::packages;
use crate::process::{self, say};
use crate::workspace;

/// Names the directory of Kubernetes' programs, to xtask and to the tests.
pub(crate) const VARIABLE: &str = "BEELINE_KUBE_DIR";

/// What `setup.sh` makes last of each of its parts.
const STAMPS: [&str; 3] = ["bin/.endpointslice-v1", "pkg/.done", "img/.done"];

/// The only release of Debian that has the sources.
const RELEASE: &str = "bookworm";

/// Makes sure that Kubernetes' programs are there and can run here, building them if need be; returns their directory.
///
/// # Errors
///
/// They are not there and cannot be built here, or cannot run here; the error says what to do.
pub(crate) fn prepare(asked: Option<&Path>) -> Result<PathBuf> {
    let directory = match asked {
        Some(asked) => std::path::absolute(asked)?,
        None => default(|variable| env::var_os(variable))?,
    };
    ensure!(
        Uid::effective().is_root(),
        "nodes of Kubernetes need root; run `sudo -E cargo xtask test --kubernetes`"
    );
    ensure!(
        !is_overlay(&directory)?,
        "{} is on overlayfs, on which nodes cannot keep their containers' file systems; name a directory that is not by \
         --kube-dir or {VARIABLE}",
        directory.display()
    );
    if is_ready(&directory) {
        packages::require(&[packages::KUBERNETES])?;
    } else {
        set_up(&directory)?;
    }
    Ok(directory)
}

/// Takes down the clusters of tests that ended, out of reach of another Ctrl-C.
pub(crate) fn clean(directory: &Path) -> Result<()> {
    let clusters = fs::read_dir(directory.join("clusters"));
    let clusters = clusters.into_iter().flatten().flatten();
    let states = clusters
        .map(|cluster| cluster.path())
        .filter(|state| owner(state).is_some_and(|pid| !Path::new("/proc").join(pid).exists()));
    let mut failed = Vec::new();
    for state in states {
        let mut down = script("down.sh");
        down.arg("--purge").env("KUBE_STATE", &state);
        down.env("KUBE_DIR", directory).process_group(0);
        if let Err(error) = process::run_quietly(&mut down) {
            failed.push(format!("{}: {error:#}", state.display()));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// The process that a cluster of tests is of: they are named `test-<pid>-…`.
fn owner(state: &Path) -> Option<String> {
    let name = state.file_name()?.to_str()?.strip_prefix("test-")?;
    let (pid, _) = name.split_once('-')?;
    let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    // The lock beside it has the same name and an ending.
    (is_number && state.is_dir()).then(|| pid.to_owned())
}

/// Where the programs are by default, in the words of `lib.sh`.
fn default(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(directory) = set(VARIABLE) {
        return Ok(std::path::absolute(directory)?);
    }
    let cache = match set("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(set("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("beeline-kube"))
}

fn is_ready(directory: &Path) -> bool {
    STAMPS.iter().all(|stamp| directory.join(stamp).exists())
}

/// Whether a directory is, or would be, on overlayfs.
fn is_overlay(directory: &Path) -> Result<bool> {
    let existing = directory.ancestors().find(|ancestor| ancestor.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let found = statfs(existing).with_context(|| format!("{}: statfs", existing.display()))?;
    Ok(found.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

fn set_up(directory: &Path) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if let Some(by_hand) = by_hand(directory, &release) {
        bail!(by_hand);
    }
    let name = directory.display();
    say(&format!(
        "Kubernetes is not in {name}: building it from Debian's sources, once; 5 to 10 minutes on 2 cores, 2.8 GB"
    ));
    process::run(script("setup.sh").env("KUBE_DIR", directory)).with_context(|| {
        format!(
            "Kubernetes is not in {name}, and building it failed; \
             KUBE_DIR={name} tests/kubernetes/setup.sh goes on where it stopped"
        )
    })
}

/// How to get the programs where they cannot be built; none where they can.
fn by_hand(directory: &Path, os_release: &str) -> Option<String> {
    let codename = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.map(|name| name.trim_matches('"'));
    (codename != Some(RELEASE)).then(|| {
        format!(
            "Kubernetes is not in {0}, and can be built on Debian 12 ({RELEASE}) only, this is {1}: there, in a container \
             too, run KUBE_DIR={0} tests/kubernetes/setup.sh as root (5 to 10 minutes), and copy {0} here",
            directory.display(),
            codename.unwrap_or("something else")
        )
    })
}

/// A script that builds the programs, or runs a cluster.
pub(crate) fn script(name: &str) -> Command {
    Command::new(workspace::root().join("tests/kubernetes").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_that_of_the_scripts_unless_the_variable_names_another() {
        let of = |variables: &[(&str, &str)]| {
            let value = |name: &str| variables.iter().find(|(key, _)| *key == name);
            default(|name| value(name).map(|(_, value)| value.into())).ok()
        };
        let home = ("HOME", "/home/a");
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(of(&[home]), path("/home/a/.cache/beeline-kube"));
        assert_eq!(
            of(&[home, ("XDG_CACHE_HOME", "/c")]),
            path("/c/beeline-kube")
        );
        assert_eq!(of(&[home, (VARIABLE, "/k")]), path("/k"));
        assert_eq!(
            of(&[home, (VARIABLE, "")]),
            path("/home/a/.cache/beeline-kube")
        );
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn only_on_the_release_with_the_sources_is_nothing_to_be_done_by_hand() {
        let directory = Path::new("/k");
        assert_eq!(
            by_hand(directory, "NAME=Debian\nVERSION_CODENAME=bookworm\n"),
            None
        );
        for other in ["VERSION_CODENAME=trixie\n", ""] {
            let said = by_hand(directory, other).unwrap();
            assert!(
                said.contains("KUBE_DIR=/k tests/kubernetes/setup.sh"),
                "{said}"
            );
        }
    }

    #[test]
    fn clusters_of_tests_name_their_process() {
        let folder = tempfile::tempdir().unwrap();
        let named = |name: &str| {
            let state = folder.path().join(name);
            fs::create_dir(&state).unwrap();
            owner(&state)
        };
        assert_eq!(named("test-12-dual"), Some("12".to_owned()));
        assert_eq!(named("default"), None);
        assert_eq!(named("test-x-dual"), None);
        assert_eq!(owner(&folder.path().join("test-12-dual.lock")), None);
    }

    #[test]
    fn a_directory_is_ready_when_every_part_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        for stamp in STAMPS {
            assert!(!is_ready(folder.path()));
            let stamp = folder.path().join(stamp);
            fs::create_dir_all(stamp.parent().unwrap()).unwrap();
            fs::write(stamp, "").unwrap();
        }
        assert!(is_ready(folder.path()));
    }
}
