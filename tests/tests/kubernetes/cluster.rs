//! A cluster of its own for the tests: brought up and taken down by the scripts, spoken to by kubectl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use beeline_tests::exec;
use beeline_tests::plan::Families;
use serde_json::Value;

use crate::guardian::Guardian;
use crate::node::Node;
use crate::paths;
use crate::wait::{seconds, wait_for};

/// How many nodes a cluster has.
const NODES: usize = 2;

/// A control plane and two nodes, without a pod network at first.
pub(crate) struct Cluster {
    scripts: Scripts,
    nodes: Vec<Node>,
    families: Families,
    /// Declared last, as it takes all down when it goes.
    _guardian: Guardian,
}

/// How the scripts are told which cluster they are to work on.
#[derive(Clone)]
pub(crate) struct Scripts {
    programs: PathBuf,
    state: PathBuf,
    dual: bool,
}

impl Scripts {
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(paths::script(name));
        command
            .env("KUBE_DIR", &self.programs)
            .env("KUBE_STATE", &self.state)
            .env("NODES", NODES.to_string())
            .env("DUAL", if self.dual { "1" } else { "0" })
            .env("PROXY", "1");
        command
    }

    /// Where Kubernetes' programs are.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// Where all of the cluster is.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }
}

impl Cluster {
    /// Brings one up; `name` tells it from others of this process.
    pub(crate) fn up(name: &str, families: Families) -> Result<Self> {
        let programs = paths::programs()?;
        let state = format!("clusters/test-{}-{name}", std::process::id());
        let scripts = Scripts {
            state: programs.join(state),
            programs,
            dual: families == Families::Dual,
        };
        let mut down = scripts.command("down.sh");
        down.arg("--purge");
        // First, as bringing it up may be interrupted.
        let guardian = Guardian::start(&down)?;
        exec::stdout(&mut scripts.command("up.sh")).context("cluster: bring up")?;
        let nodes = (1..=NODES).map(|number| Node::open(&scripts, number));
        Ok(Self {
            nodes: nodes.collect::<Result<_>>()?,
            scripts,
            families,
            _guardian: guardian,
        })
    }

    /// The families that pods have addresses of.
    pub(crate) fn families(&self) -> Families {
        self.families
    }

    /// All its nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this number, from 1 on.
    #[track_caller]
    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// Runs kubectl as admin.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        exec::stdout(self.scripts.command("kc").args(arguments))
    }

    /// What `kubectl get` finds.
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.scripts.command("kc");
        exec::json(command.arg("get").args(arguments).args(["-o", "json"]))
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &Value) -> Result<()> {
        self.kubectl_with(&["apply", "-f", "-"], manifest).map(drop)
    }

    /// Runs kubectl as admin, which reads an object.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], object: &Value) -> Result<String> {
        let mut command = self.scripts.command("kc");
        let output = exec::output(command.args(arguments), object.to_string().as_bytes())?;
        ensure!(
            output.status.success(),
            "{arguments:?} {object}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills a component, such as `apiserver` or `kubelet1`, as a crash would.
    pub(crate) fn stop(&self, component: &str) -> Result<()> {
        exec::stdout(self.scripts.command("stop.sh").arg(component)).map(drop)
    }

    /// Starts all components that do not run, and waits until they serve.
    pub(crate) fn start_missing(&self) -> Result<()> {
        exec::stdout(&mut self.scripts.command("up.sh")).map(drop)
    }

    /// Waits until Kubernetes calls every node ready.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        wait_for("nodes ready", seconds(30), || {
            for node in &self.nodes {
                let object = self.get(&["node", node.name()])?;
                let conditions = object["status"]["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                let ready = conditions.find(|condition| condition["type"] == "Ready");
                let ready = ready.with_context(|| format!("{}: no conditions", node.name()))?;
                ensure!(
                    ready["status"] == "True",
                    "{}: {}",
                    node.name(),
                    ready["message"]
                );
            }
            Ok(())
        })
    }

    /// The subnets of a node's pods.
    pub(crate) fn pod_cidrs(&self, node: &Node) -> Result<Vec<String>> {
        let object = self.get(&["node", node.name()])?;
        let cidrs = serde_json::from_value(object["spec"]["podCIDRs"].clone());
        cidrs.with_context(|| format!("{}: no podCIDRs", node.name()))
    }

    /// The end of a component's log.
    pub(crate) fn log(&self, component: &str, lines: usize) -> String {
        let path = self.scripts.state.join(format!("log/{component}.log"));
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // cgroup v1 without perf_event makes kubelet complain of each container again and again.
        let said = text.lines().filter(|line| !line.contains("perf_event"));
        let all: Vec<&str> = said.collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
