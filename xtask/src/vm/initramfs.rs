//! The archive that a kernel boots with: busybox, a few modules, and a script that mounts the host's root.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::modules;

/// What mounting the host's root takes, and a source of random numbers, without which programs wait for one.
const MODULES: [&str; 5] = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_rng"];

/// Where modules are in the archive, in the order in which they are loaded.
const FOLDER: &str = "modules";

/// The kinds of `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Writes the archive for the modules in `modules`; `busybox` needs no libraries.
pub(super) fn write(to: &Path, modules: &Path, busybox: &Path, init: &str) -> Result<()> {
    let mut archive = Archive::default();
    for folder in ["bin", "proc", "sys", "dev", FOLDER] {
        archive.add(folder, DIRECTORY, &[]);
    }
    archive.add("bin/busybox", PROGRAM, &read(busybox)?);
    archive.add("init", PROGRAM, init.as_bytes());
    let dep = fs::read_to_string(modules.join("modules.dep")).context("modules.dep")?;
    for (number, path) in modules::in_order(&dep, &MODULES).into_iter().enumerate() {
        let module = plain(&modules.join(path))?;
        archive.add(&format!("{FOLDER}/{number:03}.ko"), PROGRAM, &module);
    }
    fs::write(to, archive.finish()).with_context(|| to.display().to_string())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// A module as the kernel takes it: not all kernels take compressed ones.
fn plain(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return read(path),
    };
    let output = Command::new(program).arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("{program}: start"))?;
    ensure!(
        output.status.success(),
        "{program} -dc {}: {}",
        path.display(),
        output.status
    );
    Ok(output.stdout)
}

/// An archive in cpio's "newc" format, of which the kernel's documentation says all
/// (`Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inodes += 1;
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        // inode, mode, uid, gid, links, time, size, device, special device (two numbers each), name's size, checksum
        let fields = [
            self.inodes,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_are_aligned() {
        let mut archive = Archive::default();
        archive.add("a", DIRECTORY, b"");
        archive.add("bc", PROGRAM, b"12345");
        let bytes = archive.finish();
        // 110 bytes of header and "a\0"; as many and "bc\0", and 3 bytes up to the next multiple of 4.
        for (start, expected) in [
            (0, &b"070701"[..]),
            (110, b"a\x00070701"),
            (222, b"bc\0\0\0\x0012345\0\0\x00070701"),
        ] {
            assert_eq!(&bytes[start..start + expected.len()], expected);
        }
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
    }
}
