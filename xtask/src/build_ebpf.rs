//! `build-ebpf`: compiles and links the BPF programs into one object for the plugin to embed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bpf_linker;
use crate::bpf_rustc::{self, TARGET};
use crate::files::replace;
use crate::process::{self, say};
use crate::workspace;

/// BTF is made from debug info, and the linker optimises all crates at once, from their bitcode.
const RUSTFLAGS: [&str; 4] = [
    "-Clink-arg=--btf",
    "-Cdebuginfo=2",
    "-Clinker-plugin-lto",
    "-Cembed-bitcode=yes",
];

/// Builds the object and returns its path.
pub(crate) fn run() -> Result<PathBuf> {
    let choice = bpf_rustc::find()?;
    let linker = bpf_linker::find(choice.rustc.llvm)?;
    say(&format!("BPF programs: {choice}, with {linker}"));

    let folder = workspace::target().join("bpf");
    let mut cargo = choice.cargo("build");
    cargo
        .args(["--profile", "bpf", "--target-dir"])
        .arg(&folder);
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker.path);
    // The encoded form wins over a RUSTFLAGS of the user's, which would drop these.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    process::run(&mut cargo)?;

    let object = folder.join("beeline-ebpf.o");
    publish(&folder.join(TARGET).join("bpf/beeline-ebpf"), &object)?;
    Ok(object)
}

/// Puts `built` in place by renaming; an equal object is left alone, so that nothing depending on it is rebuilt.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("{}: read", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    replace(object, &mut bytes.as_slice(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_object_keeps_its_age_and_another_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (built, object) = (dir.path().join("built"), dir.path().join("object.o"));
        fs::write(&built, "one").unwrap();
        publish(&built, &object).unwrap();
        let first = fs::metadata(&object).unwrap().modified().unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), first);
        fs::write(&built, "two").unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(fs::read_to_string(&object).unwrap(), "two");
    }
}
