//! Removing a network's files when the last of its addresses is given back for good.

use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{path, store::Store};

/// Removes the directory of a network unless an address is reserved in it; says how many are. What is not an
/// allocator's stays, and so does the directory then.
///
/// The lock goes too, which is a race with allocators that wait for it: nobody may allocate any more.
pub fn remove(data_dir: &Path, network: &str) -> Result<usize> {
    let Some(store) = Store::open(data_dir, network)? else {
        return Ok(0);
    };
    let locked = store.lock(None)?;
    let reserved = locked.clear()?;
    if reserved > 0 {
        return Ok(reserved);
    }
    let parent = path::open_dir(data_dir).with_context(|| data_dir.display().to_string())?;
    match unlinkat(parent, network, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(0),
        Err(errno) => {
            let path = data_dir.join(network);
            Err(errno).with_context(|| format!("{}: remove", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_without_addresses_goes_with_what_allocators_keep_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let network = folder.path().join("pods");
        fs::create_dir(&network).unwrap();
        for name in [
            "lock",
            "last_reserved_ip.0",
            "last_reserved_ip.1",
            ".beeline.tmp",
        ] {
            fs::write(network.join(name), "").unwrap();
        }
        assert_eq!(remove(folder.path(), "pods").unwrap(), 0);
        assert!(!network.exists() && folder.path().exists());
        assert_eq!(remove(folder.path(), "pods").unwrap(), 0, "once more");
    }

    #[test]
    fn a_directory_with_addresses_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let network = folder.path().join("pods");
        fs::create_dir(&network).unwrap();
        for name in ["lock", "last_reserved_ip.0", "10.1.0.2"] {
            fs::write(network.join(name), "pod\r\neth0").unwrap();
        }
        assert_eq!(remove(folder.path(), "pods").unwrap(), 1);
        assert_eq!(fs::read_dir(&network).unwrap().count(), 3);
    }

    #[test]
    fn what_is_nobodys_stays() {
        let folder = tempfile::tempdir().unwrap();
        let network = folder.path().join("pods");
        fs::create_dir(&network).unwrap();
        fs::write(network.join("notes"), "").unwrap();
        assert_eq!(remove(folder.path(), "pods").unwrap(), 0);
        assert!(network.join("notes").exists());
    }
}
