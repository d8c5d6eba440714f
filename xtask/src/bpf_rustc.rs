//! The rustc that compiles the BPF programs: which ones this machine has, and which one we take.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::process;
use crate::version::Version;
use crate::workspace;

/// The target the programs are compiled for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Names a rustc to use before any other.
const VARIABLE: &str = "BEELINE_BPF_RUSTC";
const SYSTEM: &str = "/usr/bin/rustc";
const SYSTEM_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
const NIGHTLY: &str = "rustup toolchain install nightly --component rust-src";

/// A compiler, as far as building BPF programs with it goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rustc {
    path: PathBuf,
    version: Version,
    /// The major version of its LLVM, which the linker's must not be older than.
    pub(crate) llvm: u32,
    core: Core,
}

/// Where a compiler has `core` for BPF from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Core {
    Prebuilt,
    Source,
    Absent,
}

/// A compiler that builds the BPF programs, and where we have it from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The compiler.
    pub(crate) rustc: Rustc,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Origin {
    Environment,
    Nightly,
    System,
}

/// The compilers of this machine that may do.
#[derive(Default)]
struct Machine {
    environment: Option<Rustc>,
    nightlies: Vec<Rustc>,
    system: Option<Rustc>,
}

/// Returns the compilers of this machine that do, in the order we prefer them.
pub(crate) fn choices() -> Result<Vec<Choice>> {
    Machine::probe()?.choices(oldest())
}

/// Installs the distribution's compiler.
pub(crate) fn install() -> Result<Choice> {
    let advice = || format!("no rustc for BPF programs; `{NIGHTLY}` may do too");
    packages::install(SYSTEM_PACKAGES).with_context(advice)?;
    let system = choices()?
        .into_iter()
        .find(|choice| choice.origin == Origin::System);
    system
        .with_context(|| format!("{SYSTEM}: too old, or without {TARGET}"))
        .with_context(advice)
}

/// The oldest rustc that compiles this workspace.
fn oldest() -> Version {
    let declared = Version::parse(env!("CARGO_PKG_RUST_VERSION"));
    declared.unwrap_or(Version { major: 1, minor: 0 })
}

impl Machine {
    fn probe() -> Result<Self> {
        let environment = env::var_os(VARIABLE).filter(|path| !path.is_empty());
        let environment = environment
            .map(|path| Rustc::probe(Path::new(&path)).context(VARIABLE))
            .transpose()?;
        let nightlies = nightlies(&rustup_home().join("toolchains"));
        let nightlies = nightlies
            .iter()
            .filter_map(|path| Rustc::probe(path).ok())
            .collect();
        Ok(Self {
            environment,
            nightlies,
            system: Rustc::probe(Path::new(SYSTEM)).ok(),
        })
    }

    /// One that was asked for is the only choice: if it does not do, that is an error.
    fn choices(self, oldest: Version) -> Result<Vec<Choice>> {
        let fresh = |rustc: &Rustc| rustc.version >= oldest;
        if let Some(rustc) = self.environment {
            if !fresh(&rustc) {
                bail!("{VARIABLE}: {rustc} is older than {oldest}");
            }
            if rustc.core == Core::Absent {
                bail!("{VARIABLE}: {rustc} has neither {TARGET} nor rust-src to build it from");
            }
            return Ok(vec![Choice {
                rustc,
                origin: Origin::Environment,
            }]);
        }
        let nightlies = self
            .nightlies
            .into_iter()
            .filter(|rustc| rustc.core != Core::Absent);
        let system = self
            .system
            .into_iter()
            .filter(|rustc| rustc.core == Core::Prebuilt);
        let nightlies = nightlies.map(|rustc| Choice {
            rustc,
            origin: Origin::Nightly,
        });
        let system = system.map(|rustc| Choice {
            rustc,
            origin: Origin::System,
        });
        Ok(nightlies
            .chain(system)
            .filter(|choice| fresh(&choice.rustc))
            .collect())
    }
}

