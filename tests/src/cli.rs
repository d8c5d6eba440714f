//! The plugin's command line, as an administrator uses it on a node.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::exec;
use crate::node::Node;
use crate::pod::Pod;

/// Runs a verb with options; it may fail.
pub fn run(node: &Node, verb: &str, options: &[&str]) -> Result<Output> {
    let mut command = node.netns().command(node.plugin().path());
    command.arg(verb).arg("--state-dir").arg(node.state_dir());
    exec::output(command.args(options), b"")
}

/// Loads the programs, for the configuration that is installed.
pub fn load(node: &Node, options: &[&str]) -> Result<String> {
    let directory = node.conf_dir().display().to_string();
    succeed(
        node,
        "load",
        &[&["--conf-dir", &*directory], options].concat(),
    )
}

/// Has the programs loaded, which must fail; returns why.
pub fn load_fails(node: &Node, options: &[&str]) -> Result<String> {
    let directory = node.conf_dir().display().to_string();
    let options = [&["--conf-dir", &*directory], options].concat();
    let output = run(node, "load", &options)?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "{}: load succeeds", node.name());
    Ok(error)
}

/// Takes the fast path off.
pub fn unload(node: &Node) -> Result<String> {
    succeed(node, "unload", &[])
}

/// What `beeline status` says of the node's only network.
pub fn status(node: &Node) -> Result<Value> {
    let text = succeed(node, "status", &["--output", "json"])?;
    let status: Value = serde_json::from_str(&text)?;
    Ok(status["networks"][0].clone())
}

/// What `beeline doctor` finds, and whether it ends well; `bin_dir` stands for `/opt/cni/bin`.
pub fn doctor(node: &Node, bin_dir: &Path, output: &str) -> Result<(bool, String)> {
    let directories = [node.conf_dir(), bin_dir.to_owned()].map(|path| path.display().to_string());
    let [conf, bin] = &directories;
    let options = ["--conf-dir", conf, "--bin-dir", bin, "--output", output];
    let found = run(node, "doctor", &options)?;
    let error = String::from_utf8_lossy(&found.stderr);
    ensure!(error.is_empty(), "{}: beeline doctor: {error}", node.name());
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    Ok((found.status.success(), text))
}

/// Runs a line of commands in a node as an administrator would, who has the plugin in the `PATH`.
pub fn shell(node: &Node, line: &str) -> Result<String> {
    let own = node.plugin().path().parent().context("a directory")?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", own.display());
    let mut command = node.netns().command("sh");
    exec::stdout(command.args(["-c", line]).env("PATH", path))
}

/// The path that a pod takes, and why it is the slow one, if there is a reason; as `beeline status` says.
pub fn path(node: &Node, pod: &Pod) -> Result<(String, Option<String>)> {
    let status = status(node)?;
    let pods = status["pods"].as_array().into_iter().flatten();
    let mut pods = pods.filter(|one| one["container_id"] == pod.name());
    let one = pods
        .next()
        .with_context(|| format!("{} is not in {status}", pod.name()))?;
    let text = |key: &str| one[key].as_str().map(str::to_owned);
    Ok((text("path").context("no path")?, text("slow")))
}

/// What `beeline status` says to people.
pub fn status_text(node: &Node) -> Result<String> {
    succeed(node, "status", &[])
}

fn succeed(node: &Node, verb: &str, options: &[&str]) -> Result<String> {
    let output = run(node, verb, options)?;
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{}: beeline {verb}: {}: {out}{error}",
        node.name(),
        output.status
    );
    Ok(out.into_owned())
}
