//! `audit`: dependencies' licences and sources, and what RustSec knows against them, by cargo-deny.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::packages;
use crate::process::{self, say};
use crate::steps::Steps;
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
    let program = match packages::find("cargo-deny", &[]) {
        Some(program) => program,
        None => own()?,
    };
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

/// Our own cargo-deny, installed if need be.
fn own() -> Result<PathBuf> {
    let root = workspace::target().join("tools");
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        say(&format!(
            "installing cargo-deny {RELEASE} into target/tools"
        ));
        let mut cargo = workspace::cargo();
        // It runs for a second: optimising it would take minutes.
        cargo.args(["install", "cargo-deny", "--locked", "--debug", "--version"]);
        // Nothing of it is of use to our own builds.
        cargo.env_remove("CARGO_TARGET_DIR");
        process::run(cargo.arg(RELEASE).arg("--root").arg(root))?;
    }
    Ok(program)
}
