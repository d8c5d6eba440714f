//! What the kernel can do, and the file system for pins.

use std::path::{Path, PathBuf};

use super::finding::{Commands, Finding, Severity, or_ok};
use crate::{
    datapath::{self, Probe, bpffs},
    net::sysctl,
};

const CHECK: &str = "kernel";

/// The check of the file system for pins.
const BPFFS: &str = "bpffs";

/// Type information about the kernel.
const BTF: &str = "/sys/kernel/btf/vmlinux";

const JIT: &str = "net/core/bpf_jit_enable";

/// What was read of the kernel.
#[derive(Debug, Default)]
pub(super) struct Facts {
    release: String,
    probe: Probe,
    btf: bool,
    /// Whether programs are translated; none if that cannot be told.
    jit: Option<bool>,
}

/// Reads it. `jitted` tells of programs that are loaded, which is surer than a setting.
pub(super) fn read(release: &str, jitted: Option<bool>) -> Facts {
    // Only the first of all network namespaces has the setting.
    let set = || sysctl::get(JIT).ok().map(|value| value != "0");
    Facts {
        release: release.to_owned(),
        probe: datapath::probe(),
        btf: Path::new(BTF).exists(),
        jit: jitted.or_else(set),
    }
}

/// Judges it; `severity` is how much it matters that there is no fast path.
pub(super) fn judge(facts: &Facts, severity: Severity) -> Vec<Finding> {
    let Facts {
        release,
        probe,
        btf,
        jit,
    } = facts;
    let mut found = Vec::new();
    let mut say = |severity, object: &str, message: String, fix: &str| {
        found.push(Finding::new(CHECK, severity, object, message, fix));
    };
    let newer = "boot a newer kernel, or set datapath.mode to \"bridge\"";
    if let Some(oldest) = &probe.too_old {
        let message = format!("is older than {oldest}, which brought the redirects: no fast path");
        say(severity, release, message, newer);
    }
    if let Some(reason) = &probe.refused {
        let message = format!("none can be loaded: {reason}");
        say(
            severity,
            "programs",
            message,
            "run as root with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; kernel lockdown must not be \"confidentiality\"",
        );
    }
    if !probe.missing.is_empty() {
        let message = format!("this kernel lacks {}", probe.missing.join(", "));
        say(severity, "helpers", message, newer);
    }
    if *jit == Some(false) {
        let message = "is off: programs are interpreted, each packet costs several times as much";
        say(
            Severity::Warning.min(severity),
            "JIT",
            message.to_owned(),
            "sysctl -w net.core.bpf_jit_enable=1",
        );
    }
    if !btf {
        let message = "is missing: tools such as bpftool cannot name the kernel's types; beeline does without";
        say(
            Severity::Note,
            BTF,
            message.to_owned(),
            "a kernel with CONFIG_DEBUG_INFO_BTF=y",
        );
    }
    let attach = if probe.tcx { "tcx" } else { "clsact" };
    let jit = if jit.is_some() { "JIT on, " } else { "" };
    let able = format!("{attach}, {jit}all helpers, programs can be loaded");
    or_ok(found, Finding::ok(CHECK, release, able))
}

/// What was read of the file system for pins.
#[derive(Debug)]
pub(super) struct Bpffs {
    pub(super) directory: PathBuf,
    /// The file system, or why it cannot be told.
    pub(super) mount: Result<bpffs::Mount, String>,
    /// Whether pins should be there now.
    pub(super) in_use: bool,
    /// Whether beeline mounts one there by itself.
    pub(super) standard: bool,
}

impl Bpffs {
    /// Looks at the file system below a directory.
    pub(super) fn read(directory: &Path, in_use: bool) -> Self {
        Self {
            directory: directory.to_owned(),
            mount: bpffs::mounted(directory).map_err(|error| format!("{error:#}")),
            in_use,
            standard: directory.starts_with(bpffs::STANDARD) && Path::new(bpffs::STANDARD).is_dir(),
        }
    }
}

