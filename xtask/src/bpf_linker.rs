//! The bpf-linker that links the BPF programs: the one on PATH if it does, else our own in target/tools.

use std::env;
use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::process::{self, say};
use crate::tools;
use crate::version::Version;

/// The oldest release that writes the BTF we need.
const OLDEST: Version = Version {
    major: 0,
    minor: 10,
};
/// The release we install.
const RELEASE: &str = "0.13.0";
/// The LLVMs that this release can be built with.
const LLVMS: RangeInclusive<u32> = 21..=23;

/// A linker, as far as linking BPF programs with it goes.
#[derive(Debug)]
pub(crate) struct Linker {
    /// The program.
    pub(crate) path: PathBuf,
    version: Version,
    /// The major version of its LLVM, where it can be told.
    llvm: Option<u32>,
}

/// Finds a linker that reads the bitcode of LLVM `llvm`.
pub(crate) fn find(llvm: u32) -> Option<Linker> {
    let paths = [packages::find("bpf-linker", &[]), Some(own())];
    paths
        .into_iter()
        .flatten()
        .find_map(|path| match Linker::probe(&path) {
            Ok(linker) => linker.filter(|linker| {
                let reason = linker.unfit(llvm);
                reason
                    .iter()
                    .for_each(|reason| say(&format!("passing over {linker}: {reason}")));
                reason.is_none()
            }),
            Err(error) => {
                say(&format!("passing over a bpf-linker: {error:#}"));
                None
            }
        })
}

/// Installs our own linker, of LLVM `llvm` or newer.
pub(crate) fn install(llvm: u32) -> Result<Linker> {
    compile(llvm)?;
    let linker = Linker::probe(&own())?;
    let linker =
        linker.with_context(|| format!("{}: not there after installing it", own().display()))?;
    match linker.unfit(llvm) {
        None => Ok(linker),
        Some(reason) => bail!("{linker}: {reason}"),
    }
}

fn own() -> PathBuf {
    tools::own("bpf-linker")
}

impl Linker {
    /// Looks at the program at `path`, if there is one.
    fn probe(path: &Path) -> Result<Option<Self>> {
        if !path.is_file() {
            return Ok(None);
        }
        let said = process::output(Command::new(path).arg("--version"))?;
        let version = said.split_whitespace().nth(1).and_then(Version::parse);
        let version = version.with_context(|| format!("{} --version: {said:?}", path.display()))?;
        let program = fs::read(path).with_context(|| format!("{}: read", path.display()))?;
        Ok(Some(Self {
            path: path.to_owned(),
            version,
            llvm: linked_llvm(&program),
        }))
    }

    /// Says why this linker does not do for rustc's LLVM, if so.
    fn unfit(&self, llvm: u32) -> Option<String> {
        if self.version < OLDEST {
            return Some(format!("older than {OLDEST}"));
        }
        // An older LLVM does not read a newer one's bitcode.
        let older = self.llvm.is_some_and(|own| own < llvm);
        older.then(|| format!("rustc has the newer LLVM {llvm}"))
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.version)?;
        self.llvm.map_or(Ok(()), |llvm| write!(f, " (LLVM {llvm})"))
    }
}

/// Finds the LLVM library's name in a program; a statically linked one has none.
fn linked_llvm(program: &[u8]) -> Option<u32> {
    let after = |name: &[u8]| {
        let mut found = program.windows(name.len()).enumerate();
        let at = found.find(|(_, window)| *window == name)?.0 + name.len();
        let digits = program[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let digits: String = digits.map(|&byte| char::from(byte)).collect();
        digits.parse().ok()
    };
    after(b"libLLVM.so.").or_else(|| after(b"libLLVM-"))
}

/// Builds our own linker, against the LLVM of LLVM_PREFIX or the distribution's.
fn compile(llvm: u32) -> Result<()> {
    let prefix = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let (llvm, prefix) = match prefix {
        Some(prefix) => (installed_llvm(&prefix)?, prefix),
        None => {
            let llvm = distribution_llvm(llvm)?;
            (llvm, PathBuf::from(format!("/usr/lib/llvm-{llvm}")))
        }
    };
    say(&format!(
        "installing bpf-linker {RELEASE} with LLVM {llvm} into target/tools"
    ));
    let feature = format!("llvm-{llvm}");
    let mut cargo = tools::install("bpf-linker", RELEASE);
    cargo.env("LLVM_PREFIX", prefix);
    cargo.args(["--force", "--no-default-features", "--features", &feature]);
    process::run(&mut cargo)
}

/// Makes sure that the distribution's LLVM is there, of a version that reads bitcode of LLVM `llvm`.
fn distribution_llvm(llvm: u32) -> Result<u32> {
    let llvm = buildable(llvm)?;
    let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    let mut missing = packages::missing(&[&dev, &polly, "libzstd-dev"]);
    // LLVM is C++, and its headers' package does not bring the library to link with.
    if packages::find("c++", &[]).is_none() {
        missing.push("g++");
    }
    packages::install(&missing).with_context(|| {
        format!("bpf-linker: none on PATH of LLVM {llvm} or newer, and none could be built")
    })?;
    Ok(llvm)
}

/// Returns the LLVM to build the linker with for a rustc of LLVM `llvm`.
fn buildable(llvm: u32) -> Result<u32> {
    if llvm > *LLVMS.end() {
        bail!(
            "rustc's LLVM {llvm}: bpf-linker {RELEASE} goes up to LLVM {}",
            LLVMS.end()
        );
    }
    Ok(llvm.max(*LLVMS.start()))
}

fn installed_llvm(prefix: &Path) -> Result<u32> {
    let config = prefix.join("bin/llvm-config");
    let said = process::output(Command::new(&config).arg("--version")).context("LLVM_PREFIX")?;
    let version = Version::parse(&said);
    Ok(version
        .with_context(|| format!("{}: {said:?}", config.display()))?
        .major)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linker(version: &str, llvm: Option<u32>) -> Linker {
        let version = Version::parse(version).unwrap();
        Linker {
            path: "bpf-linker".into(),
            version,
            llvm,
        }
    }

    #[test]
    fn a_linker_must_be_recent_and_not_behind_rustcs_llvm() {
        assert_eq!(
            linker("0.9.15", Some(22)).unfit(22).unwrap(),
            "older than 0.10"
        );
        assert_eq!(
            linker("0.13.0", Some(21)).unfit(22).unwrap(),
            "rustc has the newer LLVM 22"
        );
        assert_eq!(linker("0.13.0", Some(22)).unfit(22), None);
        assert_eq!(linker("0.10.0", Some(23)).unfit(22), None);
        assert_eq!(linker("0.13.0", None).unfit(22), None);
    }

    #[test]
    fn the_llvm_is_read_from_the_librarys_name() {
        assert_eq!(linked_llvm(b"\x7fELF\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(linked_llvm(b"\x7fELF\0libLLVM-19.so.1\0"), Some(19));
        assert_eq!(linked_llvm(b"\x7fELF\0libc.so.6\0"), None);
        assert_eq!(linked_llvm(b"libLLVM.so."), None);
    }

    #[test]
    fn the_linkers_llvm_is_rustcs_within_what_it_supports() {
        assert_eq!(buildable(22).unwrap(), 22);
        assert_eq!(buildable(19).unwrap(), 21);
        let error = buildable(24).unwrap_err().to_string();
        assert_eq!(
            error,
            "rustc's LLVM 24: bpf-linker 0.13.0 goes up to LLVM 23"
        );
    }
}
