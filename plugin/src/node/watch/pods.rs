//! Which pods there are, and word of those that come.

use std::{collections::HashMap, fs};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use inotify::{EventMask, EventStream, Inotify, WatchMask};

use crate::{ipam::AttachmentId, node::Store};

/// Room for some dozens of events.
const BUFFER: usize = 4096;

/// The pods of a network, as far as their records have been read.
pub(super) struct Pods<'a> {
    store: &'a Store,
    events: EventStream<[u8; BUFFER]>,
    by_ifindex: HashMap<u32, AttachmentId>,
    /// Those that may wait for the fast path.
    pub(super) new: Vec<AttachmentId>,
}

impl<'a> Pods<'a> {
    /// Reads all records, within a runtime: pods that come after this returns are not missed.
    pub(super) fn open(store: &'a Store) -> Result<Self> {
        let directory = store.attachments_dir();
        let subscribe = || {
            let inotify = Inotify::init()?;
            // Records are renamed to their names when they are whole.
            let what = WatchMask::MOVED_TO | WatchMask::ONLYDIR;
            inotify.watches().add(&directory, what)?;
            inotify.into_event_stream([0; BUFFER])
        };
        let events = subscribe().with_context(|| format!("{}: watch", directory.display()))?;
        let mut pods = Self {
            store,
            events,
            by_ifindex: HashMap::new(),
            new: Vec::new(),
        };
        pods.read_all()?;
        Ok(pods)
    }

    /// The pod behind a host veth.
    pub(super) fn behind(&self, ifindex: u32) -> Option<&AttachmentId> {
        self.by_ifindex.get(&ifindex)
    }

    /// All pods.
    pub(super) fn all(&self) -> impl Iterator<Item = &AttachmentId> {
        self.by_ifindex.values()
    }

    /// A host veth is gone.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.by_ifindex.remove(&ifindex);
    }

    /// Waits until a pod has come or a record has changed.
    ///
    /// # Errors
    ///
    /// The network is gone.
    pub(super) async fn changed(&mut self) -> Result<()> {
        let event = self.events.next().await.context("inotify: ended")?;
        let event = event.context("inotify: read")?;
        if event.mask.contains(EventMask::IGNORED) {
            bail!("{}: gone", self.store.attachments_dir().display());
        }
        match event.name {
            Some(name) => self.read(&name.to_string_lossy()),
            // More came than the kernel keeps.
            None => self.read_all()?,
        }
        Ok(())
    }

    fn read_all(&mut self) -> Result<()> {
        let directory = self.store.attachments_dir();
        let context = || format!("{}: read", directory.display());
        for entry in fs::read_dir(&directory).with_context(context)? {
            let name = entry.with_context(context)?.file_name();
            self.read(&name.to_string_lossy());
        }
        Ok(())
    }

    /// Takes note of a record; one that is gone already, is not whole or cannot be read, is nothing to care for.
    fn read(&mut self, name: &str) {
        let id = name.split_once(':').filter(|_| !name.starts_with('.'));
        let Some((container_id, ifname)) = id else {
            return;
        };
        let Ok(Some(attachment)) = self.store.attachment(container_id, ifname) else {
            return;
        };
        let id = AttachmentId::new(container_id, ifname);
        if attachment.waits() && !self.new.contains(&id) {
            self.new.push(id.clone());
        }
        self.by_ifindex.insert(attachment.ifindex, id);
    }
}
