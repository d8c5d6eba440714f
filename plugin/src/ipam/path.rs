//! Opens what a configuration names by path: under multus a tenant may have written that.
//!
//! A path goes through a symbolic link only where nobody but root can have put it: as long as every directory so far
//! belongs to root, or to whom the plugin runs as, and none else may write to it. `/var/run` and `/etc/resolv.conf` are
//! such links on many distributions. Below the first other directory, a `/tmp` or a pod's volume, no link is followed.
//! openat2(2) has only all of that or nothing of it (`RESOLVE_NO_SYMLINKS`), hence the walk by components.
//!
//! No directory is forbidden, for the reference plugin knows no such list: in whichever it is told, the allocator makes
//! one directory with the name of the network, and in that one touches only what is named as its own files are.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::geteuid;

/// As many as the kernel follows, see path_resolution(7).
const MAX_LINKS: usize = 40;

/// Opens a directory, to reach what is in it.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd> {
    directory(resolve(path, Missing::IsAnError)?)
}

/// Opens a directory, making it and those above it if need be.
pub(super) fn create_dir(path: &Path) -> Result<OwnedFd> {
    directory(resolve(path, Missing::IsMade)?)
}

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    // Nothing is opened for reading before it is known to be a file: a FIFO would wait, a device might act.
    let found = resolve(path, Missing::IsAnError)?;
    if kind(&fstat(&found)?) != SFlag::S_IFREG {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?
        .take(limit + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let error = format!("more than {limit} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, error));
    }
    Ok(content)
}

/// What becomes of a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsAnError,
    IsMade,
}

/// Follows a path to its end, which is opened neither for reading nor for writing.
fn resolve(path: &Path, missing: Missing) -> Result<OwnedFd> {
    let mut rest = names(path);
    let mut at = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut trusted = is_trusted(&fstat(&at)?);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let next = match look_up(&at, &name) {
            Err(Errno::ENOENT) if missing == Missing::IsMade => {
                make(&at, &name)?;
                look_up(&at, &name)?
            }
            found => found?,
        };
        let stat = fstat(&next)?;
        if kind(&stat) != SFlag::S_IFLNK {
            trusted &= is_trusted(&stat);
            at = next;
            continue;
        }
        if !trusted {
            let name = Path::new(&name).display();
            let error = format!("{name} is a symbolic link that others than root can place");
            return Err(Error::new(ErrorKind::PermissionDenied, error));
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let target = readlinkat(&next, "")?;
        let target = Path::new(&target);
        if target.is_absolute() {
            at = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        }
        let mut names = names(target);
        names.append(&mut rest);
        rest = names;
    }
    Ok(at)
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| !matches!(component, Component::RootDir | Component::CurDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

fn look_up(at: &OwnedFd, name: &OsString) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name.as_os_str(), flags, Mode::empty())
}

fn make(at: &OwnedFd, name: &OsString) -> nix::Result<()> {
    match mkdirat(at, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
        // Another plugin was first.
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

/// Whether only root, or whom the plugin runs as, decides what is in a directory.
fn is_trusted(directory: &FileStat) -> bool {
    let ours = [0, geteuid().as_raw()].contains(&directory.st_uid);
    let others = (Mode::S_IWGRP | Mode::S_IWOTH).bits();
    ours && directory.st_mode & others == 0
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn directory(found: OwnedFd) -> Result<OwnedFd> {
    match kind(&fstat(&found)?) {
        SFlag::S_IFDIR => Ok(found),
        _ => Err(Errno::ENOTDIR.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;
    use tempfile::TempDir;

    use super::*;

    const LIMIT: u64 = 1 << 16;

    #[track_caller]
    fn refused<T>(result: Result<T>, kind: ErrorKind) {
        let error = result.err().expect("an error");
        assert_eq!(error.kind(), kind, "{error}");
    }

    #[test]
    fn links_that_only_root_can_place_are_followed_to_their_end() {
        // /proc/self is a relative link in a directory of root's, /proc/mounts leads through it.
        let own = format!("Pid:\t{}\n", std::process::id());
        for path in ["/proc/self/status", "/proc/./self/../self//status"] {
            let status = String::from_utf8(read_file(Path::new(path), LIMIT).unwrap()).unwrap();
            assert!(status.contains(&own), "{status}");
        }
        assert!(open_dir(Path::new("/proc/self")).is_ok());
    }

    #[test]
    fn links_in_a_directory_that_others_write_to_are_refused_wherever_they_are_on_the_path() {
        // Below /tmp, or in whatever is the caller's own.
        let dir = TempDir::new().unwrap();
        let open = dir.path().join("open");
        fs::create_dir_all(open.join("inner")).unwrap();
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        fs::write(open.join("inner/file"), "x").unwrap();
        symlink("inner", open.join("link")).unwrap();
        symlink("inner/file", open.join("file")).unwrap();
        symlink("file", open.join("inner/again")).unwrap();
        assert_eq!(read_file(&open.join("inner/file"), LIMIT).unwrap(), b"x");
        let denied = ErrorKind::PermissionDenied;
        refused(open_dir(&open.join("link")), denied);
        refused(create_dir(&open.join("link/new")), denied);
        refused(read_file(&open.join("file"), LIMIT), denied);
        refused(read_file(&open.join("inner/again"), LIMIT), denied);
        assert!(!open.join("inner/new").exists());
    }

    #[test]
    fn directories_are_made_as_often_as_asked_for_and_files_are_none() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a/b/c");
        refused(open_dir(&path), ErrorKind::NotFound);
        create_dir(&path).unwrap();
        create_dir(&path).unwrap();
        open_dir(&path).unwrap();
        fs::write(path.join("file"), "").unwrap();
        refused(open_dir(&path.join("file")), ErrorKind::NotADirectory);
        refused(create_dir(&path.join("file/x")), ErrorKind::NotADirectory);
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = TempDir::new().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for path in [&fifo, dir.path(), Path::new("/dev/null")] {
            refused(read_file(path, LIMIT), ErrorKind::InvalidInput);
        }
        let file = dir.path().join("file");
        fs::write(&file, [b'x'; 10]).unwrap();
        assert_eq!(read_file(&file, 10).unwrap().len(), 10);
        refused(read_file(&file, 9), ErrorKind::FileTooLarge);
        refused(read_file(&dir.path().join("none"), 9), ErrorKind::NotFound);
    }

    #[test]
    fn a_directory_is_trusted_if_nobody_else_may_write_to_it() {
        let stat = |uid, mode| {
            let mut stat = fstat(File::open("/").unwrap()).unwrap();
            (stat.st_uid, stat.st_mode) = (uid, SFlag::S_IFDIR.bits() | mode);
            stat
        };
        let own = geteuid().as_raw();
        for (uid, mode) in [(0, 0o755), (0, 0o555), (own, 0o700)] {
            assert!(is_trusted(&stat(uid, mode)), "{uid} {mode:o}");
        }
        for (uid, mode) in [(0, 0o775), (0, 0o1777), (own, 0o702), (own + 1, 0o755)] {
            assert!(!is_trusted(&stat(uid, mode)), "{uid} {mode:o}");
        }
    }
}
