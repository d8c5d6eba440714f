//! Takes a cluster down when its owner lets go, or ends: by returning, a panic, Ctrl-C or SIGKILL.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A process that waits for the end of this one. It hears of it by a pipe, which the kernel closes.
pub(crate) struct Guardian(Child);

impl Guardian {
    /// Starts one that runs `down` at the end.
    pub(crate) fn start(down: &Command) -> Result<Self> {
        let mut command = Command::new("bash");
        // Closing the terminal, too, ends us and not it.
        let script = r#"trap '' INT TERM HUP; cat >/dev/null; exec "$@""#;
        command.args(["-c", script, "guardian"]);
        command.arg(down.get_program()).args(down.get_args());
        for (key, value) in down.get_envs() {
            command.env(key, value.context("environment: nothing to unset")?);
        }
        // Out of the terminal's reach, and not of our standard output, whose end others wait for.
        command.process_group(0).stdin(Stdio::piped());
        let child = command.stdout(Stdio::null()).spawn();
        Ok(Self(child.context("guardian: start")?))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Its complaints are on standard error.
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_guards_is_taken_down_when_its_owner_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let (guarded, other) = (folder.path().join("guarded"), folder.path().join("done"));
        std::fs::write(&guarded, "").unwrap();
        let mut down = Command::new("mv");
        down.arg(&guarded).arg(&other);
        let guardian = Guardian::start(&down).unwrap();
        assert!(guarded.exists());
        drop(guardian);
        assert!(!guarded.exists() && other.exists());
    }
}
