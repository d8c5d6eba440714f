//! One call of one plugin, with all that a runtime can say in it.

use std::path::PathBuf;

use beeline_tests::node::Node;
use beeline_tests::outcome::Outcome;
use beeline_tests::runtime::Attachment;
use serde_json::Value;

/// A call under construction: by default of the node's own plugin, without `CNI_ARGS`.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    node: &'a Node,
    attachment: &'a Attachment,
    program: PathBuf,
    path: String,
    others: Vec<(&'static str, String)>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(node: &'a Node, attachment: &'a Attachment) -> Self {
        Self {
            node,
            attachment,
            program: node.plugin().path().clone(),
            path: node.plugin().search_path(),
            others: Vec::new(),
        }
    }

    /// Executes one of the distribution's plugins instead.
    pub(crate) fn of(mut self, plugin: &str) -> Self {
        self.program = PathBuf::from("/usr/lib/cni").join(plugin);
        self
    }

    /// Sets one more variable, such as `CNI_ARGS`.
    pub(crate) fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.others.push((variable, value.to_owned()));
        self
    }

    /// Sets `CNI_PATH`.
    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Executes it.
    #[track_caller]
    pub(crate) fn run(&self, verb: &str, stdin: &Value) -> Outcome {
        let netns = self.attachment.netns.display().to_string();
        let mut environment = vec![
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &*self.attachment.container_id),
            ("CNI_IFNAME", &*self.attachment.ifname),
            ("CNI_NETNS", &*netns),
            ("CNI_PATH", &*self.path),
        ];
        let others = self.others.iter();
        environment.extend(others.map(|(variable, value)| (*variable, &**value)));
        let stdin = stdin.to_string();
        let runtime = self.node.runtime();
        let outcome = runtime.exec(&self.program, &environment, stdin.as_bytes());
        outcome.expect("executed, with at most one JSON document")
    }
}
