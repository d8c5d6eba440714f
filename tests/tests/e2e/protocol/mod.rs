//! The CNI protocol: what the plugin makes of its environment and its standard input, and what it answers.

use std::process::{Child, Stdio};
use std::sync::Arc;

use beeline_tests::inject::{Injected, Injection};
use beeline_tests::node::Node;
use beeline_tests::outcome::Outcome;
use beeline_tests::runtime::Attachment;
use beeline_tests::snapshot::Snapshot;
use serde_json::Value;

mod environment;
mod gc;
mod input;
mod netns;
mod previous_result;
mod results;
mod status;

/// What the specification has in an error object.
const ERROR_KEYS: [&str; 4] = ["cniVersion", "code", "msg", "details"];

/// All versions, the oldest first.
pub(crate) const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// A call of the plugin, complete unless something is taken from it.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    node: &'a Arc<Node>,
    variables: Vec<(&'a str, String)>,
    stdin: Vec<u8>,
}

impl<'a> Call<'a> {
    /// A call with the node's own configuration.
    pub(crate) fn new(node: &'a Arc<Node>, verb: &str, attachment: &Attachment) -> Self {
        let variables = vec![
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", attachment.container_id.clone()),
            ("CNI_NETNS", attachment.netns.display().to_string()),
            ("CNI_IFNAME", attachment.ifname.clone()),
            ("CNI_PATH", node.plugin().search_path()),
        ];
        let stdin = node.config().stdin().to_string().into_bytes();
        Self {
            node,
            variables,
            stdin,
        }
    }

    /// Changes or adds a variable.
    pub(crate) fn set(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.into()));
        self
    }

    /// Takes variables away.
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.variables.retain(|(known, _)| !names.contains(known));
        self
    }

    /// Says something else on standard input.
    pub(crate) fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Says a configuration on standard input.
    pub(crate) fn config(self, config: &Value) -> Self {
        self.stdin(config.to_string())
    }

    /// Changes the configuration on standard input, which must be JSON so far.
    pub(crate) fn change(self, change: impl FnOnce(&mut Value)) -> Self {
        let mut config = serde_json::from_slice(&self.stdin).expect("configuration");
        change(&mut config);
        self.config(&config)
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        let variables = self.variables.iter();
        variables
            .map(|(name, value)| (*name, value.as_str()))
            .collect()
    }

    /// Executes the plugin.
    #[track_caller]
    pub(crate) fn run(&self) -> Outcome {
        let runtime = self.node.runtime();
        let program = self.node.plugin().path();
        let outcome = runtime.exec(program, &self.environment(), &self.stdin);
        outcome.expect("executed, with one JSON document at most")
    }

    /// Executes the plugin and has something go wrong.
    #[track_caller]
    pub(crate) fn inject(&self, injection: &Injection) -> Injected<Outcome> {
        let runtime = self.node.runtime();
        let injected = runtime.exec_injected(&self.environment(), &self.stdin, injection);
        injected.expect("executed, with one JSON document at most")
    }

    /// Starts the plugin with its standard input and output open for the caller; nothing is written to it.
    fn start(&self) -> Child {
        let mut command = self.node.netns().command(self.node.plugin().path());
        command.env_clear().envs(self.environment());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().expect("started")
    }

    /// Has the call fail with one error object and one of these codes; returns the message.
    #[track_caller]
    pub(crate) fn fails(&self, codes: &[u64]) -> String {
        let outcome = self.run();
        let message = outcome.clone().expect_error(codes);
        let object = outcome.stdout.as_object().expect("an error object");
        let unknown: Vec<_> = object
            .keys()
            .filter(|key| !ERROR_KEYS.contains(&key.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?} in {outcome}");
        assert!(object["cniVersion"].is_string(), "{outcome}");
        message
    }

    /// Has the call fail so, and leave the node as it was.
    #[track_caller]
    pub(crate) fn is_refused(&self, codes: &[u64]) -> String {
        let before = Snapshot::of(self.node);
        let message = self.fails(codes);
        before.assert_unchanged(self.node);
        message
    }
}
