//! Changing a store whose lock is held.

use std::fs::{File, Permissions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::AttachmentId;
use super::address::parse_ip;
use super::index::Index;
use super::store::{LOCK, Owner, Store};

/// Not an address, so no reader takes it for one; under the lock there is at most one, and it is stale.
const TEMPORARY: &str = ".beeline.tmp";

/// What the names begin with of the files that say which address of a set was reserved last.
const LAST_RESERVED: &str = "last_reserved_ip.";

/// A [`Store`] whose lock is held until this is dropped.
#[derive(Debug)]
pub struct Locked {
    store: Store,
    /// Holds what the store does; none if there is no place for it.
    index: Option<Index>,
    _lock: File,
}

/// The addresses that an attachment has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How their files name the attachment.
    pub owner: Owner,
    /// The addresses.
    pub ips: Vec<IpAddr>,
}

impl Locked {
    pub(super) fn new(store: Store, index: Option<&Path>, lock: File) -> Self {
        let index = index.and_then(|path| {
            // What it saves is time; on a node that was not set up since it booted there is none.
            let failed = |error: &_| tracing::debug!("index {}: {error}", path.display());
            up_to_date(path, &store).inspect_err(failed).ok()
        });
        Self {
            store,
            index,
            _lock: lock,
        }
    }

    /// The addresses of an attachment; files that name only its container count when no other does.
    pub fn held_by(&mut self, id: &AttachmentId) -> Result<Held> {
        if let Some(index) = &self.index {
            let found = held(id, |owner| Ok(index.get(owner)?));
            if let Ok(found) = found
                && self.store.all_of(&found.ips, &found.owner)?
            {
                return Ok(found);
            }
            // Somebody wrote into a file that exists, as no allocator does: nothing the index says is sure.
            self.index = None;
        }
        let reserved = self.store.reserved()?;
        held(id, |owner| {
            let ips = reserved.iter().filter(|(_, other)| other == owner);
            Ok(ips.map(|(ip, _)| *ip).collect())
        })
    }

    /// Writes into the index what an attachment has from now on, which all changes must end with.
    pub fn note(&mut self, held: &Held) {
        let noted = self.index.take().map(|index| {
            index.set(&held.owner, &held.ips)?;
            index.seal(self.store.dir())?;
            Ok::<_, std::io::Error>(index)
        });
        match noted.transpose() {
            Ok(index) => self.index = index,
            // Whoever comes next sees that it is not sealed.
            Err(error) => tracing::debug!("index: {error}"),
        }
    }

    /// Reserves the first of these addresses that is not taken, with what comes with it; none if all are.
    pub fn reserve<T>(
        &self,
        id: &AttachmentId,
        candidates: impl IntoIterator<Item = (IpAddr, T)>,
    ) -> Result<Option<(IpAddr, T)>> {
        let content = format!("{}\r\n{}", id.container_id, id.ifname);
        let reserve = || -> Result<_> {
            self.write_temporary(&content)?;
            for (ip, with) in candidates {
                if self.claim(&ip.to_string())? {
                    return Ok(Some((ip, with)));
                }
            }
            Ok(None)
        };
        let reserved = reserve();
        // What stays is no address's, and whoever comes next removes it.
        if let Err(error) = self.sweep() {
            tracing::debug!("{error:#}");
        }
        reserved.with_context(|| format!("{}: reserve for {id}", self.store.path().display()))
    }

