//! `install`: puts the plugin where runtimes look for it, and `uninstall` removes it from there.
//!
//! A runtime may execute the plugin at any moment, and an older agent may install at the same time as a newer one, so a
//! file is written beside it, and takes its name when it is whole. Whoever changes the directory holds a lock on it: so
//! the file that is not whole always has the same name, and one that a killed process left is written over.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::{fcntl::OFlag, libc};

use crate::options::Install;

/// The plugin's file, which the `type` in configurations names.
pub(crate) const PLUGIN: &str = "beeline";

/// The plugin's file until it is whole. Runtimes execute what a configuration names, hence never this.
const TEMPORARY: &str = ".beeline.new";

const MODE: u32 = 0o755;

/// Makes the plugin in the directory the same as the one given; what is the same already is left alone.
pub(crate) fn install(options: &Install) -> Result<()> {
    let (source, directory) = (&options.plugin, &options.bin_dir);
    fs::create_dir_all(directory).with_context(|| format!("{}: create", directory.display()))?;
    let locked = lock(directory)?;
    let target = directory.join(PLUGIN);
    let plugin = target.display().to_string();
    let temporary = directory.join(TEMPORARY);
    if is_same(source, &target)? {
        remove(&temporary)?;
        tracing::info!(plugin, "is as it should be");
        return Ok(());
    }
    let replaced = write(source, &temporary).and_then(|()| {
        fs::rename(&temporary, &target).with_context(|| format!("{}: replace", target.display()))
    });
    if let Err(error) = replaced {
        // The failure that counts is the first.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync(&locked, directory)?;
    tracing::info!(plugin, "installed");
    Ok(())
}

/// Removes the plugin from the directory; already gone is success.
pub(crate) fn remove_plugin(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let locked = lock(directory)?;
    remove(&directory.join(TEMPORARY))?;
    remove(&directory.join(PLUGIN))?;
    sync(&locked, directory)
}

/// Waits until nobody else installs there.
fn lock(directory: &Path) -> Result<File> {
    let context = || format!("{}: lock", directory.display());
    let file = File::open(directory).with_context(context)?;
    loop {
        match file.lock() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            locked => {
                locked.with_context(context)?;
                return Ok(file);
            }
        }
    }
}

/// Whether a file is there that is the same to whoever executes it.
fn is_same(source: &Path, target: &Path) -> Result<bool> {
    let found = match fs::symlink_metadata(target) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found.with_context(|| format!("{}: look at", target.display()))?,
    };
    if !found.is_file() || found.permissions().mode() & 0o7777 != MODE {
        return Ok(false);
    }
    let source = &mut open(source)?;
    let target = &mut open(target)?;
    let same = source.metadata()?.len() == target.metadata()?.len() && same_content(source, target);
    Ok(same)
}

/// What cannot be read is not the same.
fn same_content(one: &mut File, other: &mut File) -> bool {
    const PIECE: usize = 1 << 16;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        a.clear();
        b.clear();
        let read = |file: &mut File, piece: &mut Vec<u8>| {
            Read::take(file, PIECE as u64).read_to_end(piece).is_ok()
        };
        if !read(one, &mut a) || !read(other, &mut b) || a != b {
            return false;
        }
        if a.is_empty() {
            return true;
        }
    }
}

fn write(source: &Path, temporary: &Path) -> Result<()> {
    let mut from = open(source)?;
    // What a killed process left may be anything.
    remove(temporary)?;
    let mut write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(temporary)?;
        io::copy(&mut from, &mut file)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        // Else the name might survive a power failure, and what is in the file not.
        file.sync_all()
        // And it is closed before it gets its name: a file that is open for writing cannot be executed (ETXTBSY).
    };
    write().with_context(|| format!("{}: write", temporary.display()))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("{}: open", path.display()))
}

/// Removes a file; on a file system that is read-only that is fine if there is none.
fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path).and_then(|_| fs::remove_file(path)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: remove", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a change of names durable, where the file system can.
fn sync(directory: &File, path: &Path) -> Result<()> {
    match directory.sync_all() {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
            Err(error).with_context(|| format!("{}: write", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
