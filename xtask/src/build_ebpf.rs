//! `build-ebpf`: compiles and links the BPF programs into one object for the plugin to embed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bpf_linker::{self, Linker};
use crate::bpf_rustc::{self, Choice, TARGET};
use crate::files::replace;
use crate::process::{self, say};
use crate::workspace;

/// BTF is made from debug info, and the linker optimises all crates at once, from their bitcode.
///
/// Every kernel that beeline supports has the v3 instructions. Headers lie at even addresses, not at multiples of four:
/// without misaligned access LLVM loads them byte by byte, and the programs are a quarter longer.
const RUSTFLAGS: [&str; 6] = [
    "-Ctarget-cpu=v3",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    "-Clink-arg=--btf",
    "-Cdebuginfo=2",
    "-Clinker-plugin-lto",
    "-Cembed-bitcode=yes",
];

/// Builds the object and returns its path.
pub(crate) fn run() -> Result<PathBuf> {
    let (choice, linker) = toolchain()?;
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

/// Returns a compiler and a linker that go together, and installs what is missing.
pub(crate) fn toolchain() -> Result<(Choice, Linker)> {
    let choices = bpf_rustc::choices()?;
    // One that is complete comes before one that is not: no apt-get runs that need not.
    let complete = |choice: &Choice| Some((choice.clone(), bpf_linker::find(choice.rustc.llvm)?));
    if let Some(toolchain) = choices.iter().find_map(complete) {
        return Ok(toolchain);
    }
    for choice in choices {
        match bpf_linker::install(choice.rustc.llvm) {
            Ok(linker) => return Ok((choice, linker)),
            Err(error) if choice.is_final() => return Err(error),
            Err(error) => say(&format!("passing over {choice}: {error:#}")),
        }
    }
    let choice = bpf_rustc::install()?;
    let llvm = choice.rustc.llvm;
    let linker = bpf_linker::find(llvm).map_or_else(|| bpf_linker::install(llvm), Ok)?;
    Ok((choice, linker))
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
