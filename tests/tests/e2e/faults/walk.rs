//! Going through the steps of a verb, one after the other, and what was found.

use beeline_tests::inject::{Fault, Injected, Injection};
use beeline_tests::outcome::Outcome;
use beeline_tests::snapshot::Snapshot;

use super::lab::Lab;

/// Where it is noted who has which addresses, beside the addresses' own files.
pub(super) const INDEX: &str = "/ipam/";

/// So many steps are more than a few that a verb happens to be able to do without.
const MANY: usize = 20;

/// What cleans up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleaner {
    Del,
    Gc,
}

impl Cleaner {
    /// The two in turns.
    pub(super) fn of(number: usize) -> Self {
        match number % 2 {
            0 => Self::Del,
            _ => Self::Gc,
        }
    }

    pub(super) fn run(self, lab: &Lab) -> Outcome {
        match self {
            Self::Del => lab.del(),
            Self::Gc => lab.gc(),
        }
    }
}

/// A walk over the steps of one verb.
pub(super) struct Walk<'a> {
    pub(super) lab: &'a Lab,
    pub(super) before: Snapshot,
    verb: &'static str,
    fault: Fault,
    /// Steps that something went wrong at, and of these the ones that the verb did not report.
    pub(super) walked: usize,
    pub(super) survived: usize,
    findings: Vec<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(lab: &'a Lab, verb: &'static str, fault: Fault) -> Self {
        Self {
            lab,
            before: lab.look(),
            verb,
            fault,
            walked: 0,
            survived: 0,
            findings: Vec::new(),
        }
    }

    /// Has the verb go wrong at a step; `None` when there are no more, or if the plugin misbehaved.
    pub(super) fn step(&mut self, injection: &Injection) -> Option<(String, Outcome)> {
        let Injected { outcome, step, .. } = match self.lab.inject(self.verb, injection) {
            Ok(injected) => injected,
            Err(error) => {
                self.walked += 1;
                self.find(&format!("step {}", injection.at), &format!("{error:#}"));
                return Some((format!("step {}", injection.at), self.lab.del()));
            }
        };
        let step = step?;
        self.walked += 1;
        if outcome.stderr.contains("panicked") {
            self.find(&step, &format!("panics: {outcome}"));
        }
        if self.fault != Fault::Kill {
            let has_code = outcome.stdout["code"].as_u64().is_some_and(|code| code > 0);
            let tells = has_code && outcome.status.code() == Some(1);
            if outcome.is_success() {
                self.survived += 1;
            } else if !tells && !is_answer(&step) {
                self.find(&step, &format!("neither succeeds nor tells: {outcome}"));
            }
        }
        Some((step, outcome))
    }

    /// Takes a note of something that is wrong.
    pub(super) fn find(&mut self, step: &str, what: &str) {
        let (verb, fault) = (self.verb, self.fault);
        self.findings
            .push(format!("{verb} {fault:?}, {step}: {what}"));
    }

    /// Notes an outcome that should have been a success.
    pub(super) fn expect_success(&mut self, step: &str, outcome: &Outcome) {
        if !outcome.is_success() {
            self.find(step, &format!("then {outcome}"));
        }
    }

    /// Notes what is not as it was before; what is found once is not found again.
    pub(super) fn expect_unchanged(&mut self, step: &str, when: &str) {
        let changes = self.lab.changes(&self.before);
        self.expect_none(&changes, step, when);
    }

    /// The same, whatever changes in lines with `text`.
    pub(super) fn expect_unchanged_but(&mut self, text: &str, step: &str, when: &str) {
        let others = |snapshot: &Snapshot| -> Snapshot {
            let lines = snapshot.iter().filter(|line| !line.contains(text));
            lines.map(str::to_owned).collect()
        };
        let changes = others(&self.before).diff(&others(&self.lab.look()));
        self.expect_none(&changes, step, when);
    }

    fn expect_none(&mut self, changes: &str, step: &str, when: &str) {
        if changes.is_empty() {
            return;
        }
        self.find(step, &format!("{when}:\n{changes}"));
        self.lab.del();
        self.lab.gc();
        self.before = self.lab.look();
    }

    /// Panics if anything was found; says how long the walk was.
    pub(super) fn finish(self, what: &str) {
        let Self {
            verb,
            fault,
            walked,
            survived,
            findings,
            ..
        } = self;
        println!("{what}: {verb} {fault:?}: {walked} steps, {survived} survived");
        assert!(
            findings.is_empty(),
            "{} of {walked}:\n{}",
            findings.len(),
            findings.join("\n")
        );
        assert!(walked > 0, "{verb} has no steps");
        assert!(
            walked < MANY || survived * 3 < walked * 2,
            "{survived} of {walked} do not matter"
        );
        self.lab.assert_connected();
    }
}

/// Whether it is the answer itself that could not be given.
pub(super) fn is_answer(step: &str) -> bool {
    step.contains("standard output")
}
