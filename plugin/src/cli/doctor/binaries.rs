//! The programs that the runtime looks for, and ours among them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    conflists::{File, file_name},
    finding::{Finding, Severity, or_ok},
};
use crate::cni::config::HOST_LOCAL;

const CHECK: &str = "binaries";

/// The programs that the runtime will look for.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) directory: PathBuf,
    /// The executables of the directory.
    pub(super) there: Vec<String>,
    /// This program, and whether the directory has the same one.
    pub(super) own: PathBuf,
    pub(super) is_own: bool,
}

impl Programs {
    /// Looks at a directory.
    pub(super) fn read(directory: &Path, own: &str) -> Result<Self> {
        let executable = |entry: &fs::DirEntry| {
            // Through links, of which distributions use many.
            let file = fs::metadata(entry.path());
            file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let there = entries
            .filter(executable)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        let path = std::env::current_exe().context("this program: find")?;
        let installed = fs::read(directory.join(own)).ok();
        Ok(Self {
            directory: directory.to_owned(),
            there,
            is_own: installed.is_some() && installed == fs::read(&path).ok(),
            own: path,
        })
    }
}

/// Judges whether all programs that our lists name are there, and ours is this one.
pub(super) fn judge(programs: &Programs, files: &[File], own: &str) -> Vec<Finding> {
    let directory = programs.directory.display();
    let there = |kind: &str| programs.there.iter().any(|name| name == kind);
    let mut found = Vec::new();
    let install = format!(
        "install -m 0755 {exe} {directory}/.{own} && mv {directory}/.{own} {directory}/{own}",
        exe = programs.own.display()
    );
    if !there(own) {
        let message = "is not there: the runtime cannot execute it";
        let object = format!("{directory}/{own}");
        found.push(Finding::new(
            CHECK,
            Severity::Failure,
            object,
            message,
            install,
        ));
    } else if !programs.is_own {
        let message = format!(
            "is another build than this one ({})",
            env!("CARGO_PKG_VERSION")
        );
        let object = format!("{directory}/{own}");
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            object,
            message,
            install,
        ));
    }
    for file in files.iter().filter(|file| file.is_of(own)) {
        let ipam = file.plugins.iter().filter_map(|plugin| {
            let kind = plugin["ipam"]["type"].as_str()?;
            let built_in = plugin["type"] == own && kind == HOST_LOCAL;
            (!built_in && !kind.is_empty()).then_some(kind)
        });
        let needed = file.types().into_iter().chain(ipam);
        for kind in needed.filter(|kind| *kind != own && !there(kind)) {
            found.push(Finding::new(
                CHECK,
                Severity::Failure,
                format!("{directory}/{kind}"),
                format!(
                    "is not there, but {} names it: no pod gets a network",
                    file_name(file)
                ),
                format!(
                    "install {kind:?} of the CNI plugins into {directory}, or remove it from {}",
                    file.path.display()
                ),
            ));
        }
    }
    or_ok(
        found,
        Finding::ok(
            CHECK,
            directory.to_string(),
            "has this build, and all plugins that are chained with it",
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::conflists::tests::{file, ours},
        *,
    };

    #[test]
    fn programs_that_are_missing_or_another_build_are_named() {
        let programs = |there: &[&str], is_own| Programs {
            directory: "/opt/cni/bin".into(),
            there: there.iter().map(|name| (*name).to_owned()).collect(),
            own: "/root/beeline".into(),
            is_own,
        };
        let judged = |programs: &Programs| {
            let found = judge(programs, &[ours()], "beeline");
            let found = found.into_iter().map(|f| (f.severity, f.object));
            found.collect::<Vec<_>>()
        };
        let path = |name: &str| format!("/opt/cni/bin/{name}");
        assert_eq!(
            judged(&programs(&["beeline", "portmap"], true)),
            [(Severity::Ok, "/opt/cni/bin".to_owned())]
        );
        assert_eq!(
            judged(&programs(&[], false)),
            [
                (Severity::Failure, path("beeline")),
                (Severity::Failure, path("portmap"))
            ]
        );
        assert_eq!(
            judged(&programs(&["beeline", "portmap"], false)),
            [(Severity::Warning, path("beeline"))]
        );
    }

    #[test]
    fn ipam_of_another_program_is_looked_for_too() {
        let plugins = json!([{"type": "beeline", "ipam": {"type": "dhcp"}}]);
        let programs = Programs {
            there: vec!["beeline".to_owned()],
            is_own: true,
            ..Programs::default()
        };
        let files = [file("10-beeline.conflist", "pods", plugins)];
        let found = judge(&programs, &files, "beeline");
        assert!(found[0].object.ends_with("/dhcp"), "{found:?}");
    }
}
