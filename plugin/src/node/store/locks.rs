//! Who may change a network at the same time.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
};

use super::{super::directory, Store};

/// A lock on the network, held until it is dropped.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Store {
    /// Waits for the lock that all ADDs and DELs can hold at the same time.
    pub fn lock_shared(&self) -> Result<Lock> {
        self.lock(FlockArg::LockShared)
    }

    /// Waits for the lock that only one can hold.
    pub fn lock_exclusive(&self) -> Result<Lock> {
        self.lock(FlockArg::LockExclusive)
    }

    /// The lock of whoever watches the network's pods; `None` if somebody has it.
    pub fn lock_watch(&self) -> Result<Option<Lock>> {
        self.try_lock("watch")
    }

    /// The lock of whoever monitors the network; `None` if somebody has it.
    pub fn lock_monitor(&self) -> Result<Option<Lock>> {
        self.try_lock("monitor.lock")
    }

    /// The lock of the agent that keeps the network's peers; `None` if one does.
    pub fn lock_agent(&self) -> Result<Option<Lock>> {
        directory::make(&self.root)?;
        self.try_lock("agent.lock")
    }

    /// Whether an agent keeps the network's peers now.
    pub fn has_agent(&self) -> Result<bool> {
        self.is_locked("agent.lock")
    }

    /// Whether somebody watches the network's pods. Unlike [`lock_watch`](Self::lock_watch) it makes no file, and no ADD
    /// takes whoever asks for the one who watches.
    pub fn is_watched(&self) -> Result<bool> {
        self.is_locked("watch")
    }

    /// Whether somebody monitors the network. Unlike [`lock_monitor`](Self::lock_monitor) it makes no file.
    pub fn is_monitored(&self) -> Result<bool> {
        self.is_locked("monitor.lock")
    }

    fn is_locked(&self, name: &str) -> Result<bool> {
        const LOCKS: &str = "/proc/locks";
        let Ok(file) = fs::metadata(self.root.join(name)) else {
            return Ok(false);
        };
        let locks = fs::read_to_string(LOCKS).with_context(|| format!("{LOCKS}: read"))?;
        let inode = format!(":{}", file.ino());
        let held = |line: &str| {
            let mut fields = line.split_whitespace();
            line.contains("FLOCK") && fields.any(|field| field.ends_with(&inode))
        };
        Ok(locks.lines().any(held))
    }

    /// Waits to be the only one who takes an attachment onto the fast path or removes it; `None` if nothing is recorded
    /// of it. [Saving](Self::save_attachment) the attachment lets others in.
    pub fn lock_attachment(&self, container_id: &str, ifname: &str) -> Result<Option<Lock>> {
        let path = self.attachment_path(container_id, ifname);
        let context = || format!("{}: lock", path.display());
        loop {
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                file => file.with_context(context)?,
            };
            let lock = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)
                .with_context(context)?;
            if is_at(&lock, &path).with_context(context)? {
                return Ok(Some(Lock(lock)));
            }
        }
    }

    fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.root.join(name);
        let context = || format!("{}: lock", path.display());
        let file = lock_file(&path).with_context(context)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).with_context(context),
        }
    }

    fn lock(&self, how: FlockArg) -> Result<Lock> {
        let path = self.root.join("lock");
        let context = || format!("{}: lock", path.display());
        loop {
            directory::make(&self.root)?;
            let file = match lock_file(&path) {
                // The last ADD or DEL removed the directory in between.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.with_context(context)?,
            };
            let lock = Flock::lock(file, how)
                .map_err(|(_, errno)| errno)
                .with_context(context)?;
            // Whoever removes the directory holds the lock.
            if is_at(&lock, &path).with_context(context)? {
                return Ok(Lock(lock));
            }
        }
    }
}

impl Lock {
    /// Lets others in who hold the lock shared.
    pub fn share(&mut self) -> Result<()> {
        self.0.relock(FlockArg::LockShared).context("lock: share")
    }

    /// Tries to be alone without waiting; says whether that worked.
    pub fn try_exclusive(&mut self) -> Result<bool> {
        match self.0.relock(FlockArg::LockExclusiveNonblock) {
            Ok(()) => Ok(true),
            Err(Errno::EWOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno).context("lock: take alone"),
        }
    }
}

/// Whether a file is still the one at its path: a lock on one that is gone locks nobody out.
fn is_at(file: &File, path: &Path) -> std::io::Result<bool> {
    let locked = file.metadata()?.ino();
    Ok(fs::metadata(path).is_ok_and(|current| current.ino() == locked))
}

/// Not opened for writing: what is locked on a file system that became read-only can be looked after all the same.
fn lock_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .mode(0o600)
        .custom_flags((OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).bits())
        .open(path)
}
