//! `build`: the BPF object, then the plugin that embeds it and the test programs.

use std::fs::File;

use anyhow::{Context, Result};

use crate::build_ebpf;
use crate::files;
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

/// What users look for in `target/release`.
const PROGRAMS: [&str; 3] = ["beeline", "beeline-demo", "beeline-bench"];

/// Builds the plugin and the test programs, with the BPF object as it is.
///
/// A release is linked statically: it runs on a host with any C library, or none, and starts a third faster, which is
/// much of what a call of the plugin takes.
pub(crate) fn host(release: bool) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--package",
        "beeline",
        "--package",
        "beeline-tests",
    ]);
    if !release {
        return process::run(&mut cargo);
    }
    // Only with a target named are build scripts and macros spared, which cannot be static.
    let triple = workspace::host_triple()?;
    let flags = format!(r#"target.{triple}.rustflags=["-C", "target-feature=+crt-static"]"#);
    cargo.args(["--release", "--target", &triple, "--config", &flags]);
    process::run(&mut cargo)?;
    let built = workspace::target().join(&triple).join("release");
    for name in PROGRAMS {
        let path = built.join(name);
        let mut program = File::open(&path).with_context(|| path.display().to_string())?;
        files::replace(&workspace::release_bin(name), &mut program, 0o755)?;
    }
    Ok(())
}
