//! The distribution's packages that building and testing need: found, installed where we may, named where we may not.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::process::{self, say};

/// A file that shows that a package, or its like from elsewhere, is there.
pub(crate) struct Requirement {
    package: &'static str,
    /// Mostly a program.
    program: &'static str,
    /// Where else than on PATH it may be.
    folders: &'static [&'static str],
}

const SBIN: &[&str] = &["/usr/sbin", "/sbin"];

/// What the demo runs.
pub(crate) const DEMO: &[Requirement] = &[
    Requirement {
        package: "iproute2",
        program: "ip",
        folders: SBIN,
    },
    Requirement {
        package: "nftables",
        program: "nft",
        folders: SBIN,
    },
    Requirement {
        package: "iperf3",
        program: "iperf3",
        folders: &[],
    },
];

/// What beeline is compared with.
pub(crate) const REFERENCE: &[Requirement] = &[Requirement {
    package: "containernetworking-plugins",
    program: "host-local",
    folders: &["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"],
}];

/// What the bench runs, beyond what the demo does.
pub(crate) const BENCH: &[Requirement] = &[Requirement {
    package: "iptables",
    program: "iptables-restore",
    folders: SBIN,
}];

/// What the tests run, beyond what the demo and the bench do.
pub(crate) const TEST: &[Requirement] = &[
    Requirement {
        package: "tcpdump",
        program: "tcpdump",
        folders: SBIN,
    },
    Requirement {
        package: "dnsmasq-base",
        program: "dnsmasq",
        folders: SBIN,
    },
];

/// The container runtime that calls the plugin in tests, and what its only image is made of.
pub(crate) const RUNTIME: &[Requirement] = &[
    Requirement {
        package: "containerd",
        program: "containerd",
        folders: &[],
    },
    Requirement {
        package: "runc",
        program: "runc",
        folders: SBIN,
    },
    Requirement {
        package: "busybox-static",
        program: "busybox",
        folders: &[],
    },
];

/// What the agent is tested with: an etcd, its client, and certificates.
pub(crate) const ETCD: &[Requirement] = &[
    Requirement {
        package: "etcd-server",
        program: "etcd",
        folders: &[],
    },
    Requirement {
        package: "etcd-client",
        program: "etcdctl",
        folders: &[],
    },
    Requirement {
        package: "openssl",
        program: "openssl",
        folders: &[],
    },
];

/// What brings a cluster of Kubernetes up, beyond what it is made of.
pub(crate) const KUBERNETES: &[Requirement] = &[
    Requirement {
        package: "iproute2",
        program: "ip",
        folders: SBIN,
    },
    Requirement {
        package: "iptables",
        program: "iptables-restore",
        folders: SBIN,
    },
    Requirement {
        package: "nftables",
        program: "nft",
        folders: SBIN,
    },
    Requirement {
        package: "conntrack",
        program: "conntrack",
        folders: SBIN,
    },
    Requirement {
        package: "kmod",
        program: "modprobe",
        folders: SBIN,
    },
    Requirement {
        package: "procps",
        program: "sysctl",
        folders: SBIN,
    },
    Requirement {
        package: "openssl",
        program: "openssl",
        folders: &[],
    },
];

/// What kernels boot in, with what they boot from.
pub(crate) const VM: &[Requirement] = &[
    Requirement {
        package: "qemu-system-x86",
        program: "qemu-system-x86_64",
        folders: &[],
    },
    Requirement {
        package: "busybox-static",
        program: "busybox",
        folders: &[],
    },
    Requirement {
        package: "kmod",
        program: "depmod",
        folders: SBIN,
    },
    Requirement {
        package: "xz-utils",
        program: "xz",
        folders: &[],
    },
    Requirement {
        package: "binutils",
        program: "strip",
        folders: &[],
    },
];

const PROTOC: Requirement = Requirement {
    package: "protobuf-compiler",
    program: "protoc",
    folders: &[],
};

/// What builds the tests: the client of the container runtime interface is generated.
pub(crate) const BUILD_TESTS: &[Requirement] = &[PROTOC];

/// What builds the agent: that client, and that of etcd, whose definitions include protoc's own.
pub(crate) const BUILD_AGENT: &[Requirement] = &[
    PROTOC,
    Requirement {
        package: "libprotobuf-dev",
        program: "google/protobuf/descriptor.proto",
        folders: &["/usr/include", "/usr/local/include"],
    },
];

/// What builds the fuzz targets: libFuzzer is C++.
pub(crate) const FUZZ: &[Requirement] = &[Requirement {
    package: "g++",
    program: "c++",
    folders: &[],
}];

/// What makes images.
pub(crate) const IMAGE: &[Requirement] = &[Requirement {
    package: "buildah",
    program: "buildah",
    folders: &[],
}];

/// Makes sure that what `requirements` name is there.
pub(crate) fn require(requirements: &[&[Requirement]]) -> Result<()> {
    let missing = requirements
        .iter()
        .flat_map(|part| part.iter())
        .filter(|required| find(required.program, required.folders).is_none());
    let missing: Vec<_> = missing.map(|required| required.package).collect();
    install(&missing)
}

