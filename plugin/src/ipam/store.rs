//! host-local's files, in its own format, so that either program can take over from the other.
//!
//! `<data dir>/<network>/` holds one file an address (`container ID CR LF ifname`), `last_reserved_ip.<set>`, and
//! `lock`, which is held with flock(2). Everything below the directory is reached through its descriptor.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::AttachmentId;
use super::address::parse_ip;

const LOCK: &str = "lock";
/// Not an address, so no reader takes it for one; under the lock there is at most one, and it is stale.
const TEMPORARY: &str = ".beeline.tmp";
/// No container ID and interface name come near; anything longer was not written by an allocator.
const MAX_CONTENT: u64 = 4096;

/// The directory of one network.
#[derive(Debug)]
pub struct Store {
    dir: OwnedFd,
    path: PathBuf,
}

/// A [`Store`] whose lock is held until this is dropped.
#[derive(Debug)]
pub struct Locked {
    store: Store,
    _lock: File,
}

/// What the file of an address says about who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The container ID.
    pub container_id: String,
    /// The interface; files of old versions do not say.
    pub ifname: Option<String>,
}

impl Owner {
    /// None for an empty file: its writer died before it reserved anything.
    fn parse(content: &str) -> Option<Self> {
        let content = content.trim();
        let (container_id, ifname) = match content.split_once('\n') {
            Some((container_id, ifname)) => (container_id.trim(), Some(ifname.trim().into())),
            None => (content, None),
        };
        (!content.is_empty()).then(|| Self {
            container_id: container_id.into(),
            ifname,
        })
    }

    /// Whether the file names exactly this attachment.
    pub fn is(&self, id: &AttachmentId) -> bool {
        self.container_id == id.container_id && self.ifname.as_ref() == Some(&id.ifname)
    }

    /// Whether the file is of the old form and names the attachment's container.
    pub fn is_legacy(&self, id: &AttachmentId) -> bool {
        self.container_id == id.container_id && self.ifname.is_none()
    }
}

impl Store {
    /// Opens the directory of a network, or none if nothing was ever reserved there.
    pub fn open(data_dir: &Path, network: &str) -> Result<Option<Self>> {
        // A name is checked long before; here it decides which directory is written to.
        let plain =
            !network.is_empty() && !network.contains('/') && network != "." && network != "..";
        ensure!(plain, "network {network:?}: not a file name");
        let path = data_dir.join(network);
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(data_dir, flags, Mode::empty())
            .and_then(|parent| openat(parent, network, flags | OFlag::O_NOFOLLOW, Mode::empty()));
        match opened {
            Ok(dir) => Ok(Some(Self { dir, path })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("{}: open", path.display())),
        }
    }

