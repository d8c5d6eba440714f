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

mod attachments;
mod files;
mod locks;
mod record;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use ipnetwork::IpNetwork;

use self::{
    attachments::DIRECTORIES,
    files::{TEMPORARY, read, remove, write},
};
pub use self::{locks::Lock, record::Record};
use super::{Plan, cluster::Cluster};

/// The files of one network.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

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
        match read(&self.record_file()) {
            // Another version's.
            Err(error) if !error.is::<std::io::Error>() => Ok(None),
            record => record,
        }
    }

    /// Whether the node was set up since boot, by whichever version.
    pub(super) fn is_set_up(&self) -> bool {
        fs::exists(self.record_file()).unwrap_or(true)
    }

    fn record_file(&self) -> PathBuf {
        self.root.join("node.json")
    }

    /// Remembers how the node was set up.
    pub fn save_record(&self, record: &Record) -> Result<()> {
        write(&self.record_file(), record)
    }

    /// What an agent knows of the cluster; `None` without one, or if the file is not this version's.
    pub fn cluster(&self) -> Option<Cluster> {
        read(&self.cluster_file()).ok().flatten()
    }

    /// Whether an agent keeps the peers, unless the configuration names them.
    pub fn is_clustered(&self) -> bool {
        self.cluster_file().exists()
    }

    /// Where it is kept what an agent knows of the cluster.
    pub fn cluster_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Writes down what an agent knows of the cluster.
    pub(super) fn save_cluster(&self, cluster: &Cluster) -> Result<()> {
        write(&self.cluster_file(), cluster)
    }

    /// Has the configuration name the peers from now on, as before there was an agent.
    pub fn forget_cluster(&self) -> Result<()> {
        remove(&self.cluster_file())
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

    /// Removes the whole store, which nobody else may be using: `lock` is the exclusive one. What is not of the store
    /// stays, and so does the directory then.
    pub fn remove(&self, lock: Lock) -> Result<()> {
        for directory in DIRECTORIES.into_iter().chain(["ipam"]) {
            let directory = self.root.join(directory);
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
}
