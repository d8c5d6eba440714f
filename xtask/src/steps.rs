//! Steps that all run even if an earlier one failed, and are summed up at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::interrupt;
use crate::process::say;

/// The outcomes of the steps so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration, Outcome)>,
}

enum Outcome {
    Passed,
    Failed(anyhow::Error),
    Skipped(String),
}

impl Steps {
    /// Runs one step; once Ctrl-C was pressed, skips it.
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<()>) {
        if interrupt::seen() {
            self.skip(name, "interrupted".to_owned());
            return;
        }
        say(&format!("{name} …"));
        let start = Instant::now();
        let outcome = run().map_or_else(Outcome::Failed, |()| Outcome::Passed);
        self.done.push((name, start.elapsed(), outcome));
    }

    /// Notes that a step cannot run here, and why; that is no failure.
    pub(crate) fn skip(&mut self, name: &'static str, why: String) {
        self.done
            .push((name, Duration::ZERO, Outcome::Skipped(why)));
    }

    /// Prints a line for each step, and fails if any failed.
    pub(crate) fn finish(self) -> Result<()> {
        for (name, took, outcome) in &self.done {
            let took = took.as_secs_f32();
            say(&match outcome {
                Outcome::Passed => format!("{name}: passed ({took:.1} s)"),
                Outcome::Failed(error) => format!("{name}: FAILED ({took:.1} s): {error:#}"),
                Outcome::Skipped(why) => format!("{name}: skipped: {why}"),
            });
        }
        let failed = |(_, _, outcome): &&(_, _, Outcome)| matches!(outcome, Outcome::Failed(_));
        let failures = self.done.iter().filter(failed).count();
        if interrupt::seen() {
            bail!("interrupted");
        }
        if failures > 0 {
            bail!("{failures} of {} steps failed", self.done.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_steps_run_after_a_failure_and_the_whole_fails() {
        let mut ran = false;
        let mut steps = Steps::default();
        steps.step("first", || bail!("broken"));
        steps.step("second", || {
            ran = true;
            Ok(())
        });
        let error = steps.finish().unwrap_err();
        assert_eq!(error.to_string(), "1 of 2 steps failed");
        assert!(ran);
    }

    #[test]
    fn what_passed_or_cannot_run_is_success() {
        let mut steps = Steps::default();
        steps.skip("elsewhere", "no root".to_owned());
        steps.step("only", || Ok(()));
        assert!(steps.finish().is_ok());
    }
}
