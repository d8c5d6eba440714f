//! Tests that cannot run on this kernel say why, so that `cargo xtask test` counts them as skipped and not as passed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::thread;

/// Names the file that skips are written to, a line each: `<test>\t<reason>`.
pub const VARIABLE: &str = "BEELINE_SKIPS";

/// Says that the calling test is skipped, and why; the test shall return after it.
///
/// # Panics
///
/// It is called on another thread than the test's own, whose name is not that of a test, or cannot write.
#[track_caller]
pub fn skip(reason: &str) {
    let thread = thread::current();
    let test = thread.name().expect("skip: not on the thread of a test");
    if let Some(file) = std::env::var_os(VARIABLE) {
        append(Path::new(&file), test, reason).expect("skip: write");
    }
    eprintln!("skipped: {reason}");
}

/// Writes one line at once, as other tests write to the same file.
fn append(file: &Path, test: &str, reason: &str) -> io::Result<()> {
    let reason = reason.replace(['\n', '\t'], " ");
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{test}\t{reason}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_skip_is_a_line_of_the_test_and_its_reason() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("skips");
        append(&file, "a::b", "no VLAN\nfiltering").expect("first");
        append(&file, "c", "no tcx").expect("second");
        let text = fs::read_to_string(&file).expect("file");
        assert_eq!(text, "a::b\tno VLAN filtering\nc\tno tcx\n");
    }

    #[test]
    fn a_thread_without_a_name_cannot_skip_a_test() {
        let skipped = thread::spawn(|| skip("never written")).join();
        assert!(skipped.is_err());
    }
}
