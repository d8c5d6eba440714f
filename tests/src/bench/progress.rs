//! How far the bench is: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::types::Skipped;
use crate::interrupt;

/// Progress of one part of the bench, on standard error.
pub(super) struct Progress {
    bar: ProgressBar,
    /// The line last printed, where there is no bar.
    line: Option<String>,
}

impl Progress {
    /// Starts a part of so many steps.
    pub(super) fn new(steps: usize) -> Result<Self> {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new(steps as u64)
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(
            ProgressStyle::with_template("  [{bar:30}] {pos}/{len} {eta:>4} left  {msg}")?
                .progress_chars("=> "),
        );
        let line = (!terminal).then(String::new);
        Ok(Self { bar, line })
    }

    /// Begins a step, unless there was an interrupt. Steps of one stage are one line where there is no bar.
    pub(super) fn step(&mut self, stage: &str, what: &str) -> Result<()> {
        interrupt::check()?;
        self.bar.set_message(format!("{stage}: {what}"));
        self.bar.inc(1);
        if let Some(line) = &mut self.line
            && line != stage
        {
            eprintln!("  {stage}");
            *line = stage.to_owned();
        }
        Ok(())
    }

    /// Records something that could not be measured, and says so.
    pub(super) fn skip(&self, skipped: &mut Vec<Skipped>, what: &str, why: &str) {
        self.bar.suspend(|| eprintln!("  skipped: {what}: {why}"));
        skipped.push(Skipped {
            what: what.to_owned(),
            why: why.to_owned(),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
