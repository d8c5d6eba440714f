//! The runtime's configurations, and the programs that they name.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::finding::{Finding, Severity, names, or_ok};
use crate::{cni, cni::config::HOST_LOCAL, ipam::IpamConf, net::link::Link, node::Plan};

const CHECK: &str = "conflists";
const BINARIES: &str = "binaries";

/// What libcni takes for a configuration.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// Plugins that call others, which then may be ours.
const CALLERS: [&str; 1] = ["multus"];

/// Interfaces that network plugins leave when they are removed.
const LEFTOVERS: [(&str, &str); 6] = [
    ("flannel.1", "flannel"),
    ("flannel-v6.1", "flannel"),
    ("vxlan.calico", "calico"),
    ("cilium_host", "cilium"),
    ("cilium_vxlan", "cilium"),
    ("weave", "weave"),
];

/// A file of the configuration directory, in the order in which runtimes look.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// The name of the network.
    pub(super) network: String,
    plugins: Vec<Value>,
    /// Why it cannot be used.
    error: Option<String>,
}

/// A network that is configured for this plugin.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) path: PathBuf,
    pub(super) plan: Plan,
    pub(super) ipam: Option<IpamConf>,
}

impl File {
    fn parse(path: PathBuf, text: &[u8]) -> Self {
        let parsed: Value = match serde_json::from_slice(text) {
            Ok(parsed) => parsed,
            Err(error) => {
                return Self {
                    path,
                    error: Some(error.to_string()),
                    ..Self::default()
                };
            }
        };
        let plugins = match parsed["plugins"].as_array() {
            Some(plugins) => plugins.clone(),
            None => vec![parsed.clone()],
        };
        Self {
            path,
            network: parsed["name"].as_str().unwrap_or_default().to_owned(),
            plugins,
            error: None,
        }
    }

    fn types(&self) -> Vec<&str> {
        let types = self.plugins.iter();
        types.filter_map(|plugin| plugin["type"].as_str()).collect()
    }

    fn is_of(&self, kind: &str) -> bool {
        self.types().contains(&kind)
    }

    /// The name of the bridge that it puts pods on.
    fn bridge(&self, own: &str) -> Option<&str> {
        let mut plugins = self.plugins.iter();
        let plugin = plugins.find(|plugin| plugin["type"] == own || plugin["type"] == "bridge")?;
        Some(plugin["bridge"].as_str().unwrap_or("cni0"))
    }

    /// What it asks of the node, if it is of this plugin.
    fn configured(&self, text: &[u8]) -> Option<cni::Result<Configured>> {
        let list: Value = serde_json::from_slice(text).ok()?;
        let single = super::super::load::ours(&list)?;
        Some(
            cni::plan_and_ipam_of(&single).map(|(plan, ipam)| Configured {
                path: self.path.clone(),
                plan,
                ipam,
            }),
        )
    }
}

/// Reads the directory: all files, and the networks of this plugin's. One that is not there is empty.
pub(super) fn read(directory: &Path) -> Result<(Vec<File>, Vec<Configured>)> {
    let context = || format!("{}: read", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Default::default()),
        entries => entries.with_context(context)?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let is_list = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ENDINGS.contains(&ending))
    };
    paths.retain(is_list);
    paths.sort();
    let (mut files, mut networks) = (Vec::new(), Vec::new());
    for path in paths {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                let error = Some(error.to_string());
                let file = File {
                    path,
                    error,
                    ..File::default()
                };
                files.push(file);
                continue;
            }
        };
        let mut file = File::parse(path, &text);
        match file.configured(&text) {
            Some(Ok(configured)) => networks.push(configured),
            Some(Err(error)) => file.error = Some(format!("{error:#}")),
            None => {}
        }
        files.push(file);
    }
    Ok((files, networks))
}