    /// Gives the temporary file the name of an address: it appears there with its content or not at all, and never over
    /// another, unless that is empty. Its writer died before it reserved anything.
    fn claim(&self, name: &str) -> Result<bool> {
        let dir = self.store.dir();
        let link = || linkat(dir, TEMPORARY, dir, name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EEXIST) => {
                let there = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let file = there.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
                if !file || there.st_size != 0 {
                    return Ok(false);
                }
                self.unlink(name)?;
                link()
            }
            linked => linked,
        };
        linked
            .map(|()| true)
            .with_context(|| format!("address {name}"))
    }

    /// Removes what a plugin that was killed has left.
    pub fn sweep(&self) -> Result<()> {
        let swept = self.unlink(TEMPORARY);
        swept.with_context(|| format!("{}: remove", self.store.path().join(TEMPORARY).display()))
    }

    /// Releases an address; already released is success.
    pub fn release(&self, ip: IpAddr) -> Result<()> {
        let name = ip.to_string();
        self.unlink(&name)
            .with_context(|| format!("{}: release", self.store.path().join(&name).display()))
    }

    /// The address that was reserved last from range set `set`, unless that is not known.
    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let content = self.store.read(&last_reserved_name(set)).ok()??;
        parse_ip(content.trim()).ok()
    }

    /// Remembers the address that was reserved last from range set `set`. In place, as a new file would take as long as
    /// the address's own: if it is left half written, that is where the next search starts, or at the first address.
    pub fn set_last_reserved(&self, set: usize, ip: IpAddr) -> Result<()> {
        let (name, content) = (last_reserved_name(set), ip.to_string());
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC;
        let write = || -> Result<()> {
            let mode = Mode::from_bits_truncate(0o600);
            let mut file = File::from(openat(self.store.dir(), name.as_str(), flags, mode)?);
            file.write_all(content.as_bytes())?;
            Ok(file.set_len(content.len() as u64)?)
        };
        write().with_context(|| format!("{}: write", self.store.path().join(&name).display()))
    }

    /// Releases every address whose owner `keep` does not want, empty files too; goes on after a failure.
    pub fn retain(&self, keep: impl Fn(&Owner) -> bool) -> Result<Vec<IpAddr>> {
        let mut released = Vec::new();
        let mut failure = None;
        for ip in self.store.addresses()? {
            let name = ip.to_string();
            let step = self.store.owner_of(ip).and_then(|owner| {
                if !owner.is_some_and(|owner| keep(&owner)) {
                    self.unlink(&name)
                        .with_context(|| format!("{name}: release"))?;
                    released.push(ip);
                }
                Ok(())
            });
            failure = failure.or(step.err());
        }
        failure.map_or(Ok(released), Err)
    }

    /// Says how many addresses are reserved; if none are, removes all files that allocators keep.
    pub(super) fn clear(&self) -> Result<usize> {
        let reserved = self.store.reserved()?.len();
        if reserved > 0 {
            return Ok(reserved);
        }
        // What is empty was never reserved.
        self.retain(|_| true)?;
        self.sweep()?;
        let others = self.store.names()?.into_iter();
        for name in others.filter(|name| name.starts_with(LAST_RESERVED) || name == LOCK) {
            let path = self.store.path().join(&name);
            self.unlink(&name)
                .with_context(|| format!("{}: remove", path.display()))?;
        }
        Ok(0)
    }

    fn write_temporary(&self, content: &str) -> Result<()> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let create = || openat(self.store.dir(), TEMPORARY, flags, mode);
        let created = match create() {
            // A killed plugin's. It may be an address's file under a second name, hence is not to be written to.
            Err(Errno::EEXIST) => {
                self.unlink(TEMPORARY)?;
                create()
            }
            created => created,
        };
        let mut file = File::from(created?);
        // The mode at creation is cut by the umask of the runtime.
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file.write_all(content.as_bytes())?)
    }

    fn unlink(&self, name: &str) -> nix::Result<()> {
        let dir = self.store.dir();
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            // That the file system is read-only is said before it is looked whether there is anything.
            Err(Errno::EROFS) => match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => Ok(()),
                _ => Err(Errno::EROFS),
            },
            other => other,
        }
    }
}

/// Opens the index, and makes it anew from all files unless it is sealed.
fn up_to_date(path: &Path, store: &Store) -> std::io::Result<Index> {
    let index = Index::lock(path)?;
    if index.is_sealed(store.dir())? {
        return Ok(index);
    }
    index.clear()?;
    let mut reserved = store.reserved().map_err(std::io::Error::other)?;
    reserved.sort_by(|(_, one), (_, other)| one.cmp(other));
    for of_one in reserved.chunk_by(|(_, one), (_, other)| one == other) {
        let ips: Vec<IpAddr> = of_one.iter().map(|(ip, _)| *ip).collect();
        if let [(_, owner), ..] = of_one
            && Index::has_place_for(owner)
        {
            index.set(owner, &ips)?;
        }
    }
    index.seal(store.dir())?;
    Ok(index)
}

fn held(id: &AttachmentId, ips: impl Fn(&Owner) -> Result<Vec<IpAddr>>) -> Result<Held> {
    let owner = Owner::from(id);
    let of_interface = ips(&owner)?;
    if !of_interface.is_empty() {
        return Ok(Held {
            owner,
            ips: of_interface,
        });
    }
    let legacy = Owner::legacy(id);
    let of_container = ips(&legacy)?;
    let owner = if of_container.is_empty() {
        owner
    } else {
        legacy
    };
    Ok(Held {
        owner,
        ips: of_container,
    })
}

fn last_reserved_name(set: usize) -> String {
    format!("{LAST_RESERVED}{set}")
}
