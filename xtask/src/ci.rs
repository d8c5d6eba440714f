//! `ci`: what CI runs, in CI's order.

use anyhow::Result;

use crate::steps::Steps;
use crate::{demo, lint, process, test};

/// Runs every step, even if an earlier one failed.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    steps.step("lint", lint::run);
    steps.step("test", || test::run(&test::Args::default()));
    steps.step("demo", || {
        process::run(demo::prepare()?.args(["--nodes", "2", "--pods", "1"]))
    });
    steps.finish()
}
