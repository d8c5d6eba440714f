//! `lint`: formatting, and clippy for the host's code and for the BPF programs.

use anyhow::Result;

use crate::build_ebpf;
use crate::packages;
use crate::process;
use crate::steps::Steps;
use crate::workspace;

/// Runs every check, even if an earlier one failed.
pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    steps.step("fmt", || {
        process::run(workspace::cargo().args(["fmt", "--all", "--check"]))
    });
    steps.step("clippy", clippy);
    steps.step("fmt and clippy of fuzz targets", fuzz_targets);
    steps.step("clippy for BPF", bpf_clippy);
    steps.finish()
}

fn clippy() -> Result<()> {
    packages::require(&[packages::BUILD_TESTS, packages::BUILD_AGENT])?;
    // The plugin's build script wants the object.
    build_ebpf::run()?;
    let mut cargo = workspace::cargo();
    cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    process::run(&mut cargo)
}

/// The fuzz targets are a workspace of their own. Nothing is linked, so that no C++ is compiled.
fn fuzz_targets() -> Result<()> {
    let cargo = |verb: &str| {
        let mut cargo = workspace::cargo();
        cargo.args([verb, "--manifest-path", "fuzz/Cargo.toml"]);
        cargo
    };
    process::run(cargo("fmt").arg("--check"))?;
    let options = ["--locked", "--no-default-features", "--", "-D", "warnings"];
    process::run(cargo("clippy").args(options))
}

/// Runs clippy's compiler by hand, since `cargo clippy` would take the one of the host's toolchain.
fn bpf_clippy() -> Result<()> {
    let (choice, _) = build_ebpf::toolchain()?;
    let mut cargo = choice.cargo("check");
    // A folder of its own: results of check with and without clippy are not told apart.
    cargo
        .arg("--target-dir")
        .arg(workspace::target().join("bpf-clippy"));
    cargo.env("RUSTC_WORKSPACE_WRAPPER", choice.clippy()?);
    cargo.env(
        "CLIPPY_ARGS",
        "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
    );
    process::run(&mut cargo)
}
