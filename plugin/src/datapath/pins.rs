//! Where the datapath of a network is pinned.
//!
//! ```text
//! <bpffs>/beeline/<network>/
//!     maps-2/PODS PEERS PREFIXES STATS …  the 2 is ABI_VERSION
//!     programs-2/from_pod from_uplink …
//!     links/from_pod-12 from_uplink-3 …   tcx: one for each interface, by index
//!     filters/from_pod-12 …               clsact: the program, to say that it is attached there
//!     qdiscs/12 …                         a program, to say that the interface's clsact qdisc is of this network's making
//! ```

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use beeline_common::{ABI_VERSION, Hook};

use super::bpffs;

/// The directory of a network's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins of `network` below the bpffs directory; nothing is looked at or made.
    pub fn new(bpffs: &Path, network: &str) -> Self {
        // bpffs reserves names with dots; `%` is in no network's name, so that names stay different.
        let directory = network.replace('.', "%");
        Self {
            root: bpffs.join("beeline").join(directory),
        }
    }

    /// Those of the other networks that are pinned on the same file system.
    pub(super) fn others(&self) -> impl Iterator<Item = Self> {
        let all = self.root.parent().map(fs::read_dir);
        let roots = all.into_iter().flatten().flatten().flatten();
        let others = roots.map(|entry| entry.path());
        others
            .filter(|root| *root != self.root)
            .map(|root| Self { root })
    }

    /// Everything of this network.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join(format!("maps-{ABI_VERSION}"))
    }

    /// The map of that name.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The program of a hook.
    pub fn program(&self, hook: Hook) -> PathBuf {
        self.programs().join(hook.name())
    }

    /// The link of a hook to an interface.
    pub fn link(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.links().join(format!("{}-{ifindex}", hook.name()))
    }

    /// What says that a program is attached to an interface by clsact.
    pub fn filter(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.filters().join(format!("{}-{ifindex}", hook.name()))
    }

    /// What says that an interface's clsact qdisc was added for this network.
    pub(super) fn qdisc(&self, ifindex: u32) -> PathBuf {
        self.qdiscs().join(ifindex.to_string())
    }

    /// Where programs are attached by tcx.
    pub(super) fn linked(&self) -> Result<Vec<(Hook, u32)>> {
        places(&self.links())
    }

    /// Where programs are attached by clsact.
    pub(super) fn filtered(&self) -> Result<Vec<(Hook, u32)>> {
        places(&self.filters())
    }

    fn programs(&self) -> PathBuf {
        self.root.join(format!("programs-{ABI_VERSION}"))
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    fn filters(&self) -> PathBuf {
        self.root.join("filters")
    }

    fn qdiscs(&self) -> PathBuf {
        self.root.join("qdiscs")
    }

    /// The directories of this version.
    fn current(&self) -> [PathBuf; 5] {
        [
            self.maps(),
            self.programs(),
            self.links(),
            self.filters(),
            self.qdiscs(),
        ]
    }

    /// Makes the directories.
    pub(super) fn create(&self) -> Result<()> {
        for directory in self.current() {
            bpffs::make_directory(&directory)?;
        }
        Ok(())
    }

    /// The other versions of the ABI that there are maps or programs of.
    pub fn other_versions(&self) -> Result<Vec<String>> {
        let current = self.current();
        let mut others: Vec<String> = children(&self.root)?
            .iter()
            .filter(|directory| !current.contains(directory))
            .filter_map(|directory| {
                let (_, version) = directory.file_name()?.to_str()?.rsplit_once('-')?;
                Some(version.to_owned())
            })
            .collect();
        others.sort_unstable();
        others.dedup();
        Ok(others)
    }

    /// The pins of every network that has any on a bpffs.
    pub fn all(bpffs: &Path) -> Result<Vec<Self>> {
        let roots = children(&bpffs.join("beeline"))?;
        Ok(roots.into_iter().map(|root| Self { root }).collect())
    }

    /// Removes the programs and maps of other versions of the ABI, which nothing runs or reads any more.
    pub(super) fn remove_other_versions(&self) -> Result<()> {
        let current = self.current();
        for directory in children(&self.root)? {
            if current.contains(&directory) {
                continue;
            }
            for pin in children(&directory)? {
                remove_pin(&pin)?;
            }
            remove_directory(&directory)?;
        }
        Ok(())
    }

    /// Removes every pin: links first, so that no program runs without its maps. What is gone is fine.
    pub(super) fn remove(&self) -> Result<()> {
        let mut directories = vec![self.links()];
        directories.extend(children(&self.root)?);
        for directory in directories {
            for pin in children(&directory)? {
                remove_pin(&pin)?;
            }
            remove_directory(&directory)?;
        }
        remove_directory(&self.root)?;
        // The directory that all networks share goes with the last of them.
        if let Some(shared) = self.root.parent() {
            let _ = fs::remove_dir(shared);
        }
        Ok(())
    }
}

/// Removes a pin; already gone is success.
pub(super) fn remove_pin(path: &Path) -> Result<()> {
    gone_is_fine(fs::remove_file(path)).with_context(|| format!("{}: remove", path.display()))
}

/// The hooks and interface indices that the names of a directory's pins say.
fn places(directory: &Path) -> Result<Vec<(Hook, u32)>> {
    let place = |path: PathBuf| {
        let (name, ifindex) = path.file_name()?.to_str()?.rsplit_once('-')?;
        let hook = Hook::ALL.into_iter().find(|hook| hook.name() == name)?;
        Some((hook, ifindex.parse().ok()?))
    };
    Ok(children(directory)?.into_iter().filter_map(place).collect())
}

fn remove_directory(path: &Path) -> Result<()> {
    gone_is_fine(fs::remove_dir(path)).with_context(|| format!("{}: remove", path.display()))
}

fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("{}: read", directory.display()))?,
    };
    entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()
        .with_context(|| format!("{}: read", directory.display()))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_whose_names_differ_in_a_dot_have_pins_of_their_own() {
        let root = |network| Pins::new(Path::new("/sys/fs/bpf"), network).root;
        assert_eq!(root("a.b"), Path::new("/sys/fs/bpf/beeline/a%b"));
        assert_ne!(root("a.b"), root("a-b"));
    }
}
