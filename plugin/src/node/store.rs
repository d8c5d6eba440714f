//! The files of a network on this node, in `<stateDir>/<network>/`.
//!
//! ```text
//! lock                          ADD and DEL hold it shared, set-up holds it alone
//! node.json                     Record: what the node was set up for, and what did not work
//! attachments/<cid>:<ifname>    Attachment: written before anything is made for it, removed after all is gone
//! slow/<cid>:<ifname>           why that pod takes the slow path
//! macs/<cid>:<ifname>           the MAC that its interface was given since its ADD
//! watch                         the process that watches new pods holds it alone
//! monitor.lock                  `beeline monitor` holds it alone
//! ipam/                         the index of the built-in IPAM
//! cluster.json                  Cluster: the peers that an agent keeps, in cluster mode
//! agent.lock                    that agent holds it alone
//! ```
//!
//! All of it describes kernel state, hence belongs on a file system that a reboot empties.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Attachment, Plan, cluster::Cluster, directory};
use crate::{datapath::config::Mode, ipam::AttachmentId};

/// What the names of files begin with that are not whole yet; no container ID does.
const TEMPORARY: &str = ".new-";

const CLUSTER: &str = "cluster.json";

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
    /// Whether pods can be on the fast path.
    pub fn is_fast(&self) -> bool {
        self.plan.datapath.mode != Mode::Bridge && self.degraded.is_none()
    }

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

    /// What is known of the node; `None` if it was not set up since boot, or if the file is not this version's.
    pub fn record(&self) -> Option<Record> {
        self.try_record().ok().flatten()
    }

    /// The same, for whoever acts on it that there is none.
    ///
    /// # Errors
    ///
    /// There is one, and it cannot be read, as when no more files can be opened.
    pub(super) fn try_record(&self) -> Result<Option<Record>> {
        match read(&self.root.join("node.json")) {
            // Another version's.
            Err(error) if !error.is::<std::io::Error>() => Ok(None),
            record => record,
        }
    }

    /// Whether the node was set up since boot, by whichever version.
    pub(super) fn is_set_up(&self) -> bool {
        fs::exists(self.root.join("node.json")).unwrap_or(true)
    }

    /// Remembers how the node was set up.
    pub fn save_record(&self, record: &Record) -> Result<()> {
        write(&self.root.join("node.json"), record)
    }

    /// What an agent knows of the cluster; `None` without one, or if the file is not this version's.
    pub fn cluster(&self) -> Option<Cluster> {
        read(&self.root.join(CLUSTER)).ok().flatten()
    }

    /// Whether an agent keeps the peers, unless the configuration names them.
    pub fn is_clustered(&self) -> bool {
        self.cluster_file().exists()
    }

    /// Where it is kept what an agent knows of the cluster.
    pub fn cluster_file(&self) -> PathBuf {
        self.root.join(CLUSTER)
    }

    /// Writes down what an agent knows of the cluster.
    pub(super) fn save_cluster(&self, cluster: &Cluster) -> Result<()> {
        write(&self.root.join(CLUSTER), cluster)
    }

    /// Has the configuration name the peers from now on, as before there was an agent.
    pub fn forget_cluster(&self) -> Result<()> {
        remove(&self.root.join(CLUSTER))
    }

    /// The peers' CIDRs of the node's other networks.
    pub(super) fn peers_of_others(&self) -> HashSet<IpNetwork> {
        let all = self.root.parent().map(fs::read_dir);
        let all = all.into_iter().flatten().flatten().flatten();
        let others = all
            .map(|entry| Self::at(entry.path()))
            .filter(|other| other.root != self.root);
        let mut peers = HashSet::new();
        for other in others {
            let configured = other.record().map(|record| record.plan.datapath.peers);
            peers.extend(configured.iter().flatten().map(|peer| peer.cidr));
            let kept = other.cluster().map(|cluster| cluster.peers);
            peers.extend(kept.iter().flatten().map(|peer| peer.cidr));
        }
        peers
    }

    /// Whether the node has no other network.
    pub(super) fn is_only(&self) -> bool {
        let all = self.root.parent().map(fs::read_dir);
        let mut all = all.into_iter().flatten().flatten().flatten();
        all.all(|entry| entry.path() == self.root || !entry.path().is_dir())
    }

    /// Writes down the MAC that a pod's interface was given.
    pub fn save_mac(&self, attachment: &Attachment) -> Result<()> {
        let (container_id, ifname) = (&attachment.container_id, &attachment.ifname);
        let path = self.mac_path(container_id, ifname);
        directory::make(&self.root.join("macs"))?;
        write(&path, &attachment.mac)?;
        // A DEL may have come first.
        if !self.attachment_path(container_id, ifname).exists() {
            remove(&path)?;
        }
        Ok(())
    }

    fn mac_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        self.root.join("macs").join(file_name(container_id, ifname))
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
        let directory = self.attachments_dir();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("{}: read", directory.display()))?,
        };
        let mut attachments: Vec<Attachment> = entries
            .filter_map(Result::ok)
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with(TEMPORARY))
            .filter_map(|entry| read(&entry.path()).ok().flatten())
            .map(|attachment| self.with_slow(attachment))
            .collect::<Result<_>>()?;
        attachments.sort_by(|a, b| (&a.container_id, &a.ifname).cmp(&(&b.container_id, &b.ifname)));
        Ok(attachments)
    }

    /// Those whose records are not whole, as their writers were killed or are at work still.
    pub fn unfinished(&self) -> Vec<AttachmentId> {
        let entries = fs::read_dir(self.attachments_dir());
        let names = entries.into_iter().flatten().flatten();
        let id = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let (container_id, ifname) = name.strip_prefix(TEMPORARY)?.split_once(':')?;
            Some(AttachmentId::new(container_id, ifname))
        };
        names.filter_map(id).collect()
    }

    /// How many attachments there are. Reads none of them.
    pub fn count_attachments(&self) -> Result<usize> {
        let directory = self.attachments_dir();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            entries => entries.with_context(|| format!("{}: read", directory.display()))?,
        };
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        let whole = names.filter(|name| !name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()));
        Ok(whole.count())
    }

    /// Writes an attachment down, new or changed.
    pub fn save_attachment(&self, attachment: &Attachment) -> Result<()> {
        let path = self.attachment_path(&attachment.container_id, &attachment.ifname);
        let is_missing = |error: &anyhow::Error| {
            let cause = error.downcast_ref::<std::io::Error>();
            cause.is_some_and(|error| error.kind() == ErrorKind::NotFound)
        };
        match write(&path, attachment) {
            Err(error) if is_missing(&error) => {
                directory::make(&self.attachments_dir())?;
                write(&path, attachment)
            }
            written => written,
        }
    }

    /// Writes down why a pod takes the slow path, or that it does not any more.
    pub fn save_slow(&self, attachment: &Attachment) -> Result<()> {
        let (container_id, ifname) = (&attachment.container_id, &attachment.ifname);
        let path = self.slow_path(container_id, ifname);
        let Some(reason) = &attachment.slow else {
            return remove(&path);
        };
        directory::make(&self.root.join("slow"))?;
        write(&path, reason)?;
        // A DEL may have come first.
        if !self.attachment_path(container_id, ifname).exists() {
            remove(&path)?;
        }
        Ok(())
    }

    /// The directory with a file an attachment, named `<container ID>:<ifname>`.
    pub(super) fn attachments_dir(&self) -> PathBuf {
        self.root.join("attachments")
    }

    /// When an attachment's record was last written: at its ADD, or when it changed its path. `None` if it is gone.
    pub fn recorded(&self, id: &AttachmentId) -> Option<SystemTime> {
        let path = self.attachment_path(&id.container_id, &id.ifname);
        fs::metadata(path).and_then(|file| file.modified()).ok()
    }

    /// Makes the directory of attachments, which the first ADD does else.
    pub(super) fn ensure_attachments_dir(&self) -> Result<()> {
        directory::make(&self.attachments_dir())
    }

    /// When an attachment last came or went; `None` if the network is gone.
    pub fn attachments_changed(&self) -> Option<SystemTime> {
        let directory = fs::metadata(self.attachments_dir()).ok()?;
        directory.modified().ok()
    }

    /// Forgets an attachment; not there is success.
    pub fn remove_attachment(&self, container_id: &str, ifname: &str) -> Result<()> {
        remove(&self.mac_path(container_id, ifname))?;
        remove(&self.slow_path(container_id, ifname))?;
        remove(&self.attachment_path(container_id, ifname))
    }

    fn with_slow(&self, attachment: Attachment) -> Result<Attachment> {
        let path = self.slow_path(&attachment.container_id, &attachment.ifname);
        let given = self.mac_path(&attachment.container_id, &attachment.ifname);
        Ok(Attachment {
            mac: read(&given)?.unwrap_or(attachment.mac),
            slow: read(&path)?,
            ..attachment
        })
    }

    /// Whether a pod is on the plain bridge only until the watch takes it onto the fast path.
    pub fn is_joining(&self, container_id: &str, ifname: &str) -> Result<bool> {
        let attachment = self.attachment(container_id, ifname)?;
        let record = self.record();
        Ok(attachment.is_some_and(|a| a.waits()) && record.is_some_and(|r| r.is_fast()))
    }

    /// Removes the whole store, which nobody else may be using: `lock` is the exclusive one. What is not of the store
    /// stays, and so does the directory then.
    pub fn remove(&self, lock: Lock) -> Result<()> {
        for directory in ["attachments", "slow", "macs", "ipam"].map(|name| self.root.join(name)) {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                remove(&entry.path())?;
            }
            let _ = fs::remove_dir(directory);
        }
        // What a write that was killed has left.
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TEMPORARY.as_bytes())
            {
                remove(&entry.path())?;
            }
        }
        // The lock last: whoever waits for it looks whether it is still there.
        for file in ["node.json", "watch", "monitor.lock", "agent.lock", "lock"] {
            remove(&self.root.join(file))?;
        }
        let _ = fs::remove_dir(&self.root);
        // The directory that all networks share goes with the last of them.
        if let Some(shared) = self.root.parent() {
            let _ = fs::remove_dir(shared);
        }
        drop(lock);
        Ok(())
    }

    fn attachment_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        let name = file_name(container_id, ifname);
        self.attachments_dir().join(name)
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

fn remove(path: &Path) -> Result<()> {
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
            let path = disk.join(CLUSTER);
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
