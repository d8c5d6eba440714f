//! `bench`: measures beeline beside its alternatives on network namespaces of this machine.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages;
use crate::process;
use crate::{build, build_ebpf, workspace};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of the bench itself: run, program, add, all and their options, such as --quick
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds, then becomes the bench.
pub(crate) fn run(args: &Args) -> Result<()> {
    packages::require(&[packages::DEMO, packages::REFERENCE, packages::BENCH])?;
    build_ebpf::run()?;
    build::host(true)?;
    let mut bench = Command::new(workspace::release_bin("beeline-bench"));
    bench.env("BEELINE_BIN", workspace::release_bin("beeline"));
    bench.args(&args.args);
    process::echo(&bench);
    let error = bench.exec();
    Err(error).with_context(|| format!("{}: start", bench.get_program().to_string_lossy()))
}
