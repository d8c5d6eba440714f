//! Taking beeline off a node: nothing that it made stays, unless pods still use it.
//!
//! The conflist goes first, so that no new pod comes; the plugin goes last, as it has to delete the pods that there are.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Error, Result, ensure};
use beeline::{
    cni::{self, Remains},
    ipam,
    net::with_netlink,
    node::{self, Left, Removal, Store},
};
use serde_json::Value;

use crate::{install, options::Node};

/// Removes all that beeline made on this node. Where pods still use it they go on by the plain bridge, and what they and
/// their deletion need stays; the log then says what that is, and how to remove it once they are gone.
///
/// Every step runs even if an earlier one failed, and all of it may be repeated.
///
/// # Errors
///
/// What failed, all of it.
pub(crate) async fn uninstall(node: &Node) -> Result<()> {
    let node = node.clone();
    // Off the runtime that this may be called on, as it waits for locks and has a netlink connection of its own.
    let done = tokio::task::spawn_blocking(move || Uninstall::default().run(&node));
    done.await.context("uninstall: run")?
}

#[derive(Default)]
struct Uninstall {
    left: Vec<Left>,
    failures: Vec<Error>,
}

impl Uninstall {
    fn run(mut self, node: &Node) -> Result<()> {
        let found = self.network(node);
        let removed = remove_conflist(&node.conf_dir, &node.conf_name);
        self.step(removed);
        if let Some(found) = found {
            self.remove(node, &found);
        }
        for Left { what, command } in &self.left {
            tracing::warn!(command, "stays on this node: {what}");
        }
        let failures: Vec<_> = self.failures.iter().map(|e| format!("{e:#}")).collect();
        ensure!(failures.is_empty(), "uninstall: {}", failures.join("; "));
        Ok(())
    }

    fn step<T>(&mut self, done: Result<T>) -> Option<T> {
        done.map_err(|error| self.failures.push(error)).ok()
    }

    fn leave(&mut self, what: impl Into<String>, command: String) {
        let what = what.into();
        self.left.push(Left { what, command });
    }

    /// The network as it is configured on this node, else as the agent would configure it.
    fn network(&mut self, node: &Node) -> Option<Remains> {
        let sources = [&node.conf_dir.join(&node.conf_name), &node.template];
        for path in sources {
            match remains(path).transpose() {
                None => {}
                Some(Ok(found)) => return Some(found),
                Some(Err(error)) => self.failures.push(error),
            }
        }
        if self.failures.is_empty() {
            let [conflist, template] = sources.map(|path| path.display());
            let error = anyhow::anyhow!(
                "neither {conflist} nor {template} is there: what network to remove is not known"
            );
            self.failures.push(error);
        }
        None
    }

    fn remove(&mut self, node: &Node, found: &Remains) {
        let plan = &found.plan;
        let store = Store::new(plan);
        let shared = self.step(others(node, found)).unwrap_or(true);
        let removal =
            with_netlink(async |netlink| Ok(node::remove(netlink, plan, &store, !shared).await));
        let Some(Removal {
            pods,
            left,
            failures,
        }) = self.step(removal)
        else {
            return;
        };
        self.left.extend(left);
        self.failures.extend(failures);
        let plugin = node.bin_dir.join(install::PLUGIN);
        let delete = format!("rm {}", plugin.display());
        if pods > 0 {
            tracing::warn!(
                network = plan.network,
                pods,
                "pods still use the network; they go on by the plain bridge until they are deleted"
            );
            if let Some(addresses) = &found.data_dir {
                let addresses = addresses.join(&plan.network).display().to_string();
                self.leave("the pods' addresses", format!("rm -r {addresses}"));
            }
            return self.leave("the plugin, which deletes the pods", delete);
        }
        if let Some(data_dir) = &found.data_dir {
            let removed = ipam::remove(data_dir, &plan.network);
            if let Some(reserved @ 1..) = self.step(removed) {
                let directory = data_dir.join(&plan.network).display().to_string();
                let what = format!("{reserved} addresses of pods that are not known here");
                self.leave(what, format!("rm -r {directory}"));
            }
        }
        // An ADD that had begun before the conflist went may have made a pod since.
        match store.attachments() {
            Ok(pods) if !pods.is_empty() => self.leave("a pod that has just come", delete),
            _ if shared => self.leave("the plugin, which serves other networks", delete),
            _ => {
                self.step(install::remove_plugin(&node.bin_dir));
            }
        }
    }
}

/// What a list of plugins has beeline do on this node; `None` if there is no such file.
fn remains(path: &Path) -> Result<Option<Remains>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("{}: read", path.display()))?,
    };
    let parse = || -> Result<Remains> {
        let list: Value = serde_json::from_slice(&text)?;
        let single =
            cni::part_of(&list, install::PLUGIN).context("no plugin of type beeline in it")?;
        Ok(cni::remains_of(&single)?)
    };
    let remains = parse().with_context(|| path.display().to_string())?;
    Ok(Some(remains))
}

