//! A process of the agent on a node, and what it says of itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use beeline_tests::exec;
use beeline_tests::node::Node;
use beeline_tests::traffic::connect;
use beeline_tests::wait::{seconds, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab::{bin_dir, template};

/// Where an agent listens, unless another one does.
pub(super) const PORT: u16 = 9474;

/// The metric of what was put right.
const REPAIRS: &str = "beeline_repairs_total";

/// An agent that runs; killed on drop, and then what it logged is shown if the test has failed.
#[derive(Debug)]
pub(super) struct Agent {
    node: Arc<Node>,
    process: Child,
    log: PathBuf,
    port: u16,
}

/// The agent; `cargo xtask test` builds it.
pub(crate) fn binary() -> PathBuf {
    let built = || {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .with_file_name("target")
            .join("release/beeline-agent")
    };
    std::env::var_os("BEELINE_AGENT_BIN").map_or_else(built, PathBuf::from)
}

/// The options that tell the agent where things are on a node.
fn directories(node: &Node) -> [(&'static str, PathBuf); 3] {
    [
        ("--template", template(node)),
        ("--conf-dir", node.conf_dir()),
        ("--bin-dir", bin_dir(node)),
    ]
}

/// The arguments of an agent, or of what is done in its place.
fn arguments(command: &mut Command, node: &Node, options: &[&str]) {
    command.arg("etcd").args(["--node-name", node.name()]);
    for (option, directory) in directories(node) {
        command.arg(option).arg(directory);
    }
    command.args(options);
}

impl Agent {
    /// Starts one that listens on this port.
    #[track_caller]
    pub(super) fn start(node: &Arc<Node>, port: u16, options: &[&str]) -> Self {
        let log = node.directory().join(format!("agent-{port}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.expect("the agent's log");
        // A test that is killed takes its agents along.
        let mut command = node.netns().command("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary());
        arguments(&mut command, node, options);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let process = command.spawn().expect("setpriv: start");
        let node = node.clone();
        Self {
            node,
            process,
            log,
            port,
        }
    }

    /// What it answers by HTTP: the status, and the text.
    pub(super) fn get(&self, path: &str) -> Result<(u16, String)> {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = connect(self.node.netns(), to)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// Waits until pods get networking on its node.
    #[track_caller]
    pub(super) fn wait_until_ready(&self) {
        self.wait("readiness", || {
            let (status, body) = self.get("/readyz")?;
            ensure!(status == 200, "{status}: {body}");
            Ok(())
        });
    }

    /// Waits until it says that pods get none, with all of these words; returns what it says.
    #[track_caller]
    pub(super) fn wait_until_refused(&self, words: &[&str]) -> String {
        self.wait("refusal", || {
            let (status, body) = self.get("/readyz")?;
            let said = words.iter().all(|word| body.contains(word));
            ensure!(status == 503 && said, "{status}: {body}");
            Ok(body)
        })
    }

    /// Waits for something about it.
    #[track_caller]
    pub(super) fn wait<T>(&self, what: &str, look: impl FnMut() -> Result<T>) -> T {
        let seen = wait_for(what, seconds(60), look);
        seen.unwrap_or_else(|error| panic!("{}: {error:#}", self.node.name()))
    }

    /// Waits until it has logged this.
    #[track_caller]
    pub(super) fn wait_until_logged(&self, what: &str) {
        self.wait(&format!("{what:?} in the log"), || {
            ensure!(self.log().contains(what), "nothing of it");
            Ok(())
        });
    }

    /// All that agents have logged here.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The value of a metric with a label's value, or without one; 0 if it is not there.
    pub(super) fn metric(&self, name: &str, label: Option<&str>) -> Result<f64> {
        let (status, text) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics: {status}: {text}");
        let sample = text.lines().find(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| match label {
                Some(label) => rest.starts_with('{') && rest.contains(&format!("\"{label}\"")),
                None => rest.starts_with(' '),
            })
        });
        let value = sample.and_then(|line| line.rsplit(' ').next());
        Ok(value.map_or(Ok(0.0), str::parse)?)
    }

    /// How much of a kind it has put right.
    pub(super) fn repairs(&self, kind: &str) -> Result<f64> {
        self.metric(REPAIRS, Some(kind))
    }

    /// Waits until it has ended so many rounds more; the first of them may have begun already.
    #[track_caller]
    pub(super) fn wait_for_rounds(&self, count: u32) {
        let rounds = || self.metric("beeline_reconciles_total", Some("ok"));
        let before = rounds().expect("metrics");
        self.wait("rounds", || {
            let now = rounds()?;
            ensure!(now >= before + f64::from(count), "{now} after {before}");
            Ok(())
        });
    }

    /// Waits until it has looked at its node a few times, and found all in place.
    #[track_caller]
    pub(super) fn assert_without_drift(&self) {
        self.wait_for_rounds(3);
        let (_, text) = self.get("/metrics").expect("metrics");
        let repairs: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(REPAIRS))
            .collect();
        assert!(repairs.is_empty(), "{repairs:?}\n{}", self.log());
    }

    /// Kills it, as the kernel does that has no memory left.
    pub(super) fn kill(mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// Ends it as its supervisor does; it must end well. Returns what was logged.
    #[track_caller]
    pub(super) fn stop(mut self) -> String {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        kill(pid, Signal::SIGTERM).expect("SIGTERM");
        let status = wait_for("the agent's end", seconds(60), || {
            self.process.try_wait()?.context("it runs")
        });
        let status = status.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- agent of {}:\n{}", self.node.name(), self.log());
        }
    }
}

/// Frees what a node has leased; its agent must have ended.
#[track_caller]
pub(super) fn release(node: &Node, options: &[&str]) {
    let mut command = node.netns().command(binary());
    arguments(&mut command, node, options);
    exec::stdout(command.arg("--release")).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Takes beeline off a node; returns what was said.
pub(super) fn uninstall(node: &Node) -> Result<String> {
    let mut command = node.netns().command(binary());
    command.arg("uninstall");
    for (option, directory) in directories(node) {
        command.arg(option).arg(directory);
    }
    let output = exec::output(&mut command, b"")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}

/// Whether a file holds this text.
pub(super) fn holds(file: &Path, text: &str) -> Result<()> {
    let held = fs::read_to_string(file).with_context(|| format!("{}: read", file.display()))?;
    ensure!(held.contains(text), "{}: {held}", file.display());
    Ok(())
}
