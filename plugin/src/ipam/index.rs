//! Which addresses an attachment has, without reading the file of every address.
//!
//! ```text
//! <index>/<container ID>:<ifname>    the attachment's addresses, one a line
//! <index>/<container ID>:            the same for files of the old form, which name no interface
//! ```
//!
//! Other allocators do not know of it, and one that is killed leaves things half done. So an index counts only if it is
//! sealed: its directory and the store's have the same time of last change, to the nanosecond, and one that no change
//! can have given them. Whatever changes either breaks the seal, and the index is then made anew from all files.
//!
//! It belongs on a file system that a reboot empties: the seal says nothing about what a power failure took.

use std::fs::{File, FileTimes};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::address::parse_ip;
use super::store::Owner;
use super::{path, store};

/// The longest name of a file (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// Thousands of addresses.
const MAX_ENTRY: u64 = 64 << 10;

/// The index of one network.
#[derive(Debug)]
pub(super) struct Index {
    dir: File,
}

impl Index {
    /// Opens the index, to look something up that is going to be verified.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (parent, name) = parent(path)?;
        Self::open_in(&parent, name)
    }

    /// Opens the index, making it if need be, and waits until nobody else changes it. The directory that it is in is not
    /// made: without it there is nobody who removes the index one day.
    pub(super) fn lock(path: &Path) -> Result<Self> {
        let (parent, name) = parent(path)?;
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let index = Self::open_in(&parent, name)?;
        // The store's lock does not do: another configuration may have a network of this name elsewhere.
        store::lock(&index.dir)?;
        Ok(index)
    }

    fn open_in(parent: &OwnedFd, name: &Path) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(parent, name, flags, Mode::empty())?.into();
        Ok(Self { dir })
    }

    /// Whether the index holds what the store does.
    pub(super) fn is_sealed(&self, store: &File) -> Result<bool> {
        let [ours, theirs] = [self.dir.metadata()?, store.metadata()?];
        let changed = |of: &std::fs::Metadata| (of.mtime(), of.mtime_nsec());
        // A change gives a directory one time as mtime and ctime; only utimensat gives it an mtime of its own. Without
        // this a change in the same tick of the clock (kernels before 6.13) or of the file system might go unnoticed.
        let by_seal = |of: &std::fs::Metadata| changed(of) != (of.ctime(), of.ctime_nsec());
        Ok(changed(&ours) == changed(&theirs) && by_seal(&ours) && by_seal(&theirs))
    }

    /// Says that the index holds what the store does.
    pub(super) fn seal(&self, store: &File) -> Result<()> {
        let times = FileTimes::new().set_modified(SystemTime::now());
        store.set_times(times)?;
        self.dir.set_times(times)
    }

    /// The addresses of an owner.
    pub(super) fn get(&self, owner: &Owner) -> Result<Vec<IpAddr>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.dir, &*file_name(owner)?, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let mut text = String::new();
        file.take(MAX_ENTRY).read_to_string(&mut text)?;
        let ips = text.lines().map(parse_ip).collect::<anyhow::Result<_>>();
        ips.map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Replaces the addresses of an owner.
    pub(super) fn set(&self, owner: &Owner, ips: &[IpAddr]) -> Result<()> {
        let name = file_name(owner)?;
        if ips.is_empty() {
            return Ok(self.unlink(&*name)?);
        }
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_TRUNC
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(&self.dir, &*name, flags, mode)?);
        let lines: Vec<_> = ips.iter().map(IpAddr::to_string).collect();
        file.write_all(lines.join("\n").as_bytes())
    }

    /// Whether the index has a place for an owner: the files of addresses can name anything.
    pub(super) fn has_place_for(owner: &Owner) -> bool {
        file_name(owner).is_ok()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> Result<()> {
        for entry in Dir::openat(&self.dir, ".", OFlag::O_DIRECTORY, Mode::empty())?.iter() {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                self.unlink(name.as_c_str())?;
            }
        }
        Ok(())
    }

    fn unlink<P: ?Sized + nix::NixPath>(&self, name: &P) -> nix::Result<()> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn parent(path: &Path) -> Result<(OwnedFd, &Path)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    Ok((path::open_dir(parent)?, Path::new(name)))
}

/// What an owner's entry is called; an error for what no attachment is called, which would lead elsewhere or be another's.
fn file_name(owner: &Owner) -> Result<String> {
    let ifname = owner.ifname.as_deref().unwrap_or_default();
    let parts = [&*owner.container_id, ifname];
    let name = parts.join(":");
    if parts.iter().any(|part| part.contains(['/', ':', '\0'])) || name.len() > MAX_NAME {
        return Err(ErrorKind::InvalidFilename.into());
    }
    Ok(name)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
