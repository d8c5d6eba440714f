//! What a check says, of one thing or of many alike.

use serde::Serialize;

/// How many things are named before the rest is only counted.
const NAMED: usize = 10;

/// How much something matters, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing suffers from it as it is.
    Note,
    /// Works, but worse than it could, or only as long as nothing else happens.
    Warning,
    /// Packets or pods are lost, or will be.
    Failure,
}

impl Severity {
    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The network that it is about; none if it is about the node.
    pub(super) network: Option<String>,
    /// The check's name.
    pub(super) check: &'static str,
    /// How much it matters.
    pub(super) severity: Severity,
    /// What it is about.
    pub(super) object: String,
    /// What is so, or wrong, with it.
    pub(super) message: String,
    /// What puts it right: a command, or a key of the configuration.
    pub(super) fix: Option<String>,
}

impl Finding {
    /// Something that is not as it should be, and what puts it right.
    pub(super) fn new(
        check: &'static str,
        severity: Severity,
        object: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            fix: Some(fix.into()),
            severity,
            ..Self::ok(check, object, message)
        }
    }

    /// Something that is as it should be.
    pub(super) fn ok(
        check: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            network: None,
            check,
            severity: Severity::Ok,
            object: object.into(),
            message: message.into(),
            fix: None,
        }
    }
}

/// What was found, or that all is well.
pub(super) fn or_ok(mut found: Vec<Finding>, ok: Finding) -> Vec<Finding> {
    if found.is_empty() {
        found.push(ok);
    }
    found
}

/// Names the first of many, and counts the others.
pub(super) fn names(all: &[String]) -> String {
    let named = all.get(..NAMED).unwrap_or(all).join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The commands for the first of many things.
pub(super) fn commands(all: impl IntoIterator<Item = String>) -> String {
    let commands: Vec<String> = all.into_iter().take(NAMED).collect();
    commands.join("; ")
}

/// How many of a thing, in words.
pub(super) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// The commands of beeline's own that put things right, with the options that this node needs.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    /// Loads the fast path, and brings all that belongs to it up to date.
    pub(super) load: String,
    /// Loads it from nothing.
    pub(super) reload: String,
    /// Takes it off.
    pub(super) unload: String,
    /// In cluster mode, where the agent knows the cluster from.
    pub(super) backend: Option<String>,
    /// Whether an agent runs, which repairs what has drifted.
    pub(super) agent: bool,
}

impl Commands {
    /// A fix of what the agent mends by itself where it runs; as a remark, so that the fix still is a command.
    pub(super) fn repaired(&self, fix: impl Into<String>, mends: &str) -> String {
        let fix = fix.into();
        match self.agent {
            true => format!("{fix}  # or wait: the agent {mends} within a minute"),
            false => fix,
        }
    }

    /// The same, of what it repairs.
    pub(super) fn drifted(&self, fix: impl Into<String>) -> String {
        self.repaired(fix, "repairs it")
    }

    /// The key that tells how peers are reached, and where it is.
    pub(super) fn peers_key(&self) -> &'static str {
        match self.backend.as_deref() {
            None => "datapath.peers, or datapath.overlay",
            Some("etcd") => {
                "datapath.overlay in the agent's template, /etc/beeline/beeline.conflist"
            }
            Some(_) => "datapath.overlay in the ConfigMap beeline of kube-system",
        }
    }
}

#[cfg(test)]
pub(super) fn test_commands() -> Commands {
    Commands {
        load: "beeline load".to_owned(),
        reload: "beeline unload && beeline load".to_owned(),
        unload: "beeline unload".to_owned(),
        backend: None,
        agent: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_are_named_and_the_others_counted() {
        let all: Vec<String> = (0..10).map(|n| format!("veth{n}")).collect();
        assert!(names(&all).ends_with(", veth9"));
        let all: Vec<String> = (0..5_000).map(|n| format!("veth{n}")).collect();
        assert!(names(&all).ends_with(", veth9 and 4990 more"));
        assert_eq!(names(&[]), "");
        assert_eq!(commands(all).matches(';').count(), 9);
    }

    #[test]
    fn a_fix_of_what_an_agent_mends_says_so_where_one_runs() {
        let mut commands = test_commands();
        assert_eq!(commands.drifted("beeline load"), "beeline load");
        commands.agent = true;
        let fix = commands.drifted("beeline load");
        assert!(fix.starts_with("beeline load  # or wait: "), "{fix}");
    }

    #[test]
    fn the_worst_is_the_greatest() {
        use Severity::{Failure, Note, Ok, Warning};
        assert_eq!([Note, Failure, Ok, Warning].iter().max(), Some(&Failure));
    }
}
