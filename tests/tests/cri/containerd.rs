//! A containerd of a node's own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use beeline_tests::node::Node;
use beeline_tests::{cgroup, exec};

use crate::client::Client;
use crate::image;
use crate::machine::{Machine, plugin_dir};

/// How long anything of the runtime's own may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Lines shown of the log when a test fails.
const TAIL: usize = 40;

/// Inside of the machine.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// containerd on a node; on drop it goes with all its pods, and whatever they left.
#[derive(Debug)]
pub(crate) struct Containerd {
    client: Arc<Client>,
    /// Stands for the daemon outside, and ends with it.
    daemon: Option<Child>,
    machine: Option<Machine>,
    node: Arc<Node>,
}

impl Containerd {
    /// Starts one that knows the image; panics if that fails.
    #[track_caller]
    pub(crate) fn start(node: &Arc<Node>) -> Self {
        Self::try_start(node).unwrap_or_else(|error| panic!("{}: {error:#}", node.name()))
    }

    fn try_start(node: &Arc<Node>) -> Result<Self> {
        let machine = Machine::start(node).context("machine")?;
        let client = Client::new(&machine.path(SOCKET)).context("client")?;
        let config = node.directory().join("containerd.toml");
        fs::write(&config, configuration(node))?;
        let mut containerd = Self {
            client: Arc::new(client),
            daemon: None,
            machine: Some(machine),
            node: node.clone(),
        };
        containerd.resume()?;
        containerd.import().context("import the image")?;
        Ok(containerd)
    }

    /// The node it runs on.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Who calls it.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The control group that all its pods' are below.
    pub(crate) fn cgroup(&self) -> &str {
        self.node.name()
    }

    /// A command that will run where containerd does.
    pub(crate) fn command(&self, program: &str) -> Command {
        let machine = self.machine.as_ref().expect("it is there until drop");
        machine.command(program)
    }

    /// Starts the daemon, again if it was stopped, and waits until it answers.
    pub(crate) fn resume(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "containerd runs already");
        let log = File::options().create(true).append(true).open(self.log())?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.command("sh");
        command
            .args(["-c", "echo $$ >/run/containerd.pid; exec containerd -c $0"])
            .arg(self.node.directory().join("containerd.toml"))
            // As its unit has it; a user's PATH may lack the programs of administrators.
            .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
            .stdout(log.try_clone()?)
            .stderr(log);
        self.daemon = Some(command.spawn().context("nsenter: start")?);
        self.wait_for("an answer", |containerd| {
            let daemon = containerd.daemon.as_mut().context("no daemon")?;
            if let Some(status) = daemon.try_wait()? {
                bail!(
                    "containerd: {status}; `cargo xtask test` installs it\n{}",
                    containerd.tail()
                );
            }
            Ok(containerd.client.version().is_ok())
        })
    }

    /// Ends the daemon alone, by a signal; its pods stay.
    #[track_caller]
    pub(crate) fn end(&mut self, signal: &str) {
        let mut daemon = self.daemon.take().expect("containerd runs");
        let script = format!("kill -{signal} $(cat /run/containerd.pid)");
        exec::stdout(self.command("sh").args(["-c", &script])).expect("kill");
        daemon.wait().expect("wait");
        assert!(self.client.version().is_err(), "containerd still answers");
    }

    /// Waits until something is as wanted; fails after a while.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            ensure!(
                Instant::now() < deadline,
                "gave up waiting for {what}\n{}",
                self.tail()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn import(&mut self) -> Result<()> {
        let mut ctr = self.command("ctr");
        ctr.args(["--namespace", "k8s.io", "images", "import", "-"]);
        let output = exec::output(&mut ctr, image::archive()?)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "ctr: {}: {error}", output.status);
        // The CRI's part hears of it a little later.
        self.wait_for("the image", |containerd| {
            containerd.client.has_image(image::NAME)
        })
    }

    fn log(&self) -> PathBuf {
        self.node.directory().join("containerd.log")
    }

    /// What the log says last of trouble.
    fn tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| !line.contains("level=info"))
            .collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}: containerd:\n{}", self.node.name(), self.tail());
        }
        // With the first process goes all that runs in there, the daemon too.
        drop(self.machine.take());
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.wait();
        }
        if let Err(error) = cgroup::remove(self.cgroup()) {
            eprintln!("{}: {error:#}", self.node.name());
        }
    }
}

/// The configuration of containerd. Its directories are the usual ones, inside; those of CNI are the node's.
///
/// Without `restrict_oom_score_adj` pods fail where root lacks CAP_SYS_RESOURCE, hence may not lower it.
fn configuration(node: &Node) -> String {
    format!(
        r#"
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{bin}"
    conf_dir = "{conf}"
    max_conf_num = 1
"#,
        image = image::NAME,
        bin = plugin_dir(node).display(),
        conf = node.conf_dir().display(),
    )
}
