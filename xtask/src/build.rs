//! `build`: the BPF object, then the plugin that embeds it and the test programs.

use anyhow::Result;

use crate::build_ebpf;
use crate::process;
use crate::workspace;

/// How to build.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Build without optimisation, into target/debug
    #[arg(long)]
    debug: bool,
}

/// Builds everything.
pub(crate) fn run(args: &Args) -> Result<()> {
    build_ebpf::run()?;
    host(!args.debug)
}

/// Builds the plugin and the test programs, with the BPF object as it is.
pub(crate) fn host(release: bool) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--package",
        "beeline",
        "--package",
        "beeline-tests",
    ]);
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)
}
