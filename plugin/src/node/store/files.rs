//! Files that are whole or not there.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::fcntl::OFlag;
use serde::{Serialize, de::DeserializeOwned};

/// What the names of files begin with that are not whole yet; no container ID does.
pub(super) const TEMPORARY: &str = ".new-";

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("{}: read", path.display()))?,
    };
    serde_json::from_slice(&bytes).with_context(|| format!("{}: decode", path.display()))
}

/// Writes the whole file or none of it.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let context = || format!("{}: write", path.display());
    let value = serde_json::to_vec(value).with_context(context)?;
    let temporary = temporary(path);
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .custom_flags((OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).bits())
        .open(&temporary)
        .and_then(|mut file| file.write_all(&value))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // A full disk leaves a part; what matters is the first error.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(context)
}

/// Where a file is written until it is whole. Always the same place, so that what a killed process left there is
/// written over, or removed with the file: of each file only one process writes at a time.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{TEMPORARY}{name}"))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    for path in [&temporary(path), path] {
        // That a file system is read-only is said before it is looked whether there is anything.
        let is_gone = |kind| match kind {
            ErrorKind::ReadOnlyFilesystem => fs::symlink_metadata(path).is_err(),
            kind => kind == ErrorKind::NotFound,
        };
        match fs::remove_file(path) {
            Err(error) if !is_gone(error.kind()) => {
                return Err(error).with_context(|| format!("{}: remove", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod netns_tests {
    use std::thread;

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    /// Runs `f` on a file system of two pages that nobody else sees, at a directory.
    fn on_a_small_disk(f: impl FnOnce(&Path) + Send) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let alone = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let (none, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
            mount(none, "/", none, private, none).unwrap();
            let (kind, size) = (Some("tmpfs"), Some("size=8k"));
            mount(kind, path, kind, MsFlags::empty(), size).unwrap();
            f(path);
        };
        thread::scope(|scope| scope.spawn(alone).join()).unwrap();
    }

    #[test]
    fn a_file_that_the_disk_has_no_room_for_stays_as_it_was_and_nothing_is_beside_it() {
        on_a_small_disk(|disk| {
            let path = disk.join("cluster.json");
            write(&path, &"former").unwrap();
            let error = write(&path, &"x".repeat(8192)).unwrap_err();
            let expected = format!(
                "{}: write: No space left on device (os error 28)",
                path.display()
            );
            assert_eq!(format!("{error:#}"), expected);
            assert_eq!(read::<String>(&path).unwrap().as_deref(), Some("former"));
            assert_eq!(fs::read_dir(disk).unwrap().count(), 1);
            write(&path, &"next").unwrap();
        });
    }
}
