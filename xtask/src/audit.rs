//! `audit`: dependencies' licences and sources, and what RustSec knows against them, by cargo-deny.

use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::steps::Steps;
use crate::tools;
use crate::workspace;

/// The release that we install.
const RELEASE: &str = "0.20.2";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail where the advisories cannot be had, instead of leaving them out
    #[arg(long)]
    advisories: bool,
}

/// Runs every check, even if an earlier one failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    // It runs for a second: optimising it would take minutes.
    let program = tools::get("cargo-deny", RELEASE, &["--debug"])?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        process::run(command.current_dir(workspace::root()).args(arguments))
    };
    let mut steps = Steps::default();
    steps.step("licences and sources", || {
        deny(&["check", "licenses", "bans", "sources"])
    });
    match deny(&["fetch", "db"]) {
        Err(error) if args.advisories => steps.step("advisories", || Err(error)),
        Err(error) => steps.skip(
            "advisories",
            format!("the database of RustSec cannot be fetched: {error:#}"),
        ),
        Ok(()) => steps.step("advisories", || {
            deny(&["check", "--disable-fetch", "advisories"])
        }),
    }
    steps.finish()
}