/// Finds a program on PATH, or it or another file in one of `folders`.
pub(crate) fn find(program: &str, folders: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<_> = env::split_paths(&path).collect();
    let folders = folders.iter().map(PathBuf::from);
    on_path
        .into_iter()
        .chain(folders)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Returns those of `packages` that dpkg does not have installed; all of them where there is no dpkg.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    // dpkg-query fails if it does not know one of them, so each is asked for alone.
    let installed = |package: &str| {
        let format = ["--show", "--showformat=${db:Status-Status}"];
        let status = process::output(Command::new("dpkg-query").args(format).arg(package));
        status.is_ok_and(|status| status == "installed")
    };
    packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect()
}

/// Installs `packages` with apt-get, or fails with what to run instead.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if let Err(advice) = Host::probe().may_install(packages) {
        bail!("{advice}");
    }
    say(&format!("installing {} with apt-get", packages.join(" ")));
    update();
    let policy = process::output(plain("apt-cache").arg("policy").args(packages))?;
    let absent = unavailable(&policy, packages);
    if !absent.is_empty() {
        bail!(
            "{}: not among this distribution's packages",
            absent.join(" ")
        );
    }
    // Never at the price of a package that someone installed: apt then fails and says which.
    let flags = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    process::run_quietly(plain("apt-get").args(flags).args(packages))
}

/// Refreshes apt's lists, once a run. A broken third-party source need not matter, so failing is not fatal.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = process::run_quietly(plain("apt-get").arg("update")) {
            say(&format!("{error:#}; going on with the lists at hand"));
        }
    });
}

/// A command that asks nothing and speaks English.
fn plain(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command
}

/// What decides whether we may install packages here.
struct Host {
    root: bool,
    apt: bool,
}

impl Host {
    fn probe() -> Self {
        let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let apt = has_apt(&os) && Path::new("/usr/bin/apt-get").exists();
        Self {
            root: Uid::effective().is_root(),
            apt,
        }
    }

    /// Says what to do instead if we may not.
    fn may_install(&self, packages: &[&str]) -> Result<(), String> {
        let list = packages.join(" ");
        match (self.apt, self.root) {
            (true, true) => Ok(()),
            (true, false) => Err(format!(
                "{list}: not installed; run `sudo apt-get install --no-install-recommends {list}`"
            )),
            (false, _) => Err(format!(
                "{list}: not installed (Debian's names); install your distribution's equivalents"
            )),
        }
    }
}

/// Tells from /etc/os-release whether this is Debian, Ubuntu or a child of theirs.
fn has_apt(os_release: &str) -> bool {
    let values = os_release.lines().filter_map(|line| {
        line.strip_prefix("ID=")
            .or_else(|| line.strip_prefix("ID_LIKE="))
    });
    values
        .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace())
        .any(|id| matches!(id, "debian" | "ubuntu"))
}

/// Returns those of `packages` for which `apt-cache policy` shows no candidate.
fn unavailable<'a>(policy: &str, packages: &[&'a str]) -> Vec<&'a str> {
    let has_candidate = |package: &str| {
        let heading = format!("{package}:");
        let section = policy.lines().skip_while(|line| *line != heading).skip(1);
        let mut section = section.take_while(|line| line.starts_with(' '));
        section
            .find_map(|line| line.trim().strip_prefix("Candidate: "))
            .is_some_and(|candidate| candidate != "(none)")
    };
    packages
        .iter()
        .copied()
        .filter(|package| !has_candidate(package))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_have_apt() {
        assert!(has_apt("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(has_apt("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(has_apt("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!has_apt(
            "ID=fedora\nID_LIKE='rhel centos'\nVARIANT_ID=debian\n"
        ));
        assert!(!has_apt(""));
    }

    #[test]
    fn only_root_with_apt_installs_and_others_are_told_how() {
        let advice = |root, apt| Host { root, apt }.may_install(&["iperf3", "nftables"]);
        assert_eq!(advice(true, true), Ok(()));
        let sudo = "run `sudo apt-get install --no-install-recommends iperf3 nftables`";
        assert!(advice(false, true).unwrap_err().ends_with(sudo));
        assert!(advice(true, false).unwrap_err().contains("Debian's names"));
    }

    #[test]
    fn packages_without_a_candidate_are_unavailable() {
        let policy = "\
iperf3:
  Installed: (none)
  Candidate: 3.12-1
  Version table:
     3.12-1 500
rustc-web:
  Installed: (none)
  Candidate: (none)
  Version table:
";
        let packages = ["iperf3", "rustc-web", "unheard-of"];
        assert_eq!(unavailable(policy, &packages), ["rustc-web", "unheard-of"]);
    }

    #[test]
    fn programs_are_found_on_path_and_in_the_named_folders() {
        assert!(find("sh", &[]).is_some());
        assert!(find("beeline-no-such-program", SBIN).is_none());
    }
}
