//! The runtime's configurations.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::finding::{Finding, Severity, names, or_ok};
use crate::{cni, ipam::IpamConf, net::link::Link, node::Plan};

const CHECK: &str = "conflists";

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
    pub(super) plugins: Vec<Value>,
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

    /// Reads a file; none if that cannot be done.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok()?;
        let file = Self::parse(path.to_owned(), &text);
        file.error.is_none().then_some(file)
    }

    /// The types of its plugins.
    pub(super) fn types(&self) -> Vec<&str> {
        let types = self.plugins.iter();
        types.filter_map(|plugin| plugin["type"].as_str()).collect()
    }

    /// Whether it names a plugin of this type.
    pub(super) fn is_of(&self, kind: &str) -> bool {
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

/// The file's name without the directory.
pub(super) fn file_name(file: &File) -> String {
    let name = file.path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "conflists_tests.rs"]
pub(super) mod tests;