/// Whether beeline serves another network on this node, by another configuration or by what was set up.
fn others(node: &Node, found: &Remains) -> Result<bool> {
    let state = &found.plan.datapath.state_dir;
    let set_up = |directory: &PathBuf| Store::at(directory.clone()).record().is_some();
    let own = found.plan.state_dir();
    let of_state = entries(state)?.into_iter();
    if of_state
        .filter(|path| *path != own)
        .any(|path| set_up(&path))
    {
        return Ok(true);
    }
    let is_temporary = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(b".")
    };
    let own = node.conf_dir.join(&node.conf_name);
    let mut of_runtime = entries(&node.conf_dir)?;
    of_runtime.retain(|path| *path != own && !is_temporary(path));
    // What cannot be read, or is no list, the runtime does not use either.
    let serves = |path: &PathBuf| {
        let list = fs::read(path).ok();
        let list = list.and_then(|text| serde_json::from_slice(&text).ok());
        list.is_some_and(|list: Value| {
            cni::part_of(&list, install::PLUGIN).is_some() || list["type"] == install::PLUGIN
        })
    };
    Ok(of_runtime.iter().any(serves))
}

/// Removes the node's configuration, and what is left of one that was being written.
fn remove_conflist(directory: &Path, name: &str) -> Result<()> {
    let temporary = format!(".{name}");
    let mut failure = Ok(());
    for path in entries(directory)? {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if file != name && !file.starts_with(&temporary) {
            continue;
        }
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.with_context(|| format!("{}: remove", path.display())),
        };
        failure = failure.and(removed);
    }
    failure
}

/// What is in a directory; nothing if it is not there.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("{}: read", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(context)?,
    };
    entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .with_context(context)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(folder: &Path) -> Node {
        Node {
            template: folder.join("template.conflist"),
            conf_dir: folder.join("net.d"),
            conf_name: "10-beeline.conflist".to_owned(),
            bin_dir: folder.join("bin"),
            host_root: None,
        }
    }

    fn list(plugin: &str) -> String {
        let network = json!({ "type": plugin, "ipam": { "type": "host-local" } });
        json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [network] }).to_string()
    }

    #[test]
    fn the_conflist_goes_with_what_a_killed_agent_left_of_it_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "10-beeline.conflist",
            ".10-beeline.conflist.new",
            "10-beeline.conflist.bak",
            "20-other.conflist",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for _ in 0..2 {
            remove_conflist(folder.path(), "10-beeline.conflist").unwrap();
            let mut left = entries(folder.path()).unwrap();
            left.sort();
            let kept = ["10-beeline.conflist.bak", "20-other.conflist"];
            assert_eq!(left, kept.map(|name| folder.path().join(name)));
        }
        remove_conflist(&folder.path().join("missing"), "any").unwrap();
    }

    #[test]
    fn a_template_without_subnets_says_what_network_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(folder.path());
        fs::write(&node.template, list("beeline")).unwrap();
        let found = Uninstall::default().network(&node).unwrap();
        assert_eq!(found.plan.network, "pods");
        assert_eq!(found.plan.bridge.name, "cni0");
        assert_eq!(
            found.data_dir.as_deref(),
            Some(Path::new("/var/lib/cni/networks"))
        );
    }

    #[test]
    fn without_any_configuration_the_failure_names_where_there_should_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(folder.path());
        let mut uninstall = Uninstall::default();
        assert!(uninstall.network(&node).is_none());
        let error = uninstall.failures[0].to_string();
        for path in [&node.template, &node.conf_dir] {
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_reported_and_the_template_serves() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(folder.path());
        fs::create_dir(&node.conf_dir).unwrap();
        fs::write(node.conf_dir.join(&node.conf_name), "{").unwrap();
        fs::write(&node.template, list("beeline")).unwrap();
        let mut uninstall = Uninstall::default();
        assert!(uninstall.network(&node).is_some());
        let error = format!("{:#}", uninstall.failures[0]);
        assert!(error.contains("10-beeline.conflist: "), "{error}");
    }

    #[test]
    fn the_plugin_is_others_too_if_another_configuration_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(folder.path());
        fs::create_dir(&node.conf_dir).unwrap();
        fs::write(&node.template, list("beeline")).unwrap();
        let mut found = Uninstall::default().network(&node).unwrap();
        found.plan.datapath.state_dir = folder.path().join("state");
        let write = |name, text| fs::write(node.conf_dir.join(name), text).unwrap();
        write("10-beeline.conflist", list("beeline"));
        write(".10-beeline.conflist", list("beeline"));
        write("20-bridge.conflist", list("bridge"));
        write("30-broken.conflist", "{".to_owned());
        assert!(!others(&node, &found).unwrap());
        write("40-second.conflist", list("beeline"));
        assert!(others(&node, &found).unwrap());
    }
}
