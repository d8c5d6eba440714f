//! `build`: the BPF object, then the plugin that embeds it, the test programs and the agent.

use std::fs::File;

use anyhow::{Context, Result};

use crate::build_ebpf;
use crate::files;
use crate::packages;
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
    packages::require(&[packages::BUILD_AGENT])?;
    build_ebpf::run()?;
    host(!args.debug)?;
    agent(!args.debug)
}

/// Builds the plugin and the test programs, with the BPF object as it is.
pub(crate) fn host(release: bool) -> Result<()> {
    let packages = ["beeline", "beeline-tests"];
    let programs = ["beeline", "beeline-demo", "beeline-bench"];
    build(release, &packages, &programs)
}

/// Builds the agent, which takes the longest and needs what [`packages::BUILD_AGENT`] names.
///
/// Apart from the plugin: built together, the plugin would have the features of its libraries that only the agent needs.
pub(crate) fn agent(release: bool) -> Result<()> {
    build(release, &["beeline-agent"], &["beeline-agent"])
}

/// Builds packages, and puts programs where users look for them, in `target/release`.
///
/// A release is linked statically: it runs on a host with any C library, or none, and starts a third faster, which is
/// much of what a call of the plugin takes.
fn build(release: bool, packages: &[&str], programs: &[&str]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.arg("build");
    for package in packages {
        cargo.args(["--package", package]);
    }
    if !release {
        return process::run(&mut cargo);
    }
    // Only with a target named are build scripts and macros spared, which cannot be static.
    let triple = workspace::host_triple()?;
    let flags = format!(r#"target.{triple}.rustflags=["-C", "target-feature=+crt-static"]"#);
    cargo.args(["--release", "--target", &triple, "--config", &flags]);
    process::run(&mut cargo)?;
    let built = workspace::target().join(&triple).join("release");
    for name in programs {
        let path = built.join(name);
        let mut program = File::open(&path).with_context(|| path.display().to_string())?;
        files::replace(&workspace::release_bin(name), &mut program, 0o755)?;
    }
    Ok(())
}
