//! What a node lacks, refuses or has run out of: an ADD then works all the same and says what it does without, or it
//! fails with an error that names the object and leaves nothing; DEL frees what can be freed; and when the hardship is
//! over, ADD works with no further step.

mod clocks;
mod disks;
mod kernel;
mod ports;
mod process;
mod rights;
mod tables;

use std::ffi::OsStr;
use std::process::Output;
use std::sync::Arc;

use beeline_tests::exec;
use beeline_tests::netns::Namespace;
use beeline_tests::node::Node;
use beeline_tests::outcome::Outcome;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::Value;

/// A node's plugin, executed by a command that first takes something away from it.
pub(crate) struct Hardship<'a> {
    node: &'a Arc<Node>,
    prefix: Vec<String>,
}

impl<'a> Hardship<'a> {
    /// Has a command such as `prlimit` execute the plugin.
    pub(crate) fn by(node: &'a Arc<Node>, prefix: &[&str]) -> Self {
        Self {
            node,
            prefix: prefix.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// Has a shell execute it after these commands, in a mount namespace that only it and what it starts are in.
    pub(crate) fn among_mounts(node: &'a Arc<Node>, commands: &str) -> Self {
        let commands = format!("{commands}\nexec \"$0\" \"$@\"");
        Self::by(node, &["unshare", "--mount", "sh", "-ec", &commands])
    }

    /// Has a shell execute it after these commands.
    pub(crate) fn after(node: &'a Arc<Node>, commands: &str) -> Self {
        let commands = format!("{commands}\nexec \"$0\" \"$@\"");
        Self::by(node, &["sh", "-ec", &commands])
    }

    /// Calls the plugin.
    #[track_caller]
    pub(crate) fn call(&self, verb: &str, attachment: &Attachment, stdin: &Value) -> Outcome {
        let (runtime, stdin) = (self.node.runtime(), stdin.to_string());
        let outcome = runtime.call_line(&self.line(), verb, attachment, stdin.as_bytes());
        let outcome = outcome.expect("executed, with at most one JSON document");
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        outcome
    }

    /// Asks whether an ADD of this configuration would work.
    #[track_caller]
    pub(crate) fn status(&self, stdin: &Value) -> Outcome {
        let mut stdin = stdin.clone();
        stdin["cniVersion"] = "1.1.0".into();
        self.call("STATUS", &Attachment::new("", ""), &stdin)
    }

    /// Runs a command of the plugin's.
    #[track_caller]
    pub(crate) fn cli(&self, verb: &str, options: &[&str]) -> Output {
        let line = self.line();
        let mut command = self.node.netns().command(line[0]);
        command.args(&line[1..]).arg(verb).arg("--state-dir");
        command.arg(self.node.state_dir()).args(options);
        exec::output(&mut command, b"").expect("executed")
    }

    /// What `beeline doctor` finds.
    #[track_caller]
    pub(crate) fn doctor(&self) -> String {
        let conf = self.node.conf_dir().display().to_string();
        let found = self.cli("doctor", &["--conf-dir", &conf]);
        String::from_utf8_lossy(&found.stdout).into_owned()
    }

    fn line(&self) -> Vec<&OsStr> {
        let prefix = self.prefix.iter().map(OsStr::new);
        prefix
            .chain([self.node.plugin().path().as_os_str()])
            .collect()
    }

    /// Has ADD fail, with one of these codes, and leave neither on the node nor in the sandbox a trace.
    #[track_caller]
    pub(crate) fn refuses(
        &self,
        (namespace, attachment): &(Namespace, Attachment),
        stdin: &Value,
        codes: &[u64],
    ) -> String {
        let before = Snapshot::of(self.node);
        let message = self.call("ADD", attachment, stdin).expect_error(codes);
        before.assert_unchanged(self.node);
        assert_only_loopback(namespace);
        message
    }
}

/// Whether a sandbox is as new.
#[track_caller]
pub(crate) fn assert_only_loopback(namespace: &Namespace) {
    let links = exec::stdout(namespace.command("ip").args(["-o", "link"])).expect("ip");
    assert_eq!(links.lines().count(), 1, "left in the sandbox: {links}");
}