    /// Opens the directory of a network, making it if need be.
    pub fn create(data_dir: &Path, network: &str) -> Result<Self> {
        if let Some(store) = Self::open(data_dir, network)? {
            return Ok(store);
        }
        let create = || -> Result<()> {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(data_dir)?;
            let parent = open(
                data_dir,
                OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            match mkdirat(parent, network, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        create().with_context(|| format!("{}: create", data_dir.join(network).display()))?;
        let opened = Self::open(data_dir, network)?;
        opened.with_context(|| {
            format!(
                "{}: removed while it was created",
                data_dir.join(network).display()
            )
        })
    }

    /// Waits for the lock that every allocator of this network takes.
    pub fn lock(self) -> Result<Locked> {
        let lock = || -> Result<File> {
            let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = File::from(openat(
                &self.dir,
                LOCK,
                flags,
                Mode::from_bits_truncate(0o750),
            )?);
            loop {
                match file.lock() {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    locked => return Ok(locked.map(|()| file)?),
                }
            }
        };
        let lock = lock().with_context(|| format!("{}: lock", self.path.join(LOCK).display()))?;
        Ok(Locked {
            store: self,
            _lock: lock,
        })
    }

    /// Every reserved address with its owner. Without the lock this is a snapshot that may be out of date.
    pub fn reserved(&self) -> Result<Vec<(IpAddr, Owner)>> {
        let mut reserved = Vec::new();
        for name in self.address_files()? {
            if let Ok(ip) = parse_ip(&name)
                && let Some(owner) = self.read(&name)?.as_deref().and_then(Owner::parse)
            {
                reserved.push((ip, owner));
            }
        }
        Ok(reserved)
    }

    /// The names of the files that stand for an address, empty ones included.
    fn address_files(&self) -> Result<Vec<String>> {
        let list = || -> nix::Result<Vec<String>> {
            let fd = openat(
                &self.dir,
                ".",
                OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            let mut names = Vec::new();
            for entry in Dir::from_fd(fd)?.iter() {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if parse_ip(&name).is_ok() {
                    names.push(name);
                }
            }
            Ok(names)
        };
        list().with_context(|| format!("{}: list", self.path.display()))
    }

    /// The content of a file, or none if there is no such regular file.
    fn read(&self, name: &str) -> Result<Option<String>> {
        // O_NONBLOCK, for opening a FIFO would wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let read = || -> Result<Option<String>> {
            let file = match openat(&self.dir, name, flags, Mode::empty()) {
                Ok(fd) => File::from(fd),
                Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            if !file.metadata()?.is_file() {
                return Ok(None);
            }
            let mut content = Vec::new();
            file.take(MAX_CONTENT).read_to_end(&mut content)?;
            Ok(Some(String::from_utf8_lossy(&content).into_owned()))
        };
        read().with_context(|| format!("{}: read", self.path.join(name).display()))
    }
}

impl Locked {
    /// Every reserved address with its owner.
    pub fn reserved(&self) -> Result<Vec<(IpAddr, Owner)>> {
        self.store.reserved()
    }

    /// Reserves an address; false if it is taken.
    pub fn reserve(&self, ip: IpAddr, id: &AttachmentId) -> Result<bool> {
        let name = ip.to_string();
        let content = format!("{}\r\n{}", id.container_id, id.ifname);
        let reserve = || -> Result<bool> {
            if self
                .store
                .read(&name)?
                .is_some_and(|content| content.trim().is_empty())
            {
                self.unlink(&name)?;
            }
            self.write_temporary(&content)?;
            // The file appears under its name with its content or not at all, and never over another.
            let dir = &self.store.dir;
            let linked = linkat(dir, TEMPORARY, dir, name.as_str(), AtFlags::empty());
            self.unlink(TEMPORARY)?;
            match linked {
                Ok(()) => Ok(true),
                Err(Errno::EEXIST) => Ok(false),
                Err(errno) => Err(errno.into()),
            }
        };
        reserve().with_context(|| {
            format!(
                "{}: reserve for {id}",
                self.store.path.join(&name).display()
            )
        })
    }

    /// Releases an address; already released is success.
    pub fn release(&self, ip: IpAddr) -> Result<()> {
        let name = ip.to_string();
        self.unlink(&name)
            .with_context(|| format!("{}: release", self.store.path.join(&name).display()))
    }

    /// The address that was reserved last from range set `set`, unless that is not known.
    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let content = self.store.read(&last_reserved_name(set)).ok()??;
        parse_ip(content.trim()).ok()
    }

    /// Remembers the address that was reserved last from range set `set`.
    pub fn set_last_reserved(&self, set: usize, ip: IpAddr) -> Result<()> {
        let name = last_reserved_name(set);
        let write = || -> Result<()> {
            self.write_temporary(&ip.to_string())?;
            let dir = &self.store.dir;
            Ok(renameat(dir, TEMPORARY, dir, name.as_str())?)
        };
        write().with_context(|| format!("{}: write", self.store.path.join(&name).display()))
    }

    /// Releases every address whose owner `keep` does not want, empty files too; goes on after a failure.
    pub fn retain(&self, keep: impl Fn(&Owner) -> bool) -> Result<Vec<IpAddr>> {
        let mut released = Vec::new();
        let mut failure = None;
        for name in self.store.address_files()? {
            let Ok(ip) = parse_ip(&name) else { continue };
            let step = self.store.read(&name).and_then(|content| {
                if !content
                    .as_deref()
                    .and_then(Owner::parse)
                    .is_some_and(|owner| keep(&owner))
                {
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

    fn write_temporary(&self, content: &str) -> Result<()> {
        self.unlink(TEMPORARY)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let mut file = File::from(openat(&self.store.dir, TEMPORARY, flags, mode)?);
        // The mode at creation is cut by the umask of the runtime.
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file.write_all(content.as_bytes())?)
    }

    fn unlink(&self, name: &str) -> nix::Result<()> {
        match unlinkat(&self.store.dir, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn last_reserved_name(set: usize) -> String {
    format!("last_reserved_ip.{set}")
}