impl Rustc {
    fn probe(path: &Path) -> Result<Self> {
        let version = process::output(Command::new(path).arg("-vV"))?;
        let (version, llvm) = parse_version(&version)
            .with_context(|| format!("{} -vV: no version", path.display()))?;
        let sysroot = process::output(Command::new(path).args(["--print", "sysroot"]))?;
        let core = Core::within(Path::new(sysroot.trim()));
        Ok(Self {
            path: path.to_owned(),
            version,
            llvm,
            core,
        })
    }

    /// Returns a tool of the same toolchain.
    fn sibling(&self, tool: &str) -> Option<PathBuf> {
        Some(self.path.parent()?.join(tool)).filter(|file| file.is_file())
    }
}

impl Core {
    fn within(sysroot: &Path) -> Self {
        let rustlib = sysroot.join("lib/rustlib");
        if rustlib.join(TARGET).join("lib").is_dir() {
            Self::Prebuilt
        } else if rustlib.join("src/rust/library/core/Cargo.toml").is_file() {
            Self::Source
        } else {
            Self::Absent
        }
    }
}

impl Choice {
    /// Tells whether no other compiler is to be tried if this one cannot be used after all.
    pub(crate) fn is_final(&self) -> bool {
        self.origin != Origin::Nightly
    }

    /// Starts a cargo command (`build`, `check` …) that compiles for BPF with this compiler.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        // A nightly's own cargo knows its own library's manifests; Debian's may not be installed, and none is needed.
        let own = self
            .rustc
            .sibling("cargo")
            .filter(|_| self.rustc.core == Core::Source);
        let mut cargo = own.map_or_else(workspace::cargo, |path| workspace::cargo_at(&path));
        cargo
            .arg(verb)
            .args(["--package", "beeline-ebpf", "--target", TARGET]);
        if self.rustc.core == Core::Source {
            cargo.arg("-Zbuild-std=core");
        }
        // The target is unstable even where its `core` comes prebuilt.
        cargo
            .env("RUSTC", &self.rustc.path)
            .env("RUSTC_BOOTSTRAP", "1");
        cargo
    }

    /// Finds clippy's compiler of the same toolchain, or installs the distribution's.
    pub(crate) fn clippy(&self) -> Result<PathBuf> {
        let driver = "clippy-driver";
        if let Some(path) = self.rustc.sibling(driver) {
            return Ok(path);
        }
        match self.origin {
            Origin::System => packages::install(&["rust-web-clippy"])?,
            Origin::Nightly => bail!("{self} has no clippy; `rustup component add clippy` to it"),
            Origin::Environment => bail!("{self} has no {driver} beside it"),
        }
        self.rustc
            .sibling(driver)
            .with_context(|| format!("{self} has no {driver} beside it"))
    }
}

impl fmt::Display for Rustc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} (LLVM {})",
            self.path.display(),
            self.version,
            self.llvm
        )
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Environment => VARIABLE,
            Origin::Nightly => "rustup's nightly",
            Origin::System => "the distribution's",
        };
        write!(f, "{}, {origin}", self.rustc)
    }
}

/// Returns rustup's nightly compilers, the plain `nightly` first, then the latest.
fn nightlies(toolchains: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(toolchains).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.retain(|name| name.to_string_lossy().starts_with("nightly"));
    // A dated one is nightly-20…; the plain one goes on with an architecture, whose letter sorts after digits.
    names.sort_by(|a, b| b.cmp(a));
    names
        .iter()
        .map(|name| toolchains.join(name).join("bin/rustc"))
        .collect()
}

fn rustup_home() -> PathBuf {
    let home = env::var_os("HOME").unwrap_or_default();
    env::var_os("RUSTUP_HOME").map_or_else(|| Path::new(&home).join(".rustup"), PathBuf::from)
}

/// Reads rustc's and LLVM's version out of `rustc -vV`.
fn parse_version(text: &str) -> Option<(Version, u32)> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let version = Version::parse(field("release: ")?)?;
    Some((version, Version::parse(field("LLVM version: ")?)?.major))
}

#[cfg(test)]
mod tests;
