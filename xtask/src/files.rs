//! Files put in place whole.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// Writes a file beside `path` and renames it, so that no one ever runs or reads half of it.
pub(crate) fn replace(path: &Path, content: &mut impl Read, mode: u32) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| format!("{}: create", folder.display()))?;
    let shown = path.display();
    // Container runtimes go by a configuration's ending, and so do not take up the temporary file.
    let mut file = tempfile::Builder::new()
        .prefix(".beeline-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)
        .with_context(|| format!("{}: create a file in it", folder.display()))?;
    write(&mut file, content, mode).with_context(|| format!("{shown}: write"))?;
    file.persist(path)
        .with_context(|| format!("{shown}: replace"))?;
    Ok(())
}

fn write(file: &mut NamedTempFile, content: &mut impl Read, mode: u32) -> io::Result<()> {
    io::copy(content, file)?;
    // The mode at creation was cut by the umask.
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_with_their_mode_and_nothing_is_left_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bin/beeline");
        replace(&path, &mut b"old".as_slice(), 0o644).unwrap();
        replace(&path, &mut b"new".as_slice(), 0o755).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o755
        );
        assert_eq!(fs::read_dir(dir.path().join("bin")).unwrap().count(), 1);
    }
}