/// Judges the files; `own` is the type by which they name this plugin.
pub(super) fn judge(directory: &Path, files: &[File], own: &str) -> Vec<Finding> {
    let mut found = broken(files, own);
    let ours = |file: &&File| file.is_of(own);
    let Some(first) = files.iter().find(ours) else {
        found.push(Finding::new(
            CHECK,
            Severity::Warning,
            directory.display().to_string(),
            format!("has no configuration with a plugin of type {own:?}: the runtime makes no pods with it"),
            format!("a conflist with \"type\": \"{own}\" in {}", directory.display()),
        ));
        return found;
    };
    let before = files.iter().take_while(|file| file.path != first.path);
    for rival in before.filter(|file| file.error.is_none()) {
        found.push(rival_of(rival, first));
    }
    found.extend(shared(files, own));
    let ok = format!("is the first of {} in {}", files.len(), directory.display());
    or_ok(found, Finding::ok(CHECK, file_name(first), ok))
}

fn broken<'a>(files: &'a [File], own: &'a str) -> Vec<Finding> {
    let broken = files.iter().filter_map(|file| {
        let error = file.error.as_ref()?;
        let severity = match file.is_of(own) {
            true => Severity::Failure,
            false => Severity::Warning,
        };
        Some(Finding::new(
            CHECK,
            severity,
            file_name(file),
            format!("cannot be used: {error}"),
            format!("mend or remove {}", file.path.display()),
        ))
    });
    broken.collect()
}

fn rival_of(rival: &File, first: &File) -> Finding {
    let types = rival.types();
    let path = rival.path.display();
    let calls = types.iter().any(|kind| CALLERS.contains(kind));
    let (severity, message) = if calls {
        (
            Severity::Note,
            "sorts before it, and calls other plugins: is ours among them?",
        )
    } else {
        (
            Severity::Failure,
            "sorts before it: the runtime takes the first file only",
        )
    };
    Finding::new(
        CHECK,
        severity,
        file_name(rival),
        format!(
            "network {:?} of {} {message} (ours is {})",
            rival.network,
            types.join(", "),
            file_name(first)
        ),
        format!("mv {path} {path}.disabled"),
    )
}

/// Names of networks and bridges that several files have, if ours is among them.
fn shared(files: &[File], own: &str) -> Vec<Finding> {
    let mut users: BTreeMap<(&str, &str), Vec<&File>> = BTreeMap::new();
    for file in files {
        if !file.network.is_empty() {
            users.entry(("name", &file.network)).or_default().push(file);
        }
        if let Some(bridge) = file.bridge(own) {
            users.entry(("bridge", bridge)).or_default().push(file);
        }
    }
    let collisions = users
        .into_iter()
        .filter(|(_, users)| users.len() > 1 && users.iter().any(|file| file.is_of(own)));
    let finding = |((key, value), users): ((&str, &str), Vec<&File>)| {
        let users: Vec<String> = users.into_iter().map(file_name).collect();
        Finding::new(
            CHECK,
            Severity::Warning,
            names(&users),
            format!("all have {key} {value:?}: their networks fight over it"),
            format!("another \"{key}\" in one of them, or remove it"),
        )
    };
    collisions.map(finding).collect()
}

/// Judges what network plugins have left; `bridges` are beeline's.
pub(super) fn judge_leftovers(links: &[Link], bridges: &[&str]) -> Vec<Finding> {
    let left = LEFTOVERS.iter().filter(|(name, _)| {
        let there = links.iter().any(|link| link.name == *name);
        there && !bridges.contains(name)
    });
    let finding = |(name, plugin): &(&str, &str)| {
        Finding::new(
            CHECK,
            Severity::Note,
            format!("interface {name}"),
            format!("is of {plugin}, which may run beside or have left it"),
            format!("ip link delete {name}"),
        )
    };
    left.map(finding).collect()
}

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
pub(super) fn judge_programs(programs: &Programs, files: &[File], own: &str) -> Vec<Finding> {
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
            BINARIES,
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
            BINARIES,
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
                BINARIES,
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
            BINARIES,
            directory.to_string(),
            "has this build, and all plugins that are chained with it",
        ),
    )
}