/// Judges it; `severity` is how much it matters that there is no fast path.
pub(super) fn judge_bpffs(facts: &Bpffs, severity: Severity, commands: &Commands) -> Vec<Finding> {
    let object = facts.directory.display().to_string();
    let say = |severity, message: String, fix: String| {
        vec![Finding::new(BPFFS, severity, &object, message, fix)]
    };
    let mount = match &facts.mount {
        Ok(mount) => mount,
        Err(error) => return say(severity, error.clone(), format!("ls -ld {object}")),
    };
    let point = mount.point.display();
    let load = &commands.load;
    match mount {
        bpffs::Mount {
            is_bpffs: false, ..
        } => {
            let point = if facts.standard {
                bpffs::STANDARD
            } else {
                &*object
            };
            let fix = format!("mount -t bpf bpf {point} && {load}");
            if facts.standard && !facts.in_use {
                let message = "is not mounted; beeline mounts it for the first pod";
                return say(Severity::Note, message.to_owned(), fix);
            }
            say(
                severity,
                "is on no bpffs: nothing can be pinned".to_owned(),
                fix,
            )
        }
        bpffs::Mount {
            read_only: true, ..
        } => {
            let fix = format!("mount -o remount,rw {point}");
            say(severity, format!("{point} is mounted read-only"), fix)
        }
        bpffs::Mount { layers: 2.., .. } => {
            let message = format!(
                "{} file systems are mounted at {point}; what is pinned on those below cannot be seen",
                mount.layers
            );
            let fix = format!("umount {point} && {load}");
            say(Severity::Warning.min(severity), message, fix)
        }
        _ => vec![Finding::ok(BPFFS, object, format!("bpffs at {point}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::test_commands, *};

    fn able() -> Facts {
        Facts {
            release: "6.18".to_owned(),
            probe: Probe {
                tcx: true,
                ..Probe::default()
            },
            btf: true,
            jit: Some(true),
        }
    }

    #[test]
    fn a_kernel_that_can_do_all_is_one_line() {
        let [finding] = &judge(&able(), Severity::Failure)[..] else {
            panic!("more than one");
        };
        assert_eq!(finding.severity, Severity::Ok);
        assert_eq!(finding.object, "6.18");
        assert!(finding.message.contains("tcx, JIT on"), "{finding:?}");
    }

    #[test]
    fn what_a_kernel_lacks_is_named_and_matters_as_much_as_the_mode_says() {
        let facts = Facts {
            probe: Probe {
                too_old: Some("5.10".to_owned()),
                missing: vec!["bpf_redirect_peer"],
                refused: Some("EPERM".to_owned()),
                tcx: false,
            },
            btf: false,
            jit: Some(false),
            ..able()
        };
        for severity in [Severity::Failure, Severity::Warning] {
            let found = judge(&facts, severity);
            let objects: Vec<_> = found.iter().map(|f| (&*f.object, f.severity)).collect();
            assert_eq!(
                objects,
                [
                    ("6.18", severity),
                    ("programs", severity),
                    ("helpers", severity),
                    ("JIT", Severity::Warning),
                    (BTF, Severity::Note)
                ]
            );
            assert!(found.iter().all(|finding| finding.fix.is_some()));
            assert!(found[2].message.contains("bpf_redirect_peer"));
        }
    }

    fn bpffs(is_bpffs: bool, read_only: bool, layers: usize) -> Bpffs {
        Bpffs {
            directory: "/sys/fs/bpf".into(),
            mount: Ok(bpffs::Mount {
                point: "/sys/fs/bpf".into(),
                is_bpffs,
                read_only,
                layers,
            }),
            in_use: true,
            standard: true,
        }
    }

    #[test]
    fn a_bpffs_that_is_missing_read_only_or_hidden_is_told_with_the_command() {
        for (facts, severity, fix) in [
            (bpffs(true, false, 1), Severity::Ok, None),
            (
                bpffs(false, false, 1),
                Severity::Failure,
                Some("mount -t bpf bpf /sys/fs/bpf && beeline load"),
            ),
            (
                bpffs(true, true, 1),
                Severity::Failure,
                Some("mount -o remount,rw /sys/fs/bpf"),
            ),
            (
                bpffs(true, false, 2),
                Severity::Warning,
                Some("umount /sys/fs/bpf && beeline load"),
            ),
        ] {
            let found = judge_bpffs(&facts, Severity::Failure, &test_commands());
            assert_eq!(found[0].severity, severity, "{found:?}");
            assert_eq!(found[0].fix.as_deref(), fix);
        }
        let unused = Bpffs {
            in_use: false,
            ..bpffs(false, false, 1)
        };
        let found = judge_bpffs(&unused, Severity::Failure, &test_commands());
        assert_eq!(found[0].severity, Severity::Note);
    }
}
