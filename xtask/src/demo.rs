//! `demo`: shows beeline at work on network namespaces of this machine.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages;
use crate::process;
use crate::{build, build_ebpf, workspace};

/// What to show.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of the demo itself, such as --nodes, --pods or --keep
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds, then becomes the demo.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut demo = prepare()?;
    demo.args(&args.args);
    process::echo(&demo);
    let error = demo.exec();
    Err(error).with_context(|| format!("{}: start", demo.get_program().to_string_lossy()))
}

/// Builds what the demo needs, and returns it ready to take arguments.
pub(crate) fn prepare() -> Result<Command> {
    packages::require(&[packages::DEMO])?;
    build_ebpf::run()?;
    build::host(true)?;
    let mut demo = Command::new(workspace::release_bin("beeline-demo"));
    demo.env("BEELINE_BIN", workspace::release_bin("beeline"));
    Ok(demo)
}
