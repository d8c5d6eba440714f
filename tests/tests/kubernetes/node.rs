//! A node: its namespaces, its container runtime and its plugin directory.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use beeline_tests::exec;
use beeline_tests::netns::Namespace;
use serde_json::Value;

use crate::cluster::Scripts;

/// The plugin's binary in a node.
pub(crate) const PLUGIN: &str = "/opt/cni/bin/beeline";

/// A node of a cluster.
pub(crate) struct Node {
    scripts: Scripts,
    number: usize,
    name: String,
    ip: IpAddr,
    namespace: Namespace,
}

impl Node {
    pub(crate) fn open(scripts: &Scripts, number: usize) -> Result<Self> {
        let name = format!("node{number}");
        let file = scripts.state().join(format!("run/{name}.pid"));
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid = text.split(' ').next().and_then(|pid| pid.parse().ok());
        let pid = pid.with_context(|| format!("{}: no PID: {text:?}", file.display()))?;
        Ok(Self {
            scripts: scripts.clone(),
            number,
            name,
            ip: format!("172.31.0.{}", 10 + number).parse()?,
            namespace: Namespace::of_process(pid)?,
        })
    }

    /// Its number, from 1 on.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Its name in Kubernetes.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its InternalIP.
    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Its network namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns a command that will run inside, with the node's own file systems.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scripts.command("node.sh");
        command.arg(self.number.to_string()).args(arguments);
        command
    }

    /// Runs a command inside, which must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        exec::stdout(&mut self.command(arguments)).with_context(|| self.name.clone())
    }

    /// Runs a shell script inside, which must succeed.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        self.run(&["sh", "-euc", script])
    }

    /// Imports the images of an archive into its container runtime.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("archive: not UTF-8")?;
        self.ctr(&["images", "import", archive]).map(drop)
    }

    /// Gives an image another name besides.
    pub(crate) fn tag(&self, image: &str, name: &str) -> Result<()> {
        self.ctr(&["images", "tag", "--force", image, name])
            .map(drop)
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        self.run(&[&["ctr", "-n", "k8s.io"], arguments].concat())
    }

    /// The process of a container, by its ID as Kubernetes has it.
    pub(crate) fn process(&self, container_id: &str) -> Result<u32> {
        let id = container_id.trim_start_matches("containerd://");
        let tasks = self.ctr(&["tasks", "list"])?;
        let pid = tasks.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(id)).then(|| words.next())?
        });
        let pid = pid.with_context(|| format!("{}: no {id} in {tasks}", self.name))?;
        Ok(pid.parse()?)
    }

    /// Installs one of the reference plugins.
    pub(crate) fn install_reference(&self, plugin: &str) -> Result<()> {
        let from = self.scripts.programs().join("pkg/usr/lib/cni").join(plugin);
        self.install(&from)
    }

    /// Installs a plugin, by rename.
    pub(crate) fn install(&self, from: &Path) -> Result<()> {
        let name = from.file_name().context("plugin: no name")?;
        let to = self.directory("opt-cni-bin").join(name);
        replace(&to, &fs::read(from)?, 0o755).with_context(|| to.display().to_string())
    }

    /// Installs a network configuration, by rename in its directory: containerd 1.6 does not see others.
    pub(crate) fn configure(&self, name: &str, conflist: &Value) -> Result<()> {
        let to = self.directory("cni-net.d").join(name);
        replace(&to, conflist.to_string().as_bytes(), 0o644)
            .with_context(|| to.display().to_string())
    }

    /// One of its own directories, seen from outside.
    fn directory(&self, name: &str) -> std::path::PathBuf {
        self.scripts.state().join("var").join(&self.name).join(name)
    }

    /// What `beeline status` says of its only network.
    pub(crate) fn status(&self) -> Result<Value> {
        let text = self.run(&[PLUGIN, "status", "--output", "json"])?;
        let status: Value = serde_json::from_str(&text)?;
        let network = &status["networks"][0];
        ensure!(network.is_object(), "{}: no network: {text}", self.name);
        Ok(network.clone())
    }

    /// How many packets each program sent where, by `<program>/<outcome>`.
    pub(crate) fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.status()?;
        let counters = status["counters"].as_object().context("no counters")?;
        let packets = counters.iter().map(|(name, amount)| {
            let packets = amount["packets"].as_u64();
            Ok((name.clone(), packets.context("no packets")?))
        });
        packets.collect()
    }
}

fn replace(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    let new = to.with_extension("new");
    fs::write(&new, content)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    Ok(fs::rename(new, to)?)
}
