//! File systems that exist as long as their owner, to fill or to make read-only.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// What fills one up.
const BALLAST: &str = "ballast";

/// A file system in memory over a directory; what the directory had is back on drop.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one of a size, and with a number of inodes.
    pub fn over(directory: &Path, kilobytes: u32, inodes: u32) -> Result<Self> {
        let options = format!("size={kilobytes}k,nr_inodes={inodes},mode=0700");
        let kind = Some("tmpfs");
        mount(kind, directory, kind, MsFlags::empty(), Some(&*options))
            .with_context(|| format!("{}: mount", directory.display()))?;
        Ok(Self(directory.to_owned()))
    }

    /// Mounts one for pins instead, which has room for all.
    pub fn of_pins_over(directory: &Path) -> Result<Self> {
        let kind = Some("bpf");
        mount(kind, directory, kind, MsFlags::empty(), None::<&str>)
            .with_context(|| format!("{}: mount", directory.display()))?;
        Ok(Self(directory.to_owned()))
    }

    /// Writes until there is no byte left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.0.join(BALLAST))?;
        loop {
            match file.write_all(&[0; 4096]) {
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                written => written?,
            }
        }
    }

    /// Makes files until there is no inode left.
    pub fn fill_inodes(&self) -> Result<()> {
        fs::create_dir(self.0.join(BALLAST))?;
        for number in 0.. {
            match File::create(self.0.join(BALLAST).join(number.to_string())) {
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                made => made.map(drop)?,
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub fn empty(&self) -> Result<()> {
        let ballast = self.0.join(BALLAST);
        match ballast.is_dir() {
            true => fs::remove_dir_all(ballast)?,
            false => fs::remove_file(ballast)?,
        }
        Ok(())
    }

    /// Lets nobody write to it, or all again.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let flag = match read_only {
            true => MsFlags::MS_RDONLY,
            false => MsFlags::empty(),
        };
        let none = None::<&str>;
        mount(none, &self.0, none, MsFlags::MS_REMOUNT | flag, none)
            .with_context(|| format!("{}: remount", self.0.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
