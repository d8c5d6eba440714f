//! Whether there is room for files.

use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

/// Why no file can be written to a directory, or to the one above it that is there; none if one can, as far as can be told
/// without writing one.
pub(crate) fn shortage(directory: &Path) -> Option<&'static str> {
    let existing = directory.ancestors().find(|path| path.exists())?;
    let found = statvfs(existing).ok()?;
    // File systems that make room for as many files as come, or are of no size, say 0 of both.
    let used_up = |all, free| all > 0 && free == 0;
    if found.flags().contains(FsFlags::ST_RDONLY) {
        Some("read-only file system")
    } else if used_up(found.blocks(), found.blocks_free()) {
        Some("no space left on device")
    } else if used_up(found.files(), found.files_free()) {
        Some("no inode left on device")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_is_full_by_nature_and_one_with_room_are_told_apart() {
        assert_eq!(shortage(Path::new("/proc/no/such/directory")), None);
        assert_eq!(
            shortage(&std::env::temp_dir().join("no-such-directory")),
            None
        );
    }
}
