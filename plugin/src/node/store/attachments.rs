//! The records of attachments, and what has been learnt of them since.

use std::{fs, io::ErrorKind, path::PathBuf, time::SystemTime};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    super::{Attachment, directory},
    Store,
    files::{TEMPORARY, read, remove, write},
};
use crate::ipam::AttachmentId;

const ATTACHMENTS: &str = "attachments";
const SLOW: &str = "slow";
const MACS: &str = "macs";

/// The directories with a file an attachment.
pub(super) const DIRECTORIES: [&str; 3] = [ATTACHMENTS, SLOW, MACS];

impl Store {
    /// Writes down the MAC that a pod's interface was given.
    pub fn save_mac(&self, attachment: &Attachment) -> Result<()> {
        self.save_learnt(MACS, attachment, &attachment.mac)
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
        let mut attachments: Vec<Attachment> = self
            .attachment_files()?
            .filter_map(|path| read(&path).ok().flatten())
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
        Ok(self.attachment_files()?.count())
    }

    /// The files of attachments that are whole; none without a directory of them.
    fn attachment_files(&self) -> Result<impl Iterator<Item = PathBuf>> {
        let directory = self.attachments_dir();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            entries => Some(entries.with_context(|| format!("{}: read", directory.display()))?),
        };
        let names = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name()));
        let whole = names.filter(|name| !name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()));
        Ok(whole.map(move |name| directory.join(name)))
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
        match &attachment.slow {
            Some(reason) => self.save_learnt(SLOW, attachment, reason),
            None => remove(&self.path(SLOW, &attachment.container_id, &attachment.ifname)),
        }
    }

    /// Writes down what has been learnt of a pod since its ADD.
    fn save_learnt(
        &self,
        directory: &str,
        attachment: &Attachment,
        what: &impl Serialize,
    ) -> Result<()> {
        let (container_id, ifname) = (&attachment.container_id, &attachment.ifname);
        let path = self.path(directory, container_id, ifname);
        directory::make(&self.root.join(directory))?;
        write(&path, what)?;
        // A DEL may have come first.
        if !self.attachment_path(container_id, ifname).exists() {
            remove(&path)?;
        }
        Ok(())
    }

    /// The directory with a file an attachment, named `<container ID>:<ifname>`.
    pub(in crate::node) fn attachments_dir(&self) -> PathBuf {
        self.root.join(ATTACHMENTS)
    }

    /// When an attachment's record was last written: at its ADD, or when it changed its path. `None` if it is gone.
    pub fn recorded(&self, id: &AttachmentId) -> Option<SystemTime> {
        let path = self.attachment_path(&id.container_id, &id.ifname);
        fs::metadata(path).and_then(|file| file.modified()).ok()
    }

    /// Makes the directory of attachments, which the first ADD does else.
    pub(in crate::node) fn ensure_attachments_dir(&self) -> Result<()> {
        directory::make(&self.attachments_dir())
    }

    /// When an attachment last came or went; `None` if the network is gone.
    pub fn attachments_changed(&self) -> Option<SystemTime> {
        let directory = fs::metadata(self.attachments_dir()).ok()?;
        directory.modified().ok()
    }

    /// Forgets an attachment; not there is success.
    pub fn remove_attachment(&self, container_id: &str, ifname: &str) -> Result<()> {
        remove(&self.path(MACS, container_id, ifname))?;
        remove(&self.path(SLOW, container_id, ifname))?;
        remove(&self.attachment_path(container_id, ifname))
    }

    fn with_slow(&self, attachment: Attachment) -> Result<Attachment> {
        let path = |directory| self.path(directory, &attachment.container_id, &attachment.ifname);
        let (given, slow) = (read(&path(MACS))?, read(&path(SLOW))?);
        Ok(Attachment {
            mac: given.unwrap_or(attachment.mac),
            slow,
            ..attachment
        })
    }

    /// Whether a pod is on the plain bridge only until the watch takes it onto the fast path.
    pub fn is_joining(&self, container_id: &str, ifname: &str) -> Result<bool> {
        let attachment = self.attachment(container_id, ifname)?;
        let record = self.record();
        Ok(attachment.is_some_and(|a| a.waits()) && record.is_some_and(|r| r.is_fast()))
    }

    pub(super) fn attachment_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        self.path(ATTACHMENTS, container_id, ifname)
    }

    fn path(&self, directory: &str, container_id: &str, ifname: &str) -> PathBuf {
        // A colon can be in neither of them.
        let name = format!("{container_id}:{ifname}");
        self.root.join(directory).join(name)
    }
}