fn file_name(file: &File) -> String {
    let name = file.path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(name: &str, network: &str, plugins: Value) -> File {
        let list = json!({"cniVersion": "1.0.0", "name": network, "plugins": plugins});
        File::parse(
            Path::new("/etc/cni/net.d").join(name),
            list.to_string().as_bytes(),
        )
    }

    fn ours() -> File {
        let plugins = json!([
            {"type": "beeline", "bridge": "br0", "ipam": {"type": "host-local"}},
            {"type": "portmap"},
        ]);
        file("10-beeline.conflist", "pods", plugins)
    }

    fn judged(files: &[File]) -> Vec<(Severity, String)> {
        let found = judge(Path::new("/etc/cni/net.d"), files, "beeline");
        found.into_iter().map(|f| (f.severity, f.object)).collect()
    }

    #[test]
    fn only_files_that_sort_before_ours_are_rivals() {
        let other = |name| file(name, "other", json!([{"type": "flannel"}]));
        assert_eq!(
            judged(&[ours(), other("99-flannel.conflist")]),
            [(Severity::Ok, "10-beeline.conflist".to_owned())]
        );
        let files = [other("05-flannel.conflist"), ours()];
        assert_eq!(
            judged(&files),
            [(Severity::Failure, "05-flannel.conflist".to_owned())]
        );
        let found = judge(Path::new("/etc/cni/net.d"), &files, "beeline");
        assert_eq!(
            found[0].fix.as_deref(),
            Some(
                "mv /etc/cni/net.d/05-flannel.conflist /etc/cni/net.d/05-flannel.conflist.disabled"
            )
        );
        let multus = file("00-multus.conf", "multus", json!([{"type": "multus"}]));
        assert_eq!(judged(&[multus, ours()])[0].0, Severity::Note);
    }

    #[test]
    fn two_lists_with_one_bridge_or_name_are_told() {
        let bridge = json!([{"type": "bridge", "bridge": "br0"}]);
        let found = judged(&[ours(), file("20-other.conflist", "other", bridge.clone())]);
        let both = "10-beeline.conflist, 20-other.conflist".to_owned();
        assert_eq!(found, [(Severity::Warning, both)]);
        // Others may share what they like.
        let third = json!([{"type": "bridge", "bridge": "br1"}]);
        let one = file("30-one.conflist", "one", third.clone());
        let two = file("40-two.conflist", "two", third);
        assert_eq!(judged(&[ours(), one, two])[0].0, Severity::Ok);
        assert_eq!(
            judged(&[
                ours(),
                file("20-b.conflist", "pods", json!([{"type": "ptp"}]))
            ])[0]
                .0,
            Severity::Warning
        );
    }

    #[test]
    fn what_cannot_be_parsed_and_a_directory_without_ours_are_told() {
        let broken = File::parse("/etc/cni/net.d/20-broken.conf".into(), b"{");
        let found = judged(&[ours(), broken]);
        assert_eq!(found, [(Severity::Warning, "20-broken.conf".to_owned())]);
        assert_eq!(judged(&[])[0].0, Severity::Warning);
    }

    #[test]
    fn interfaces_of_others_are_left_over_unless_they_are_ours() {
        let link = |name: &str| Link {
            name: name.to_owned(),
            ..Link::default()
        };
        let links = [link("eth0"), link("flannel.1"), link("weave")];
        let found = judge_leftovers(&links, &["weave"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].fix.as_deref(), Some("ip link delete flannel.1"));
    }

    #[test]
    fn programs_that_are_missing_or_another_build_are_named() {
        let programs = |there: &[&str], is_own| Programs {
            directory: "/opt/cni/bin".into(),
            there: there.iter().map(|name| (*name).to_owned()).collect(),
            own: "/root/beeline".into(),
            is_own,
        };
        let judged = |programs: &Programs| {
            let found = judge_programs(programs, &[ours()], "beeline");
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
        let found = judge_programs(&programs, &files, "beeline");
        assert!(found[0].object.ends_with("/dhcp"), "{found:?}");
    }
}
