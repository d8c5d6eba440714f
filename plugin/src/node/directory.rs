//! Directories that nobody else can write to.

use std::{
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;

/// Makes a directory and those above it that are missing, with mode 0700.
///
/// # Errors
///
/// Others could replace a part of the path, and so have files written and removed elsewhere: it is a symbolic link, of
/// another owner, or writable by others.
pub fn make(path: &Path) -> Result<()> {
    let parts: Vec<_> = path.ancestors().collect();
    for part in parts.into_iter().rev() {
        match fs::symlink_metadata(part) {
            Ok(found) => check(part, &found)?,
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error).with_context(|| format!("{}: stat", part.display())),
        }
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("{}: create", path.display()))
}

fn check(part: &Path, found: &Metadata) -> Result<()> {
    let part = part.display();
    ensure!(found.is_dir(), "{part}: is no directory");
    let own = Uid::effective();
    ensure!(
        own.is_root() || found.uid() != 0,
        "{part}: belongs to root, and this is not run by root but by user {own}"
    );
    ensure!(
        found.uid() == own.as_raw(),
        "{part}: belongs to user {}, who could replace what is in it",
        found.uid()
    );
    let others = found.mode() & 0o002 != 0 || found.mode() & 0o020 != 0 && found.gid() != 0;
    ensure!(
        !others,
        "{part}: others can write to it, mode {:o}",
        found.mode() & 0o7777
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        make(path).unwrap_err().to_string()
    }

    #[test]
    fn what_others_can_write_to_is_refused() {
        let error = refusal(Path::new("/tmp/beeline-never-made/network"));
        assert!(error.starts_with("/tmp: others can write to it"), "{error}");
        assert!(!Path::new("/tmp/beeline-never-made").exists());
    }

    #[test]
    fn a_file_in_the_way_is_refused() {
        let error = refusal(Path::new("/etc/passwd/network"));
        assert_eq!(error, "/etc/passwd: is no directory");
    }

    #[test]
    fn modes_of_the_group_count_unless_it_is_roots() {
        let folder = tempfile::tempdir().unwrap();
        let with_mode = |mode| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            check(folder.path(), &fs::symlink_metadata(folder.path()).unwrap())
        };
        with_mode(0o755).unwrap();
        assert!(with_mode(0o777).is_err());
        assert!(with_mode(0o1777).is_err());
        let link = folder.path().join("link");
        symlink("/run", &link).unwrap();
        let found = fs::symlink_metadata(&link).unwrap();
        assert!(check(&link, &found).is_err());
    }
}
