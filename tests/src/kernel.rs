//! The kernel that tests run on: how new it is, and what tests tell of how the plugin works there.

use std::fs::OpenOptions;
use std::io::Write;

use nix::sys::utsname::uname;

/// Names the file that [`note`] writes to, a line each: `<what>\t<how>`; `cargo xtask vm` makes a table of them.
pub const VARIABLE: &str = "BEELINE_FACTS";

/// Whether the kernel is of that version or newer.
pub fn is_since(major: u32, minor: u32) -> bool {
    let uname = uname().expect("uname");
    version(&uname.release().to_string_lossy()) >= (major, minor)
}

/// Why a test is skipped that needs [tcx](has_tcx).
pub const NO_TCX: &str = "this kernel is older than 6.6, which brought tcx";

/// Whether the kernel has tcx (commit e420bed025071a623d2720a92bc2245c84757ecb).
pub fn has_tcx() -> bool {
    is_since(6, 6)
}

/// Tells how the plugin does something on this kernel.
pub fn note(what: &str, how: &str) {
    let Some(path) = std::env::var_os(VARIABLE) else {
        return;
    };
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(path);
    let line = format!("{what}\t{how}\n");
    // One write, as other tests write too.
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("note: write");
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("5.10.0-46-amd64"), (5, 10));
        assert_eq!(version("7.2.13+deb14-amd64"), (7, 2));
        assert_eq!(version("6.18-rc1"), (6, 18));
        assert!(version("6.12.1") > (6, 6) && version("6.1.9") < (6, 6));
    }
}
