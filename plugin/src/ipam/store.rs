//! host-local's files, in its own format, so that either program can take over from the other.
//!
//! `<data dir>/<network>/` holds one file an address (`container ID CR LF ifname`), `last_reserved_ip.<set>`, and
//! `lock`, which is held with flock(2). Everything below the directory is reached through its descriptor.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};

use super::address::parse_ip;
use super::{AttachmentId, Locked, path};

/// The file that whoever changes something holds.
pub(super) const LOCK: &str = "lock";
/// No container ID and interface name come near; anything longer was not written by an allocator.
const MAX_CONTENT: u64 = 4096;

/// The directory of one network.
#[derive(Debug)]
pub struct Store {
    dir: File,
    path: PathBuf,
}

/// What the file of an address says about who has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The container ID.
    pub container_id: String,
    /// The interface; files of old versions do not say.
    pub ifname: Option<String>,
}

impl From<&AttachmentId> for Owner {
    fn from(id: &AttachmentId) -> Self {
        Self {
            container_id: id.container_id.clone(),
            ifname: Some(id.ifname.clone()),
        }
    }
}

impl Owner {
    /// What files of the old form say.
    pub fn legacy(id: &AttachmentId) -> Self {
        Self {
            container_id: id.container_id.clone(),
            ifname: None,
        }
    }

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
        let open = || -> std::io::Result<File> {
            let parent = path::open_dir(data_dir)?;
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            Ok(openat(parent, network, flags, Mode::empty())?.into())
        };
        let path = file_path(data_dir, network)?;
        match open() {
            Ok(dir) => Ok(Some(Self { dir, path })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{}: open", path.display())),
        }
    }

    /// Opens the directory of a network, making it if need be.
    pub fn create(data_dir: &Path, network: &str) -> Result<Self> {
        if let Some(store) = Self::open(data_dir, network)? {
            return Ok(store);
        }
        let path = file_path(data_dir, network)?;
        let create = || -> Result<()> {
            let parent = path::create_dir(data_dir)?;
            match mkdirat(parent, network, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        create().with_context(|| format!("{}: create", path.display()))?;
        let opened = Self::open(data_dir, network)?;
        opened.with_context(|| format!("{}: removed while it was created", path.display()))
    }

    /// Waits for the lock that every allocator of this network takes. `index` is where to look up who has what.
    pub fn lock(self, index: Option<&Path>) -> Result<Locked> {
        let lock = || -> Result<File> {
            let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mode = Mode::from_bits_truncate(0o750);
            let file = File::from(openat(&self.dir, LOCK, flags, mode)?);
            lock(&file)?;
            Ok(file)
        };
        let lock = lock().with_context(|| format!("{}: lock", self.path.join(LOCK).display()))?;
        Ok(Locked::new(self, index, lock))
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &File {
        &self.dir
    }

    /// The directory's path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Every reserved address with its owner. Without the lock this is a snapshot that may be out of date.
    pub fn reserved(&self) -> Result<Vec<(IpAddr, Owner)>> {
        let mut reserved = Vec::new();
        for ip in self.addresses()? {
            if let Some(owner) = self.owner_of(ip)? {
                reserved.push((ip, owner));
            }
        }
        Ok(reserved)
    }

    /// The addresses that there are files of, empty ones too.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let names = self.names()?.into_iter();
        // No allocator writes another form.
        let address = |name: String| {
            let ip = parse_ip(&name).ok()?;
            (ip.to_string() == name).then_some(ip)
        };
        Ok(names.filter_map(address).collect())
    }

    /// The names of all that is there.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let list = || -> nix::Result<Vec<String>> {
            let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let mut dir = Dir::openat(&self.dir, ".", flags, Mode::empty())?;
            let names = dir.iter();
            names
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        list().with_context(|| format!("{}: list", self.path.display()))
    }

    /// Who has an address.
    pub fn owner_of(&self, ip: IpAddr) -> Result<Option<Owner>> {
        let content = self.read(&ip.to_string())?;
        Ok(content.as_deref().and_then(Owner::parse))
    }

    /// When the file of an address was written; none if it is gone.
    pub(super) fn written(&self, ip: IpAddr) -> Result<Option<SystemTime>> {
        let name = ip.to_string();
        let path = || format!("{}: stat", self.path.join(&name).display());
        match fstatat(&self.dir, &*name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => {
                let since = Duration::from_secs(found.st_mtime.try_into().unwrap_or(0));
                Ok(Some(SystemTime::UNIX_EPOCH + since))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).with_context(path),
        }
    }

    /// Whether all these addresses are an owner's.
    pub fn all_of(&self, ips: &[IpAddr], owner: &Owner) -> Result<bool> {
        for ip in ips {
            if self.owner_of(*ip)?.as_ref() != Some(owner) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The content of a file, or none if there is no such regular file.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>> {
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

/// Waits for an flock(2), which lasts until the file is closed.
pub(super) fn lock(file: &File) -> std::io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

/// The directory of a network. A name is checked long before; here it decides which directory is written to.
fn file_path(data_dir: &Path, network: &str) -> Result<PathBuf> {
    let plain = !network.is_empty() && !network.contains('/') && network != "." && network != "..";
    ensure!(plain, "network {network:?}: not a file name");
    Ok(data_dir.join(network))
}
