//! How a process that is not the plugin runs the plugin and the node's own programs.
//!
//! The plugin runs where these are, and is itself what it starts. The agent is neither: it may live in a container,
//! whose root directory has no `nft`, and below whose root the node's is mounted. Programs are then looked for below the
//! node's root, and started by a launcher that changes to it first.
//!
//! ```text
//! the plugin     nft -j -f -
//! the agent      /beeline-agent exec-in /host -- /usr/sbin/nft -j -f -
//! ```

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, SFlag, fstat},
};

static HOST: OnceLock<Host> = OnceLock::new();

/// Where the plugin and the node's programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The plugin's executable, by its path on the node.
    pub plugin: PathBuf,
    /// The node's root directory, if this process has another one.
    pub root: Option<Root>,
}

/// A root directory that is not this process's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Where it is.
    pub path: PathBuf,
    /// What starts programs in it: `<launcher> exec-in <root> -- <program> <arguments>`.
    pub launcher: PathBuf,
}

/// Has this process start the plugin and the node's programs from here on as `host` says. The plugin itself never calls
/// this.
///
/// # Errors
///
/// It was called before.
pub fn use_host(host: Host) -> Result<()> {
    HOST.set(host)
        .map_err(|host| anyhow!("host {host:?}: another one is in use already"))
}

/// Returns a command that starts the plugin.
pub(crate) fn plugin() -> Result<Command> {
    match HOST.get() {
        Some(host) => Ok(host.command(&host.plugin)),
        None => {
            let own = env::current_exe().context("own executable: find")?;
            Ok(Command::new(own))
        }
    }
}

/// Returns a command that starts one of the node's programs.
pub(crate) fn command(program: &Path) -> Command {
    match HOST.get() {
        Some(host) => host.command(program),
        None => Command::new(program),
    }
}

/// Finds a program of the node's in the first of these lists of folders that has it.
pub(crate) fn find<'a>(
    program: &str,
    paths: impl IntoIterator<Item = &'a OsStr>,
) -> Option<PathBuf> {
    let root = HOST.get().and_then(|host| host.root.as_ref());
    find_in(root, program, paths)
}

impl Host {
    fn command(&self, program: &Path) -> Command {
        let Some(root) = &self.root else {
            return Command::new(program);
        };
        let mut command = Command::new(&root.launcher);
        command.arg("exec-in").arg(&root.path).arg("--");
        command.arg(program);
        command
    }
}

fn find_in<'a>(
    root: Option<&Root>,
    program: &str,
    paths: impl IntoIterator<Item = &'a OsStr>,
) -> Option<PathBuf> {
    let executable = |path: &Path| match root {
        None => path
            .metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0),
        Some(root) => is_executable_in(&root.path, path),
    };
    let folders = paths.into_iter().flat_map(env::split_paths);
    // An empty entry means the working directory, where nothing should be run from.
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|path| executable(path))
}

/// Whether there is a program at `path` below `root`. Symbolic links lead to where they lead in there: alternatives and
/// merged folders are such links.
fn is_executable_in(root: &Path, path: &Path) -> bool {
    let look = || -> nix::Result<bool> {
        let root = File::open(root).map_err(|error| {
            let code = error.raw_os_error();
            code.map_or(Errno::EIO, Errno::from_raw)
        })?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .mode(Mode::empty())
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let found = fstat(openat2(&root, path, how)?)?;
        let kind = found.st_mode & SFlag::S_IFMT.bits();
        Ok(kind == SFlag::S_IFREG.bits() && found.st_mode & 0o111 != 0)
    };
    look().unwrap_or(false)
}

/// Whether a directory is this process's root.
pub fn is_own_root(root: &Path) -> Result<bool> {
    let at = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let root = at(root).with_context(|| format!("{}: look at", root.display()))?;
    Ok(root == at(Path::new("/")).context("/: look at")?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_program_is_found_in_absolute_folders_only() {
        let find = |program, path| find_in(None, program, [OsStr::new(path)]);
        assert_eq!(
            find("sh", "/nonexistent:/bin"),
            Some(PathBuf::from("/bin/sh"))
        );
        assert_eq!(find("passwd", "/etc"), None, "not executable");
        assert_eq!(find("Cargo.toml", ":."), None);
    }

    #[test]
    fn a_program_below_another_root_is_found_by_the_links_of_that_root() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["usr/sbin", "etc/alternatives"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("usr/sbin/beeline-tables"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(
            at("usr/sbin/beeline-tables"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        fs::write(at("usr/sbin/plain"), "").unwrap();
        // As distributions have it: neither leads anywhere from outside.
        symlink(
            "/usr/sbin/beeline-tables",
            at("etc/alternatives/beeline-link"),
        )
        .unwrap();
        symlink(
            "/etc/alternatives/beeline-link",
            at("usr/sbin/beeline-link"),
        )
        .unwrap();
        symlink("usr/sbin", at("sbin")).unwrap();
        let root = Root {
            path: folder.path().to_owned(),
            launcher: "/launcher".into(),
        };
        let find = |program| find_in(Some(&root), program, [OsStr::new("/nonexistent:/sbin")]);
        assert_eq!(find("beeline-link"), Some("/sbin/beeline-link".into()));
        assert_eq!(find("plain"), None, "not executable");
        assert_eq!(find("sh"), None, "only outside");
    }

    #[test]
    fn programs_below_another_root_are_started_by_the_launcher() {
        let mut host = Host {
            plugin: "/opt/cni/bin/beeline".into(),
            root: None,
        };
        let words = |host: &Host| {
            let command = host.command(Path::new("/sbin/nft"));
            let program = command.get_program().to_owned();
            std::iter::once(program)
                .chain(command.get_args().map(OsStr::to_owned))
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&host), ["/sbin/nft"]);
        host.root = Some(Root {
            path: "/host".into(),
            launcher: "/beeline-agent".into(),
        });
        assert_eq!(
            words(&host),
            ["/beeline-agent", "exec-in", "/host", "--", "/sbin/nft"]
        );
    }

    #[test]
    fn only_the_root_directory_is_the_own_root() {
        assert!(is_own_root(Path::new("/")).unwrap());
        assert!(!is_own_root(Path::new("/proc")).unwrap());
        assert!(is_own_root(Path::new("/no-such-root")).is_err());
    }
}
