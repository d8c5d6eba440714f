//! Debian's packages, got without the host's apt knowing: its sources, lists and cache are in the target folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::kernel::Kernel;
use crate::packages;
use crate::process::{self, say};

/// What signs Debian's archives; it is of the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages that hold what boots; others that a kernel depends on make an initramfs and the like.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// Where Debian is got from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    debian: String,
    security: String,
}

/// apt for one release.
pub(super) struct Apt {
    folder: PathBuf,
}

/// Fails with what to do where there is no apt, or it cannot verify Debian's archives.
pub(super) fn require(kernel: &Kernel, folder: &Path) -> Result<()> {
    let Kernel { version, suite, .. } = kernel;
    let folder = folder.display();
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(
            packages::find(program, &[]).is_some(),
            "{program}: not found; get the packages that linux-image-amd64 of Debian {suite} depends on and whose names \
             begin with linux-image, linux-binary or linux-modules, from https://packages.debian.org/{suite}/linux-image-amd64, \
             unpack them into {folder} with bsdtar, so that {folder}/lib/modules has the one of {version}, and try again"
        );
    }
    ensure!(
        Path::new(KEYRING).exists(),
        "{KEYRING}: not found; run `sudo apt-get install debian-archive-keyring`"
    );
    Ok(())
}

impl Apt {
    /// Makes an apt of its own for the release of `kernel`, and gets its lists.
    pub(super) fn new(folder: &Path, kernel: &Kernel) -> Result<Self> {
        let apt = Self {
            folder: folder.to_owned(),
        };
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| part.display().to_string())?;
        }
        let said = process::output(Command::new("apt-get").arg("indextargets")).unwrap_or_default();
        let sources = sources(&mirrors(&said), kernel);
        say(&format!(
            "{}: apt's lists:\n{}",
            kernel.suite,
            sources.trim_end()
        ));
        fs::write(folder.join("sources.list"), sources)?;
        process::run_quietly(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// The packages that make up the release's kernel.
    pub(super) fn parts(&self, kernel: &Kernel) -> Result<BTreeSet<String>> {
        let mut parts = BTreeSet::new();
        let mut open = vec!["linux-image-amd64".to_owned()];
        while let Some(package) = open.pop() {
            let mut show = self.command("apt-cache");
            let said = process::output(show.args(["show", "--no-all-versions"]).arg(&package))?;
            let (version, depends) = described(&said).with_context(|| package.clone())?;
            if !kernel.is(&version) {
                let Kernel {
                    suite,
                    version: wanted,
                    ..
                } = kernel;
                bail!("{package} of {suite}: is {version}, no {wanted} any more");
            }
            for part in depends {
                if parts.insert(part.clone()) {
                    open.push(part);
                }
            }
        }
        ensure!(!parts.is_empty(), "linux-image-amd64: depends on no kernel");
        Ok(parts)
    }

    /// Gets packages and unpacks them below `to`; what is in `into` already is not got again.
    pub(super) fn unpack(&self, packages: &BTreeSet<String>, into: &Path, to: &Path) -> Result<()> {
        fs::create_dir_all(into)?;
        // They are root's own, which apt's unprivileged user may not reach.
        let mut download = self.command("apt-get");
        download.args(["-o", "APT::Sandbox::User=root", "download"]);
        process::run_quietly(download.args(packages).current_dir(into))?;
        for entry in fs::read_dir(into)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // Earlier versions are of other names.
            if packages
                .iter()
                .any(|package| name.starts_with(&format!("{package}_")))
            {
                process::run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(to))?;
            }
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        let at = |key: &str, part: &str| format!("{key}={}", self.folder.join(part).display());
        let options = [
            at("Dir::State", "state"),
            at("Dir::Cache", "cache"),
            at("Dir::Etc::sourcelist", "sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // What graphical shops are made of.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // Debian leaves an old release's list as it is.
            "Acquire::Check-Valid-Until=false".to_owned(),
        ];
        for option in options {
            command.args(["-o", &option]);
        }
        command
    }
}

/// The mirrors that the host uses, from `apt-get indextargets`; Debian's own for what it does not.
fn mirrors(targets: &str) -> Mirrors {
    let of = |label: &str| {
        targets.split("\n\n").find_map(|target| {
            (field(target, "Label") == Some(label)).then_some(())?;
            let base = field(target, "Base-URI")?;
            Some(base.split_once("/dists/")?.0.to_owned())
        })
    };
    let default = |name: &str| format!("http://deb.debian.org/{name}");
    Mirrors {
        debian: of("Debian").unwrap_or_else(|| default("debian")),
        security: of("Debian-Security").unwrap_or_else(|| default("debian-security")),
    }
}

/// apt's list of sources for a kernel.
fn sources(mirrors: &Mirrors, kernel: &Kernel) -> String {
    let Kernel {
        suite, security, ..
    } = kernel;
    let line =
        |mirror: &str, suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
    let mut sources = line(&mirrors.debian, suite);
    if *security {
        sources += &line(&mirrors.security, &format!("{suite}-security"));
    }
    sources
}

/// The version of a package and those parts of a kernel that it depends on, from `apt-cache show`.
fn described(package: &str) -> Result<(String, Vec<String>)> {
    let version = field(package, "Version").context("no version")?;
    let depends = field(package, "Depends").unwrap_or_default();
    let names = depends.split(", ").filter_map(|one| one.split(' ').next());
    let parts = names.filter(|name| PARTS.iter().any(|part| name.starts_with(part)));
    Ok((version.to_owned(), parts.map(str::to_owned).collect()))
}

fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = paragraph.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "MetaKey: main/binary-amd64/Packages
Label: Debian
Base-URI: http://ftp.de.debian.org/debian/dists/bookworm/

MetaKey: main/binary-amd64/Packages
Label: Docker
Base-URI: https://download.docker.com/linux/debian/dists/bookworm/
";

    #[test]
    fn the_hosts_mirror_is_used_and_debians_own_for_the_rest() {
        let expected = Mirrors {
            debian: "http://ftp.de.debian.org/debian".to_owned(),
            security: "http://deb.debian.org/debian-security".to_owned(),
        };
        assert_eq!(mirrors(TARGETS), expected);
        assert_eq!(mirrors("").debian, "http://deb.debian.org/debian");
    }

    #[test]
    fn only_an_old_release_needs_the_security_archive() {
        let lines = |kernel: &str| sources(&mirrors(TARGETS), &kernel.parse().unwrap());
        assert_eq!(
            lines("sid"),
            format!("deb [signed-by={KEYRING}] http://ftp.de.debian.org/debian sid main\n")
        );
        assert!(lines("5.10").ends_with("/debian-security bullseye-security main\n"));
    }

    #[test]
    fn the_parts_of_a_kernel_are_told_from_what_else_it_depends_on() {
        let said = "Package: linux-image-7.2.13+deb14-amd64
Version: 7.2.13-1
Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.2.13+deb14-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-amd64 (= 7.2.13-1)
";
        let (version, parts) = described(said).unwrap();
        assert_eq!(version, "7.2.13-1");
        let expected = ["binary", "modules"].map(|part| format!("linux-{part}-7.2.13+deb14-amd64"));
        assert_eq!(parts, expected);
        assert!(described("Package: x\n").is_err());
    }
}
