//! The records of attachments, and what has been learnt of them since.

use std::{fs, io::ErrorKind, path::PathBuf, time::SystemTime};

use anyhow::{Context as _, Result};

use super::{
    super::{Attachment, directory},
    Store,
    files::{TEMPORARY, read, remove, write},
};
use crate::ipam::AttachmentId;

impl Store {
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
    pub(in crate::node) fn attachments_dir(&self) -> PathBuf {
        self.root.join("attachments")
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

    pub(super) fn attachment_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        let name = file_name(container_id, ifname);
        self.attachments_dir().join(name)
    }

    fn slow_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        let name = file_name(container_id, ifname);
        self.root.join("slow").join(name)
    }
}

fn file_name(container_id: &str, ifname: &str) -> String {
    // A colon can be in neither of them.
    format!("{container_id}:{ifname}")
}
