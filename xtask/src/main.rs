//! beeline's development commands: `cargo xtask <verb>`, one module a verb.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod audit;
mod bench;
mod bpf_linker;
mod bpf_rustc;
mod build;
mod build_ebpf;
mod cases;
mod ci;
mod conflist;
mod demo;
mod files;
mod fuzz;
mod image;
mod install;
mod interrupt;
mod kubernetes;
mod libtest;
mod lint;
mod packages;
mod process;
mod scale;
mod steps;
mod test;
mod tools;
mod version;
mod vm;
mod workspace;

/// Builds, installs, checks and shows beeline.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the BPF object, installing a toolchain for it if need be
    BuildEbpf,
    /// Build the plugin with its BPF object, the test programs, and the agent
    Build(build::Args),
    /// Build, then make the image of the plugin and the agent for a cluster, as an archive
    Image(image::Args),
    /// Build, then install the plugin and its network configuration on this node
    Install(install::Args),
    /// Check formatting and lints, of the host's code and the BPF programs
    Lint,
    /// Check the licences and sources of all dependencies, and what is known against them
    Audit(audit::Args),
    /// Run the demo on network namespaces of this machine
    Demo(demo::Args),
    /// Measure packets and ADDs beside the alternatives, on network namespaces of this machine
    Bench(bench::Args),
    /// Measure an agent among thousands of nodes, which a real Kubernetes API server knows
    Scale(scale::Args),
    /// Run the tests: every tier, or those selected
    Test(test::Args),
    /// Run tests on Debian's kernels, in virtual machines
    ///
    /// Each kernel is got once, from the mirror of Debian that this machine uses or from Debian's own, into target/vm;
    /// nothing of the machine's changes but QEMU, which is installed if it is missing. Where KVM does not work, the
    /// machine is emulated, which takes many times as long. What it says is in target/vm/<KERNEL>/console.log.
    Vm(vm::Args),
    /// Run what CI runs: lint, test, then a short demo
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::BuildEbpf => build_ebpf::run().map(drop),
        Verb::Build(args) => build::run(&args),
        Verb::Image(args) => image::run(&args),
        Verb::Install(args) => install::run(&args),
        Verb::Lint => lint::run(),
        Verb::Audit(args) => audit::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Scale(args) => scale::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Ci => ci::run(),
    }
}
