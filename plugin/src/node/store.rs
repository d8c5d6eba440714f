//! The files of a network on this node, in `<stateDir>/<network>/`.
//!
//! ```text
//! lock                          ADD and DEL hold it shared, set-up holds it alone
//! node.json                     Record: what the node was set up for, and what did not work
//! attachments/<cid>:<ifname>    Attachment: written before anything is made for it, removed after all is gone
//! slow/<cid>:<ifname>           why that pod takes the slow path
//! watch                         the process that watches new pods holds it alone
//! monitor.lock                  `beeline monitor` holds it alone
//! ipam/                         the index of the built-in IPAM
//! ```
//!
//! All of it describes kernel state, hence belongs on a file system that a reboot empties.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Attachment, Plan};

/// What is known of a node that was set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What it was set up for.
    pub plan: Plan,
    /// Why pods are on the plain bridge, if they should not be.
    pub degraded: Option<String>,
    /// What else did not work: peers that no route leads to, uplinks that are missing.
    pub problems: Vec<String>,
    /// The MTU that the way to the peers leaves pods, in bytes, if it is less than the kernel's own.
    #[serde(default)]
    pub pod_mtu: Option<u32>,
    /// What in netfilter the fast path would defeat, or does where `mode` is `ebpf`.
    #[serde(default)]
    pub firewall: Vec<String>,
    /// Whether an administrator turned the fast path off.
    #[serde(default)]
    pub off: bool,
}

impl Record {
    /// What the fast path knowingly defeats.
    pub fn bypassed(&self) -> &[String] {
        match self.degraded {
            None => &self.firewall,
            Some(_) => &[],
        }
    }

    /// What was asked for and does not hold.
    pub fn unmet(&self) -> Option<&'static str> {
        let degraded = self.degraded.is_some();
        degraded.then(|| self.plan.unmet_on_bridge()).flatten()
    }

    /// Logs what does not work.
    pub fn warn(&self) {
        let network = &self.plan.network;
        if let Some(reason) = &self.degraded {
            tracing::warn!(network, "pods take the plain bridge, no eBPF: {reason}");
        }
        if let Some(unmet) = self.unmet() {
            tracing::warn!(network, "{unmet}");
        }
        for problem in &self.problems {
            tracing::warn!(network, "{problem}");
        }
        for rule in self.bypassed() {
            tracing::warn!(network, "the fast path passes by a firewall: {rule}");
        }
    }
}

/// The files of one network.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A lock on the network, held until it is dropped.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Store {
    /// The store of a plan's network; nothing is touched.
    pub fn new(plan: &Plan) -> Self {
        Self {
            root: plan.state_dir(),
        }
    }

    /// The store in a directory.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

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
            make_directory(&self.root)?;
            let file = match lock_file(&path) {
                // The last ADD or DEL removed the directory in between.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.with_context(context)?,
            };
            let lock = Flock::lock(file, how)
                .map_err(|(_, errno)| errno)
                .with_context(context)?;
            // Whoever removes the directory holds the lock: a lock on a file that is gone locks nobody out.
            let locked = lock.metadata().with_context(context)?.ino();
            if fs::metadata(&path).is_ok_and(|current| current.ino() == locked) {
                return Ok(Lock(lock));
            }
        }
    }

    /// What is known of the node; `None` if it was not set up since boot, or if the file is not this version's.
    pub fn record(&self) -> Option<Record> {
        read(&self.root.join("node.json")).ok().flatten()
    }

    /// Remembers how the node was set up.
    pub fn save_record(&self, record: &Record) -> Result<()> {
        write(&self.root.join("node.json"), record)
    }

    /// The attachment, if there is one.
    pub fn attachment(&self, container_id: &str, ifname: &str) -> Result<Option<Attachment>> {
        let attachment: Option<Attachment> = read(&self.attachment_path(container_id, ifname))?;
        attachment
            .map(|attachment| self.with_slow(attachment))
            .transpose()
    }

    /// All attachments; files that cannot be read as such are left out.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        let directory = self.root.join("attachments");
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("{}: read", directory.display()))?,
        };
        let mut attachments: Vec<Attachment> = entries
            .filter_map(|entry| read(&entry.ok()?.path()).ok().flatten())
            .map(|attachment| self.with_slow(attachment))
            .collect::<Result<_>>()?;
        attachments.sort_by(|a, b| (&a.container_id, &a.ifname).cmp(&(&b.container_id, &b.ifname)));
        Ok(attachments)
    }

    /// Writes an attachment down, new or changed.
    pub fn save_attachment(&self, attachment: &Attachment) -> Result<()> {
        make_directory(&self.root.join("attachments"))?;
        let path = self.attachment_path(&attachment.container_id, &attachment.ifname);
        write(&path, attachment)
    }

    /// Writes down why a pod takes the slow path, or that it does not any more.
    pub fn save_slow(&self, attachment: &Attachment) -> Result<()> {
        let (container_id, ifname) = (&attachment.container_id, &attachment.ifname);
        let path = self.slow_path(container_id, ifname);
        let Some(reason) = &attachment.slow else {
            return remove(&path);
        };
        make_directory(&self.root.join("slow"))?;
        write(&path, reason)?;
        // A DEL may have come first.
        if !self.attachment_path(container_id, ifname).exists() {
            remove(&path)?;
        }
        Ok(())
    }

    /// When an attachment last came or went; `None` if the network is gone.
    pub fn attachments_changed(&self) -> Option<SystemTime> {
        let directory = fs::metadata(self.root.join("attachments")).ok()?;
        directory.modified().ok()
    }

    /// Forgets an attachment; not there is success.
    pub fn remove_attachment(&self, container_id: &str, ifname: &str) -> Result<()> {
        remove(&self.slow_path(container_id, ifname))?;
        remove(&self.attachment_path(container_id, ifname))
    }

    fn with_slow(&self, attachment: Attachment) -> Result<Attachment> {
        let path = self.slow_path(&attachment.container_id, &attachment.ifname);
        Ok(Attachment {
            slow: read(&path)?,
            ..attachment
        })
    }

    /// Removes the whole store, which nobody else may be using: `lock` is the exclusive one.
    pub fn remove(&self, lock: Lock) -> Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{}: remove", self.root.display()));
            }
            _ => {}
        }
        // The directory that all networks share goes with the last of them.
        if let Some(shared) = self.root.parent() {
            let _ = fs::remove_dir(shared);
        }
        drop(lock);
        Ok(())
    }

    fn attachment_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        let name = file_name(container_id, ifname);
        self.root.join("attachments").join(name)
    }

    fn slow_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        let name = file_name(container_id, ifname);
        self.root.join("slow").join(name)
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

fn file_name(container_id: &str, ifname: &str) -> String {
    // A colon can be in neither of them.
    format!("{container_id}:{ifname}")
}

fn lock_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags((OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).bits())
        .open(path)
}

fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("{}: create", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("{}: read", path.display()))?,
    };
    serde_json::from_slice(&bytes).with_context(|| format!("{}: decode", path.display()))
}

/// Writes the whole file or none of it.
fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let context = || format!("{}: write", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    // The temporary file is beside the attachments' directory, where nobody takes it for one.
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)
        .with_context(context)?;
    file.write_all(&serde_json::to_vec(value)?)
        .with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: remove", path.display()))
        }
        _ => Ok(()),
    }
}
