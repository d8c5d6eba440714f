//! The rest of a machine around a node's network: a mount namespace, so that containerd finds its usual directories
//! empty and its mounts are nobody else's, and a PID namespace, so that nothing outlives its first process.
//!
//! That process ends when its standard input does, hence with the test process, however that ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use beeline_tests::node::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// Becomes the first process: makes the machine of a node's directory (`$1`) and the plugin (`$2`), tells its PID as the
/// world knows it, and waits.
///
/// `/run` and `/var/lib` are a tmpfs, the node's own directory excepted; overlayfs cannot lie on overlayfs, which the
/// machine's root may be. As the shell waits for `cat`, it waits for the processes that it inherits, too.
const INIT: &str = r#"
set -e
new=$1/machine
mount -t tmpfs -o mode=755 tmpfs "$new"
mkdir -p "$new/run/netns" "$new/var-lib" "$new$1"
mount --bind "$1" "$new$1"
mount --bind "$2" "$new$1/bin/${2##*/}"
mount --bind "$new/var-lib" /var/lib
mount --rbind "$new/run" /run
read -r pid rest </proc/self/stat
mount -t proc proc /proc
echo "$pid"
cat >/dev/null
exit
"#;

/// A machine; all its processes and mounts go on drop.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The parent of the first process, outside.
    holder: Child,
    init: Pid,
}

impl Machine {
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let directory = node.directory();
        fs::create_dir_all(directory.join("machine"))?;
        link_plugins(node).with_context(|| format!("{REFERENCE}: link"))?;
        let log = directory.join("machine.log");
        let mut command = node.netns().command("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
            .args(["sh", "-c", INIT, "sh"])
            .arg(&directory)
            .arg(node.plugin().path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            // Ctrl-C ends the test process; what that leaves ends by itself.
            .process_group(0);
        let mut holder = command.spawn().context("unshare: start")?;
        let mut pid = String::new();
        let stdout = holder.stdout.take().context("no output")?;
        BufReader::new(stdout).read_line(&mut pid)?;
        let Ok(init) = pid.trim().parse() else {
            // It has failed, hence ends.
            holder.wait()?;
            bail!("the first process: {}", fs::read_to_string(&log)?);
        };
        Ok(Self {
            holder,
            init: Pid::from_raw(init),
        })
    }

    /// Returns a command that will run inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--pid", "--net", "--target"])
            .arg(self.init.to_string())
            .args(["--", program])
            .process_group(0);
        command
    }

    /// Where a path of the inside is.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `holder` ends with it, and has not been waited for: the PID is nobody else's.
        let _ = kill(self.init, Signal::SIGKILL);
        let _ = self.holder.wait();
    }
}

/// Makes the one directory in which containerd looks for plugins.
fn link_plugins(node: &Node) -> Result<()> {
    let bin = plugin_dir(node);
    fs::create_dir_all(&bin)?;
    for entry in fs::read_dir(REFERENCE)? {
        let entry = entry?;
        symlink(entry.path(), bin.join(entry.file_name()))?;
    }
    // Something to mount the plugin on, which may lie where it is not seen inside.
    let plugin = bin.join(node.plugin().kind());
    let _ = fs::remove_file(&plugin);
    fs::write(plugin, "")?;
    Ok(())
}

/// Stands for `/opt/cni/bin`.
pub(crate) fn plugin_dir(node: &Node) -> PathBuf {
    node.directory().join("bin")
}
